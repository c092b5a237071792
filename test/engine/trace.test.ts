import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Machine } from "../support/engine.ts";

let machine: Machine;

beforeAll(async () => {
  machine = await Machine.make();
});
afterEach(() => machine.expectEmpty());
afterAll(() => machine.close());

const told = (
  word: string,
): { trace: string; step: string; undo?: boolean; outcome: string; calls: { name: string }[] }[] =>
  machine
    .succeeds(["trace", "--json", word])
    .split("\n")
    .map((line) => JSON.parse(line));

test("a container that has ended has its trace, with what took it back, and those of what was added to it", () => {
  machine.succeeds(["run", "-d", "--name", "web", "caisson/quickstart", "sleep", "60"]);
  machine.succeeds(["exec", "web", "true"]);
  machine.succeeds(["stop", "-t", "0", "web"]);
  machine.settle();
  const lines = told("web");
  expect(lines.filter(({ undo, outcome }) => undo !== true && outcome !== "done")).toEqual([]);
  const undone = lines.filter(({ undo }) => undo === true);
  expect(undone[0]).toMatchObject({ step: "makeEndpoint" });
  expect(undone[0]?.calls.map(({ name }) => name)).toContain("sendto");
  expect(undone.slice(1).map(({ step }) => step)).toEqual(
    lines.filter(({ undo, step }) => undo !== true && step === "makeCgroup").map(({ step }) => step),
  );
  expect(told("web:exec").at(-1)).toMatchObject({ trace: "exec-1", step: "execute", outcome: "done" });
  expect(machine.succeeds(["trace"])).toMatch(/^web:exec-1 +an added process/m);
  machine.succeeds(["rm", "web"]);
  expect(machine.caisson(["trace", "web"])).toMatchObject({
    status: 125,
    stderr: expect.stringContaining("no container web"),
  });
});

test("exec and rm show with --trace what they did, on the error stream", () => {
  machine.succeeds(["run", "-d", "--name", "web", "caisson/quickstart", "sleep", "60"]);
  const added = machine.caisson(["exec", "--trace", "web", "echo", "hi"]);
  expect(added).toMatchObject({ status: 0, stdout: "hi\n" });
  expect(added.stderr).toMatch(/init +joinNamespace .*\n(.*\n)*.*init +execute +executes echo hi/);
  const detached = machine.caisson(["exec", "-d", "--trace", "web", "sleep", "60"]);
  expect(detached.stdout).toMatch(/^[0-9]+\n$/);
  expect(detached.stderr).toContain("executes sleep 60");
  const removed = machine.caisson(["rm", "-f", "--trace", "web"]);
  expect(removed).toMatchObject({ status: 0, stdout: "web\n" });
  expect(removed.stderr).toMatch(/undo +makeEndpoint .*\n(.*\n)*.*undo +makeCgroup /);
  expect(removed.stderr).not.toContain("executes sleep");
  machine.settle();
});

test("one of which nothing is known is removed all the same", () => {
  for (const [flags, env] of [
    [["--trace"], {}],
    [[], { TRACEPARENT: `00-${"a".repeat(32)}-${"b".repeat(16)}-01` }],
  ] as const) {
    machine.succeeds(["run", "--name", "web", "--network", "none", "caisson/quickstart", "true"]);
    machine.settle();
    machine.shell(`rm ${join(machine.data, "containers")}/*/definition.json`);
    const removed = machine.caisson(["rm", ...flags, "web"], { env: { ...process.env, ...env } });
    expect(removed).toMatchObject({ status: 0, stdout: "web\n" });
    expect(removed.stderr).toMatch(flags.length > 0 ? /^error: there is no container / : /^$/);
    expect(machine.containers()).toEqual([]);
  }
});

test("one that ends at once and removes itself has been traced all the same", () => {
  const words = ["run", "--rm", "--trace", "--network", "none", "caisson/quickstart", "true"];
  const { status, stderr } = machine.caisson(words);
  expect(status).toBe(0);
  expect(stderr).toContain("executes true");
  machine.settle();
});

test("one that failed to start is known by its name, without the values of its environment", () => {
  const { status } = machine.caisson([
    "run",
    "--name",
    "broken",
    "-e",
    "TOKEN=hunter2",
    "caisson/quickstart",
    "/no/such",
  ]);
  expect(status).toBe(127);
  expect(told("broken").find(({ outcome }) => outcome === "failed")).toMatchObject({ step: "findExecutable" });
  const [kept = ""] = readdirSync(join(machine.data, "failed"));
  expect(machine.shell(`cat ${join(machine.data, "failed", kept)}/definition.json`).stdout).not.toContain("hunter2");
});
