import { afterAll, afterEach, beforeEach, expect, test } from "vitest";
import { type Bundle, cleanUp, cleanUpFile, makeBundle, type Outcome, runtime, until } from "../support/bundle.ts";
import { PATIENCE } from "../support/patience.ts";

// The same commands, one after another, to us and to the installed runc: equal statuses, equal words, output of equal form.

const RUNC = { program: "runc" };

interface Peer {
  bundle: Bundle;
  how: { program?: string };
  call: (...words: string[]) => Outcome;
}

/** A container keeps the streams it was created with: ours would never end. */
const QUIETLY = ["/bin/sh", "-c", 'exec "$@" < /dev/null > /dev/null 2>&1', "sh"];

let ours: Peer;
let theirs: Peer;

beforeEach(() => {
  const peer = (how: { program?: string }): Peer => {
    const bundle = makeBundle((spec) => {
      // runc 1.1 knows the specification of its time
      spec.ociVersion = "1.0.2";
      spec.process.args = ["/bin/probe", "--sleep", "60"];
    });
    // ID stands for the container's id, which has to differ: it names the cgroups
    return {
      bundle,
      how,
      call: (...words) =>
        runtime(
          words.map((word) => (word === "ID" ? bundle.id : word)),
          how,
        ),
    };
  };
  ours = peer({});
  theirs = peer(RUNC);
  for (const { bundle, how } of [ours, theirs])
    expect(runtime(["create", "--bundle", bundle.path, bundle.id], { ...how, through: QUIETLY }).status).toBe(0);
});

afterEach(() => {
  theirs.call("delete", "--force", "ID");
  cleanUp();
});
afterAll(cleanUpFile);

/** What engines read of an answer: the status, and the message without time, program and id. */
function answer({ bundle, call }: Peer, words: readonly string[]): { status: number; says: string } {
  const { status, stderr } = call(...words);
  const message: string = JSON.parse(/level=error msg=(".*")$/m.exec(stderr)?.[1] ?? '""');
  return {
    status,
    says: message.replaceAll(bundle.id, "ID").replace(/^\S*runc\S*: |^caisson-runtime: |^main\.js: /, ""),
  };
}

/** Expects one answer of both; ours may say more after runc's words. */
function agree(...words: string[]): void {
  const [own, runc] = [answer(ours, words), answer(theirs, words)];
  const says = runc.says !== "" && own.says.startsWith(runc.says) ? runc.says : own.says;
  expect({ ...own, says }, words.join(" ")).toEqual(runc);
}

/** The form of JSON: the names of its members, all the way down. */
function form(value: unknown): unknown {
  if (Array.isArray(value)) return value.slice(0, 1).map(form);
  if (typeof value !== "object" || value === null) return typeof value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([name, each]) => [name, form(each)]),
  );
}

function untilEnded(): void {
  for (const { call } of [ours, theirs])
    until("it has ended", () => JSON.parse(call("state", "ID").stdout).status === "stopped");
}

// some eighty commands, each a start of its program
test("a container's life has the same answers at each of its stages", { timeout: 90_000 * PATIENCE }, () => {
  const refusedOnceOver = ["start", "pause", "resume", "delete"];
  agree("state", "ID");
  agree("resume", "ID");
  agree("start", "ID");
  agree("start", "ID");
  agree("delete", "ID");
  agree("pause", "ID");
  agree("pause", "ID");
  agree("exec", "ID", "/bin/probe");
  agree("delete", "ID");
  agree("resume", "ID");
  agree("resume", "ID");
  agree("exec", "ID", "/no/such/program");
  agree("exec", "--user", "0", "ID", "/bin/probe", "--exit", "7");
  agree("exec", "--user", "", "--cwd", "", "ID", "/bin/probe", "--exit", "7");
  for (const signal of ["NOTHING", "9x", " 9"]) agree("kill", "ID", signal);
  agree("ps", "--format", "xml", "ID");
  agree("events", "--interval", "0s", "ID");
  agree("update", "--cpu-share", "300", "ID");
  agree("update", "--l3-cache-schema", "L3:0=f", "ID");
  agree("kill", "ID", "KILL");
  untilEnded();
  agree("kill", "ID", "KILL");
  agree("exec", "ID", "/bin/probe");
  agree("update", "--cpu-share", "300", "ID");
  agree("events", "--stats", "ID");
  agree("checkpoint", "ID");
  for (const verb of refusedOnceOver) agree(verb, "ID");
  for (const verb of ["state", "start", "pause", "resume", "delete", "kill", "ps", "update", "events", "checkpoint"])
    agree(verb, "ID");
  agree("delete", "--force", "ID");
});

