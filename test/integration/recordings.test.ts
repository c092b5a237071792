import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import {
  cleanUp,
  cleanUpFile,
  create,
  exec,
  idle,
  kill,
  makeBundle,
  remove,
  run,
  runtime,
  runtimeCommand,
  scratchDirectory,
  start,
  stateRoot,
  untilStopped,
} from "../support/bundle.ts";
import { engineCommand } from "../support/engine.ts";

/* What is kept of how containers were made: of those that are there, and of those that never came to be. */

afterEach(cleanUp);
afterAll(cleanUpFile);

interface Told {
  container: string;
  trace: string;
  index: number;
  side: string;
  step: string;
  outcome: string;
  error?: string;
  undo?: boolean;
  at?: string;
  startedNs?: number;
  durationNs?: number;
  calls: { name: string; shown: string[]; result?: number; error?: string; startedNs: number; durationNs?: number }[];
}

/** The engine's command on the runtime's containers. */
function caisson(words: string[], env: NodeJS.ProcessEnv = {}) {
  const [command = "", ...own] = engineCommand();
  const places = ["--root", stateRoot(), "--data", join(scratchDirectory(), "data")];
  const { status, stdout, stderr } = spawnSync(command, [...own, ...places, ...words], {
    encoding: "utf8",
    maxBuffer: 1 << 26,
    env: { ...process.env, ...env },
  });
  return { status, stdout, stderr };
}

function told(...words: string[]): Told[] {
  const { status, stdout, stderr } = caisson(["trace", "--json", ...words]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

const failures = () => readdirSync(join(stateRoot(), ".failed")).sort();

test("a container that waits for start says so, and one that was started how it went on", () => {
  const bundle = makeBundle();
  create(bundle);
  expect(told(bundle.id).findLast(({ outcome }) => outcome !== "unreached")).toMatchObject({
    step: "awaitStart",
    outcome: "begun",
  });
  expect(start(bundle)).toMatchObject({ status: 0 });
  untilStopped(bundle);
  const lines = told(bundle.id);
  expect(lines.filter(({ outcome }) => outcome !== "done")).toEqual([]);
  expect(lines.at(-1)).toMatchObject({ container: bundle.id, trace: "create", step: "execute" });
});

test("a trace knows when it happened", () => {
  const before = Date.now();
  const bundle = makeBundle();
  expect(run(bundle, {}, "--keep")).toMatchObject({ status: 0 });
  const { at = "" } = told(bundle.id)[0] ?? {};
  expect(at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/);
  expect(Date.parse(at)).toBeGreaterThanOrEqual(before - 1);
  expect(Date.parse(at)).toBeLessThanOrEqual(Date.now());
});

test("a creation that failed leaves its trace, up to the call that was refused, and what took it back", () => {
  const bundle = makeBundle((spec) => {
    spec.process.env.push("TOKEN=hunter2");
    spec.mounts.push({ destination: "/x", type: "nosuchfs", source: "none" });
  });
  const { status, stderr } = run(bundle);
  expect(status).toBe(1);
  const lines = told(bundle.id);
  const failed = lines.find(({ outcome }) => outcome === "failed");
  expect(failed).toMatchObject({ step: "makeFilesystem", error: "ENODEV" });
  expect(failed?.calls[0]).toMatchObject({ name: "fsopen", shown: ['"nosuchfs"', "0x1"], error: "ENODEV" });
  expect(lines.filter(({ step, outcome }) => step === "execute" && outcome === "unreached")).toHaveLength(1);
  const undone = lines.filter(({ undo }) => undo === true);
  const made = lines.filter(({ step, undo }) => step === "makeCgroup" && undo !== true);
  expect(undone.map(({ step, index }) => [step, index])).toEqual([
    ["startInit", lines.findIndex(({ step }) => step === "startInit")],
    ...made.map(({ index }) => ["makeCgroup", index]).reverse(),
  ]);
  for (const { calls } of undone.slice(1))
    expect(calls).toContainEqual(expect.objectContaining({ name: "unlinkat", result: 0 }));
  const table = caisson(["trace", bundle.id]).stdout;
  expect(table).toContain("it failed: ");
  expect(table).toContain("hint     this kernel has no filesystem called nosuchfs");
  expect(stderr).toContain("this kernel has no filesystem called nosuchfs");
  expect(caisson(["trace"]).stdout).toMatch(new RegExp(`^${bundle.id} +a failed creation `, "m"));
});

test("of the environment of a failed creation only the names are kept, and what its plan is made of", () => {
  const bundle = makeBundle((spec) => {
    spec.process.env.push("TOKEN=hunter2=more");
    spec.process.args = ["/no/such/program"];
    spec.hooks = { startContainer: [{ path: "/hook", env: ["KEY=opensesame"] }] };
  });
  expect(run(bundle).status).toBe(1);
  const directory = join(stateRoot(), ".failed", failures().at(-1) ?? "");
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  const files = readdirSync(directory).map((name) => readFileSync(join(directory, name), "utf8"));
  expect(files.join("")).not.toMatch(/hunter2|opensesame/);
  expect(files.join("")).toContain("TOKEN=************");
  const last = told(bundle.id, "--show-secrets").findLast(({ outcome }) => outcome === "failed");
  expect(last?.calls[0]?.shown).toContain('"/no/such/program"');
});

test("what calls pointed at is still known when a value was blotted out", () => {
  const bundle = makeBundle((spec) => {
    spec.process.env.push("TOKEN=hunter2");
    spec.hooks = { createContainer: [{ path: "/no/such/hook", env: ["KEY=opensesame"] }] };
    spec.hostname = "blotted";
  });
  expect(run(bundle).status).toBe(1);
  const shown = told(bundle.id).flatMap(({ calls }) => calls.flatMap((call) => call.shown));
  expect(shown).toContain('"proc"');
  expect(shown).toContain('"/proc"');
});

test("a start that failed is kept as well: whoever started it deletes it next", () => {
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/broken"];
  });
  // found by its mode, refused by execve
  const broken = join(bundle.rootfs, "bin/broken");
  spawnSync("sh", ["-c", 'printf "\\177ELF" > "$1"; chmod 755 "$1"', "sh", broken]);
  create(bundle);
  expect(start(bundle).status).toBe(1);
  expect(remove(bundle, "--force").status).toBe(0);
  expect(told(bundle.id).find(({ outcome }) => outcome === "failed")).toMatchObject({
    step: "execute",
    error: "ENOEXEC",
  });
});

