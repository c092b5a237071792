import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { results, states, until } from "../support/bundle.ts";
import { expectFailure, lastLine, Machine } from "../support/engine.ts";
import { PATIENCE } from "../support/patience.ts";

let machine: Machine;
const IMAGE = "caisson/quickstart";
const DETACHED = ["run", "-d", "--network", "none"];

beforeAll(async () => {
  machine = await Machine.make({ images: ["quickstart", "variants"] });
});
afterEach(() => machine.expectEmpty());
afterAll(() => machine.close());

/** Starts a container that says "ready" and stays, and waits for the word. */
function ready(flags: string[], words: string[], image = IMAGE): string {
  const id = machine.succeeds([...DETACHED, ...flags, image, ...words]);
  until("it is ready", () => machine.caisson(["logs", id]).stdout.includes("ready"));
  return id;
}

test("a detached container runs on, is listed, waited for, and its log and status stay", () => {
  const id = machine.succeeds([
    ...DETACHED,
    "--name",
    "one",
    IMAGE,
    "sh",
    "-c",
    "echo ready; echo oops >&2; while ! test -e /tmp/end; do sleep 0.05; done; exit 5",
  ]);
  expect(id).toMatch(/^[0-9a-f]{64}$/);
  const { State } = machine.inspect("one");
  expect(readFileSync(`/proc/${State.Pid}/cmdline`, "utf8")).toMatch(/^sh\0/);
  expect(machine.succeeds(["ps"])).toMatch(new RegExp(`^${id.slice(0, 12)} .*caisson/quickstart.* Up .* one$`, "m"));
  expect(machine.succeeds(["ps", "-q"])).toBe(id.slice(0, 12));
  machine.succeeds(["exec", "one", "touch", "/tmp/end"]);
  expect(machine.succeeds(["wait", "one"])).toBe("5");
  expect(machine.succeeds(["wait", id])).toBe("5");
  expect(machine.succeeds(["ps", "-q"])).toBe("");
  expect(machine.succeeds(["ps", "-a"])).toMatch(/Exited \(5\)/);
  const log = machine.caisson(["logs", id.slice(0, 12)]);
  expect(log).toMatchObject({ status: 0, stdout: "ready\n", stderr: "oops\n" });
  expect(machine.caisson(["logs", "-t", "-n", "1", "one"]).stderr).toMatch(/^\d{4}-\d\d-\d\dT\S+Z oops\n$/);
  expect(machine.inspect("one")).toMatchObject({
    Id: id,
    Name: "/one",
    State: { Status: "exited", Running: false, Pid: 0, ExitCode: 5 },
  });
  expect(machine.succeeds(["trace", "one"])).toContain("pivotRoot");
  expect(machine.succeeds(["rm", "one"])).toBe("one");
  expect(existsSync(join(machine.data, "containers", id))).toBe(false);
  expectFailure(machine.caisson(["inspect", "one"]), /there is no container one/);
});