test("a wrong number of words is answered alike", () => {
  for (const verb of ["state", "start", "pause", "resume", "delete", "update", "events", "create", "run"]) {
    agree(verb);
    agree(verb, "one", "two");
  }
  for (const verb of ["kill", "exec", "ps"]) agree(verb);
  agree("kill", "one", "TERM", "three");
  agree("list", "one");
});

test("what cannot be an id or a time is answered alike", () => {
  for (const verb of ["state", "start", "pause", "resume", "delete", "kill", "ps", "update", "events"]) agree(verb, "");
  agree("delete", "--force", "");
  expect(answer(ours, ["events", "--interval", "x", "none"]).says).toMatch(/^invalid value "x" for flag -interval: /);
});

test("what is mounted on something of another kind is told as engines look for it", () => {
  const words = (bundle: Bundle, how: { program?: string }) => {
    const { status, stderr } = runtime(["run", "--bundle", bundle.path, bundle.id], how);
    expect(status).toBe(1);
    return /not a directory|no such file or directory/.exec(stderr)?.[0];
  };
  for (const [source, destination, expected] of [
    ["/etc", "/bin/probe", "not a directory"],
    ["/etc/passwd", "/bin", "not a directory"],
    ["/no/such/source", "/bin", "no such file or directory"],
  ] as const) {
    const bundle = makeBundle((spec) => {
      spec.ociVersion = "1.0.2";
      spec.mounts.push({ destination, type: "bind", source, options: ["bind"] });
    });
    expect(words(bundle, RUNC), destination).toBe(expected);
    expect(words(bundle, {}), destination).toBe(expected);
  }
});

test("state, list, ps and events have the form that runc gives them", () => {
  for (const { call } of [ours, theirs]) expect(call("start", "ID").status).toBe(0);
  const parsed = (peer: Peer, ...words: string[]): unknown => JSON.parse(peer.call(...words).stdout);
  for (const words of [
    ["state", "ID"],
    ["list", "--format", "json"],
    ["ps", "--format", "json", "ID"],
  ])
    expect(form(parsed(ours, ...words)), words.join(" ")).toEqual(form(parsed(theirs, ...words)));
  expect(ours.call("ps", "ID").stdout.split("\n")[0]?.split(/\s+/)).toEqual(
    theirs.call("ps", "ID").stdout.split("\n")[0]?.split(/\s+/),
  );
  // pressure is what runc tells since 1.2; and what is 0 is left out, which depends on the moment
  const sometimes = new Set(["psi", "usage", "max", "total", "percpu", "blkio", "cache"]);
  // beside version 1, runc does not look for huge pages in version 2
  const differs = new Set(["psi", "percpu", "percpu_kernel", "percpu_user", "blkio", "hugetlb"]);
  const steady = (value: unknown): unknown =>
    JSON.parse(JSON.stringify(value), (name, each: unknown) =>
      differs.has(name) || (sometimes.has(name) && typeof each !== "object") ? undefined : each,
    );
  expect(form(steady(parsed(ours, "events", "--stats", "ID")))).toEqual(
    form(steady(parsed(theirs, "events", "--stats", "ID"))),
  );
});