test("the last twenty failures are kept", () => {
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/no/such/program"];
  });
  const ids = Array.from({ length: 22 }, (_, i) => `${bundle.id}-${i}`);
  for (const id of ids) expect(runtime(["run", "--bundle", bundle.path, id]).status).toBe(1);
  expect(failures()).toHaveLength(20);
  expect(caisson(["trace", ids[21] ?? ""]).status).toBe(0);
  expect(caisson(["trace", ids[1] ?? ""])).toMatchObject({
    status: 125,
    stderr: expect.stringContaining("no container"),
  });
});

test("the last five processes that were added are kept, the failed ones with their failure", () => {
  const bundle = idle();
  for (let i = 0; i < 6; i++) expect(exec(bundle, ["/bin/true"]).status).toBe(0);
  expect(exec(bundle, ["/no/such/program"]).status).toBe(255);
  expect(readdirSync(join(stateRoot(), bundle.id)).filter((name) => name.startsWith("exec-"))).toHaveLength(5);
  expect(told(`${bundle.id}:exec`).find(({ outcome }) => outcome === "failed")).toMatchObject({
    trace: "exec-7",
    step: "findExecutable",
    error: "ENOENT",
  });
  const sixth = told(`${bundle.id}:exec-6`);
  expect(sixth.filter(({ outcome }) => outcome !== "done")).toEqual([]);
  expect(sixth.filter(({ step }) => step === "joinNamespace").length).toBeGreaterThan(3);
  expect(caisson(["trace", `${bundle.id}:exec-2`])).toMatchObject({
    status: 125,
    stderr: expect.stringContaining("last few"),
  });
  expect(caisson(["trace", `${bundle.id}:exec`]).stdout).toContain("it failed: ");
  kill(bundle, "KILL");
});