test("logs -f shows what is there and what comes, until the end", async () => {
  const id = machine.succeeds([
    ...DETACHED,
    IMAGE,
    "sh",
    "-c",
    "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); sleep 0.02; done",
  ]);
  const follower = machine.start(["logs", "-f", id], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  follower.stdout?.on("data", (chunk: Buffer) => {
    text += chunk;
  });
  const [status] = await once(follower, "close");
  expect(status).toBe(0);
  expect(text).toBe(Array.from({ length: 30 }, (_, i) => `line ${i}\n`).join(""));
  expect(machine.succeeds(["logs", "-n", "2", id])).toBe("line 28\nline 29");
  machine.succeeds(["rm", id]);
});

test("stop sends the stop signal, and SIGKILL to one that does not end", () => {
  const polite = ready([], ["sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"]);
  const own = ready([], [], "caisson/variants:signal");
  const chosen = ready(
    ["--stop-signal", "SIGHUP"],
    ["sh", "-c", "trap 'exit 33' HUP; echo ready; while :; do sleep 0.05; done"],
  );
  const deaf = ready([], ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
  const before = Date.now();
  machine.succeeds(["stop", polite, chosen]);
  expect(Date.now() - before).toBeLessThan(5_000);
  machine.succeeds(["stop", "-t", "0.3", own, deaf]);
  expect([polite, chosen, own, deaf].map((id) => machine.inspect(id).State.ExitCode)).toEqual([0, 33, 137, 137]);
  expect(machine.succeeds(["logs", own])).toContain("SIGUSR2");
  // one that has stopped is stopped
  machine.succeeds(["stop", deaf]);
  machine.succeeds(["rm", polite, own, chosen, deaf]);
});

test("kill sends any signal, SIGKILL if none is named; a first process ignores what it does not handle", () => {
  const id = ready([], ["/bin/probe", "--signal-wait"]);
  machine.succeeds(["kill", "-s", "USR1", id]);
  machine.succeeds(["kill", "-s", "SIGHUP", id]);
  machine.succeeds(["kill", "-s", "12", id]);
  until("the signals have come", () =>
    ["SIGUSR1", "SIGHUP", "SIGUSR2"].every((name) => machine.caisson(["logs", id]).stdout.includes(name)),
  );
  expectFailure(machine.caisson(["kill", "-s", "NOTHING", id]), /NOTHING/);
  machine.succeeds(["kill", id]);
  expect(machine.succeeds(["wait", id])).toBe("137");
  machine.settle();
  expectFailure(machine.caisson(["kill", id]), /is not running/);
  machine.succeeds(["rm", id]);
});

test("exec runs a further command: in its namespaces, as another user, elsewhere, with more environment, and with its status", () => {
  const id = machine.succeeds([...DETACHED, "-e", "A=1", "-h", "box", IMAGE, "/bin/probe", "--sleep", "60"]);
  const first = machine.inspect(id).State.Pid;
  const seen = lastLine(
    machine.succeeds(["exec", "-u", "app", "-w", "/tmp", "-e", "B=2", "-e", "A=3", id, "/bin/probe"]),
  );
  expect(seen).toMatchObject({
    cwd: "/tmp",
    hostname: "box",
    uids: { real: 1000 },
    gids: { real: 1000 },
    seccomp: { mode: 2 },
  });
  expect(seen.env).toEqual(expect.arrayContaining(["A=3", "B=2", "HOME=/home/app"]));
  expect(seen.env).not.toContain("A=1");
  expect(seen.capabilities).toMatchObject({ effective: "0000000000000000", bounding: "00000000a80425fb" });
  for (const name of ["mnt", "pid", "net", "ipc", "uts", "cgroup"] as const)
    expect(`${name}:[${seen.namespaces[name]}]`).toBe(namespaceOf(first, name));
  expect(machine.caisson(["exec", id, "/bin/probe", "--exit", "9"]).status).toBe(9);
  expect(machine.caisson(["exec", "-i", id, "cat"], { input: "through" }).stdout).toBe("through");
  expect(machine.caisson(["exec", id, "sh", "-c", "kill -9 $$"]).status).toBe(137);
  expectFailure(machine.caisson(["exec", id, "/bin/none"]), /cannot run \/bin\/none/, 127);
  expectFailure(machine.caisson(["exec", id, "/etc/passwd"]), /not executable/, 126);
  expectFailure(machine.caisson(["exec", "-u", "nobody-knows", id, "/bin/true"]), /nobody-knows/);
  const started = machine.succeeds(["exec", "-d", id, "sh", "-c", "echo there > /tmp/there"]);
  expect(started).toMatch(/^\d+$/);
  until("the detached one has written", () => machine.caisson(["exec", id, "cat", "/tmp/there"]).stdout === "there\n");
  machine.succeeds(["rm", "-f", id]);
  expectFailure(machine.caisson(["exec", id, "/bin/true"]), /there is no container/);
});

test("exec works in a container with a user namespace", () => {
  const id = machine.succeeds([...DETACHED, "--userns", "auto", IMAGE, "/bin/probe", "--sleep", "60"]);
  const seen = lastLine(
    machine.succeeds(["exec", "-u", "app", id, "/bin/probe", "--write", "/tmp/mine", "x", "--stat", "/tmp/mine"]),
  );
  expect(seen).toMatchObject({ uids: { real: 1000 }, uidMap: ["0 100000 65536"] });
  expect(results(seen.actions)[1]).toMatchObject({ uid: 1000, gid: 1000 });
  expect(`user:[${seen.namespaces.user}]`).toBe(namespaceOf(machine.inspect(id).State.Pid, "user"));
  machine.succeeds(["rm", "-f", id]);
});

test("two clients of one container both see its output, and either may go", async () => {
  const id = machine.succeeds([
    ...DETACHED,
    "-i",
    IMAGE,
    "sh",
    "-c",
    "read a; echo got $a; read b; echo got $b; exit 6",
  ]);
  const heard = ["", ""];
  const attached = [0, 1].map((which) => {
    const client = machine.start(["attach", id], { stdio: ["pipe", "pipe", "inherit"] });
    client.stdout?.on("data", (chunk: Buffer) => {
      heard[which] = `${heard[which]}${chunk}`;
    });
    return client;
  });
  await becomesTrue("both are attached", () => clients() === 2);
  attached[0]?.stdin?.write("one\n");
  await becomesTrue("both have heard", () => heard.every((text) => text === "got one\n"));
  attached[0]?.kill("SIGKILL");
  await becomesTrue("one is gone", () => clients() === 1);
  attached[1]?.stdin?.write("two\n");
  const [status] = attached[1] === undefined ? [] : await once(attached[1], "close");
  expect({ status, heard: heard[1] }).toEqual({ status: 6, heard: "got one\ngot two\n" });
  machine.succeeds(["rm", id]);
});

test("rm --force takes what it finds, also one that ends, and is cleaned up, at the same moment", {
  timeout: 90_000 * PATIENCE,
}, () => {
  for (let round = 0; round < 30; round++) {
    const id = machine.succeeds([...DETACHED, IMAGE, "sh", "-c", `usleep ${round * 2000}`]);
    machine.succeeds(["rm", "-f", id]);
  }
});

test("a client that is killed detaches: the container goes on, and cleans up after itself", async () => {
  const client = machine.start(
    [
      "run",
      "--rm",
      "--network",
      "none",
      "--name",
      "orphan",
      IMAGE,
      "sh",
      "-c",
      "echo ready; while ! test -e /tmp/end; do sleep 0.05; done",
    ],
    { stdio: ["ignore", "pipe", "ignore"] },
  );
  if (client.stdout !== null) await once(client.stdout, "data");
  client.kill("SIGKILL");
  await once(client, "exit");
  expect(machine.inspect("orphan").State).toMatchObject({ Status: "running" });
  machine.succeeds(["exec", "orphan", "touch", "/tmp/end"]);
  until("it has removed itself", () => machine.containers().length === 0);
});

test("signals to a client in the foreground go to the container, whose status is the client's", async () => {
  const client = machine.start(
    ["run", "--rm", "--network", "none", IMAGE, "/bin/probe", "--signal-wait", "--exit", "12"],
    { stdio: ["ignore", "pipe", "ignore"] },
  );
  let text = "";
  client.stdout?.on("data", (chunk: Buffer) => {
    text += chunk;
  });
  await becomesTrue("it is ready", () => text.includes("ready"));
  for (const signal of ["SIGHUP", "SIGUSR1", "SIGINT"] as const) {
    client.kill(signal);
    await becomesTrue(`${signal} has come`, () => text.includes(signal));
  }
  client.kill("SIGTERM");
  const [status] = await once(client, "close");
  expect(status).toBe(12);
});

test("a name is one container's until that is removed, and --rm leaves nothing", () => {
  machine.succeeds([...DETACHED, "--name", "taken", IMAGE, "/bin/probe", "--sleep", "60"]);
  expectFailure(
    machine.caisson(["run", "--rm", "--name", "taken", IMAGE, "/bin/true"]),
    /name taken is already in use/,
  );
  expectFailure(machine.caisson(["rm", "taken"]), /is running/);
  expect(machine.succeeds(["rm", "-f", "taken"])).toBe("taken");
  for (let i = 0; i < 3; i++)
    expect(
      machine.caisson(["run", "--rm", "--name", "taken", "-p", "8099:80", IMAGE, "/bin/probe", "--exit", "3"]),
    ).toMatchObject({ status: 3, stderr: "" });
  machine.settle();
  for (const directory of ["containers", "names"]) expect(readdirSync(join(machine.data, directory))).toEqual([]);
  expect(states(machine.root)).toEqual([]);
});

test("what is called is found by name, id or the id's beginning; what is not there is said", () => {
  const id = machine.succeeds([...DETACHED, "--name", "abc", IMAGE, "/bin/probe", "--sleep", "60"]);
  for (const word of ["abc", "/abc", id, id.slice(0, 5)]) expect(machine.inspect(word).Id).toBe(id);
  for (const verb of ["stop", "wait", "logs", "rm", "attach", "trace", "inspect"])
    expectFailure(machine.caisson([verb, "nobody"]), /there is no container nobody/);
  machine.succeeds(["rm", "-f", "abc"]);
});

/** The clients that the only container's monitor has accepted, by the kernel's list of its sockets; one is its listener. */
function clients(): number {
  const sockets = machine.network?.run(["cat", "/proc/self/net/unix"]) ?? "";
  return sockets.split("\n").filter((line) => line.endsWith("/attach.sock")).length - 1;
}

/** The same as until, for what comes by events of this process. */
async function becomesTrue(what: string, condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 10_000; !condition(); await new Promise((resolve) => setTimeout(resolve, 5)))
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
}

function namespaceOf(pid: number, name: string): string {
  return machine.shell(`readlink /proc/${pid}/ns/${name}`).stdout.trim();
}

describe("rm waits for whoever is at work on a container", () => {
  const said = (child: ChildProcess) => {
    let text = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      text += chunk;
    });
    return () => text;
  };
  const rm = (...words: string[]) => {
    const child = machine.start(["rm", ...words], { stdio: ["ignore", "ignore", "pipe"] });
    return { child, text: said(child), ended: once(child, "close") };
  };
  const spoken = async (text: () => string) => {
    while (!text().endsWith("\n")) await new Promise((resolve) => setImmediate(resolve));
  };

  test.each([
    ["with force", ["-f"]],
    ["without", []],
  ])("%s, says for whom, and can be ended by a signal", async (_, flags) => {
    const id = machine.succeeds([...DETACHED, IMAGE, "/bin/true"]);
    machine.succeeds(["wait", id]);
    machine.settle();
    const script =
      "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); sys.stdin.read()";
    const holder = spawn("python3", ["-c", script, join(machine.data, "containers", id)]);
    until("it has the lock", () => readFileSync("/proc/locks", "latin1").includes(` ${holder.pid} `));
    try {
      for (const signal of ["SIGTERM", "SIGINT"] as const) {
        const { child, text, ended } = rm(...flags, id);
        await spoken(text);
        expect(text()).toBe(`waiting for process ${holder.pid} (python3), which is at work on container ${id}\n`);
        child.kill(signal);
        expect(await ended).toEqual([null, signal]);
        expect(machine.containers()).toContain(id);
      }
      const { text, ended } = rm(...flags, id);
      await spoken(text);
      holder.kill();
      expect(await ended).toEqual([0, null]);
      expect(machine.containers()).not.toContain(id);
    } finally {
      holder.kill();
    }
  });

  test.each([
    ["does not kill what has begun to run meanwhile", [], 125, "running"],
    ["with force, it does", ["-f"], 0, undefined],
  ] as const)("%s", async (_, flags, status, left) => {
    const delay = ["-e", "trace=pivot_root", "-e", "inject=pivot_root:delay_enter=4000000"];
    const making = machine.start([...DETACHED, "--name", "slow", IMAGE, "/bin/probe", "--sleep", "60"], {
      through: ["strace", "-f", "-qq", "-o", "/dev/null", ...delay],
    });
    const made = once(making, "close");
    until("it is being made", () => machine.caisson(["inspect", "slow"]).status === 0);
    const { text, ended } = rm(...flags, "slow");
    expect(await ended).toEqual([status, null]);
    expect(text()).toMatch(/^waiting for process \d+ \((caisson|node)\), which is at work on container slow$/m);
    if (left === undefined) expect(machine.caisson(["inspect", "slow"]).status).toBe(125);
    else {
      expect(text()).toContain("container slow is running: stop it, or remove it with rm -f");
      expect(machine.inspect("slow").State.Status).toBe(left);
      machine.succeeds(["rm", "-f", "slow"]);
    }
    // strace follows the monitor, too
    await made;
  });
});