test("processes that are added at the same time have a trace each", () => {
  const bundle = idle();
  const script = 'for i in 1 2 3 4; do "$@" & done; wait';
  const words = [...runtimeCommand(), "--root", stateRoot(), "exec", bundle.id, "/bin/true"];
  expect(spawnSync("sh", ["-c", script, "sh", ...words]).status).toBe(0);
  for (const number of [1, 2, 3, 4])
    expect(told(`${bundle.id}:exec-${number}`).filter(({ outcome }) => outcome !== "done")).toEqual([]);
});

test("a page, Chrome's format and spans are made of a container as of a saved trace", () => {
  const bundle = makeBundle();
  expect(run(bundle, {}, "--keep")).toMatchObject({ status: 0 });
  const saved = join(bundle.path, "trace.jsonl");
  expect(caisson(["trace", "--json", "--output", saved, bundle.id])).toEqual({ status: 0, stdout: "", stderr: "" });
  for (const format of ["table", "json", "chrome", "otlp"])
    expect(caisson(["trace", "--format", format, saved]).stdout).toBe(
      caisson(["trace", "--format", format, bundle.id]).stdout,
    );
  const lines = told(bundle.id);
  const { traceEvents } = JSON.parse(caisson(["trace", "--format", "chrome", bundle.id]).stdout);
  const spans = traceEvents.filter(({ ph, cat }: { ph: string; cat: string }) => ph !== "M" && cat === "step");
  expect(spans).toHaveLength(lines.filter(({ startedNs }) => startedNs !== undefined).length);
  expect(caisson(["trace", "--format", "tea", bundle.id])).toMatchObject({ status: 125 });
});

test("two containers are compared by what is done for them", () => {
  const [one, other] = [
    makeBundle(),
    makeBundle((spec) => {
      spec.hostname = "other";
      spec.root.readonly = false;
    }),
  ];
  for (const bundle of [one, other]) expect(run(bundle, {}, "--keep")).toMatchObject({ status: 0 });
  const differences = caisson(["trace", "diff", "--json", one.id, other.id])
    .stdout.trimEnd()
    .split("\n")
    .map((line): { kind: string; step: string; changes: string[] } => JSON.parse(line));
  const named = (kind: string) => differences.filter((each) => each.kind === kind).map(({ step }) => step);
  expect(named("removed")).toEqual(["makeRootReadonly"]);
  expect(named("added")).toEqual([]);
  expect(differences.find(({ step }) => step === "setHostname")?.changes).toContain("it names the machine other");
  const table = caisson(["trace", "diff", one.id, other.id]).stdout;
  expect(table).toMatch(/^- +\d+ +makeRootReadonly +makes the root read-only/m);
  const same = caisson(["trace", "diff", one.id, one.id]).stdout;
  expect(same).toMatch(/^\d+ steps the same, 0 changed \(~\), 0 only before \(-\), 0 only after/);
});

describe("where the caller is traced", () => {
  const TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

  test("making a container is a part of that, in a file", () => {
    const bundle = makeBundle();
    const file = join(bundle.path, "spans.jsonl");
    const env = { ...process.env, TRACEPARENT, OTEL_EXPORTER_OTLP_ENDPOINT: `file://${file}` };
    expect(run(bundle, { env })).toMatchObject({ status: 0 });
    const [request] = JSON.parse(`[${readFileSync(file, "utf8").trim()}]`);
    const { spans } = request.resourceSpans[0].scopeSpans[0];
    expect(spans[0]).toMatchObject({
      traceId: TRACEPARENT.slice(3, 35),
      parentSpanId: TRACEPARENT.slice(36, 52),
      name: "caisson create",
    });
    for (const span of spans.slice(1)) expect(span).toMatchObject({ parentSpanId: spans[0].spanId });
    expect(Number(BigInt(spans[0].startTimeUnixNano) / 1_000_000n)).toBeGreaterThan(Date.now() - 60_000);
  });

  test("so are starting, adding a process and deleting, each by what it did", () => {
    const bundle = makeBundle((spec) => {
      spec.process.args = ["/bin/probe", "--sleep", "60"];
    });
    const file = join(bundle.path, "spans.jsonl");
    const temporary = join(bundle.path, "tmp");
    mkdirSync(temporary);
    const env = { ...process.env, TMPDIR: temporary, TRACEPARENT, OTEL_EXPORTER_OTLP_ENDPOINT: `file://${file}` };
    expect(create(bundle, { env })).toMatchObject({ status: 0, stderr: "" });
    expect(runtime(["start", bundle.id], { env })).toMatchObject({ status: 0, stderr: "" });
    expect(exec(bundle, ["/bin/true"], { env })).toMatchObject({ status: 0, stderr: "" });
    expect(exec(bundle, ["/bin/true"], { env })).toMatchObject({ status: 0, stderr: "" });
    expect(runtime(["delete", "--force", bundle.id], { env })).toMatchObject({ status: 0, stderr: "" });
    const sent: { name: string; traceId: string; parentSpanId: string }[][] = readFileSync(file, "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line).resourceSpans[0].scopeSpans[0].spans);
    expect(sent.map(([whole]) => whole?.name)).toEqual([
      "caisson create",
      "caisson start",
      "caisson exec-1",
      "caisson exec-2",
      "caisson delete",
    ]);
    for (const [whole] of sent)
      expect(whole).toMatchObject({
        traceId: TRACEPARENT.slice(3, 35),
        parentSpanId: TRACEPARENT.slice(36, 52),
        status: { code: 0 },
      });
    const steps = sent.map(([, ...spans]) => spans.map(({ name }) => name));
    expect(steps[0]).toContain("attachRoot");
    expect(steps[1]?.at(-1)).toBe("execute");
    expect(steps[1]).not.toContain("attachRoot");
    expect(steps[2]).toContain("joinNamespace");
    expect(steps[4]).toContain("undo makeCgroup");
    expect(steps[4]?.every((name) => name.startsWith("undo "))).toBe(true);
    // told, and nothing of it left
    expect(readdirSync(temporary)).toEqual([]);
  });

  test("it is not when the caller was not sampled, and a collector that is not there harms nobody", () => {
    const bundle = makeBundle();
    const file = join(bundle.path, "spans.jsonl");
    const unsampled = { TRACEPARENT: TRACEPARENT.replace(/01$/, "00"), OTEL_EXPORTER_OTLP_ENDPOINT: `file://${file}` };
    expect(run(bundle, { env: { ...process.env, ...unsampled } })).toMatchObject({ status: 0, stderr: "" });
    expect(() => readFileSync(file)).toThrow("ENOENT");
    const nobody = { TRACEPARENT, OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9" };
    expect(run(bundle, { env: { ...process.env, ...nobody } })).toMatchObject({ status: 0, stderr: "" });
  });

  test("a collector gets the spans by HTTP", async () => {
    const bundle = makeBundle();
    expect(run(bundle, {}, "--keep")).toMatchObject({ status: 0 });
    const requests: { url: string; headers: NodeJS.Dict<unknown>; body: string }[] = [];
    const server = createServer((request, answer) => {
      let body = "";
      request.on("data", (part) => {
        body += part;
      });
      request.on("end", () => {
        requests.push({ url: request.url ?? "", headers: request.headers, body });
        answer.end("{}");
      });
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const address = server.address();
    const port = typeof address === "object" ? address?.port : undefined;
    const [command = "", ...own] = engineCommand();
    const child = spawn(command, [...own, "--root", stateRoot(), "trace", "--otlp", bundle.id], {
      env: {
        ...process.env,
        OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}/`,
        OTEL_EXPORTER_OTLP_HEADERS: "x-key=a%20b",
      },
    });
    const status = new Promise<number | null>((ended) => child.once("exit", ended));
    expect(await status).toBe(0);
    server.close();
    const [{ url, headers, body } = { url: "", headers: {}, body: "" }] = requests;
    expect({ url, key: headers["x-key"], type: headers["content-type"] }).toEqual({
      url: "/v1/traces",
      key: "a b",
      type: "application/json",
    });
    expect(JSON.parse(body).resourceSpans[0].scopeSpans[0].spans.length).toBeGreaterThan(30);
  });
});
