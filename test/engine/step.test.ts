import { readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { alive, until } from "../support/bundle.ts";
import { Debugger } from "../support/debugger.ts";
import { Machine } from "../support/engine.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";

let machine: Machine;
const IMAGE = "caisson/quickstart";
const FLAGS = ["--network", "none", IMAGE];

beforeAll(async () => {
  machine = await Machine.make();
});
afterEach(async () => {
  await Debugger.endAll();
  machine.expectEmpty();
});
afterAll(() => machine.close());

function status(pid: number, field: string): string {
  return new RegExp(`^${field}:\\s*(.*)$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "";
}

/** Cgroups of the container that is being made here, or was. */
function cgroupsOf(id: string): string[] {
  return cgroupDirectories().filter((path) => path.includes(id));
}

/** The one container there is. */
function onlyId(): string {
  const [id = "", ...more] = machine.containers();
  expect({ id, more }).toEqual({ id: expect.stringMatching(/^[0-9a-f]{64}$/), more: [] });
  return id;
}

function script(...lines: string[]): string {
  const path = join(machine.directory, "commands");
  writeFileSync(path, `${lines.join("\n")}\n`);
  return path;
}

test("between two steps init stands still as the kernel has it, and what is shown is what the kernel shows", async () => {
  const debug = await Debugger.start(machine, [...FLAGS, "true"]);
  await debug.ask("break pivotRoot");
  await debug.ask("continue");
  const pid = await debug.process();
  // it is init, it waits for us, and it has not run one instruction of the image
  expect(readFileSync(`/proc/${pid}/cmdline`, "utf8")).toMatch(/^caisson-init\0/);
  expect(readFileSync(`/proc/${pid}/stat`, "utf8")).toMatch(/\) S /);
  const namespaces = await debug.info("namespaces");
  for (const [name, file] of [
    ["mount", "mnt"],
    ["pid", "pid"],
    ["network", "net"],
    ["user", "user"],
  ] as const) {
    const link = readlinkSync(`/proc/${pid}/ns/${file}`);
    const own = link === readlinkSync(`/proc/self/ns/${file}`) ? "the host's" : "its own";
    expect(namespaces.get(name)).toBe(`${own}, ${link}`);
  }
  expect(namespaces.get("mount")).toMatch(/^its own/);
  const mountPoints = () =>
    readFileSync(`/proc/${pid}/mountinfo`, "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => line.split(" ")[4]);
  const before = mountPoints();
  expect(before.filter((path) => path === "/")).toHaveLength(2);
  expect(new Set((await debug.info("mounts")).keys())).toEqual(new Set(before));
  const descriptors = await debug.info("descriptors");
  expect([...descriptors.keys()].sort()).toEqual(readdirSync(`/proc/${pid}/fd`).sort());
  for (const [number, target] of descriptors)
    expect(readlinkSync(`/proc/${pid}/fd/${number}`).replace(/([0-9a-f]{12})[0-9a-f]{52}/, "$1…")).toBe(target);

  // one step on, the host's mounts have gone, and exactly they are told
  const answer = await debug.ask("next");
  expect(answer).toMatch(/^done: pivotRoot$/m);
  const gone = (await debug.ask("info mounts")).split("\n").filter((line) => line.startsWith("  - "));
  expect(gone).toHaveLength(before.length - mountPoints().length);
  expect(mountPoints().filter((path) => path === "/")).toHaveLength(1);
  expect((await debug.end("quit")).status).toBe(0);
  expect(alive(pid)).toBe(false);
});

test("capabilities and identity change at their steps, and not before", async () => {
  const debug = await Debugger.start(machine, [...FLAGS, "true"]);
  await debug.ask("break setIds");
  await debug.ask("continue");
  const pid = await debug.process();
  expect(status(pid, "CapEff")).toBe(status(process.pid, "CapEff"));
  await debug.ask("break checkCapabilities");
  const told = await debug.ask("continue");
  expect(status(pid, "CapEff")).not.toBe(status(process.pid, "CapEff"));
  expect(told).toMatch(/capabilities +~ effective {2}all.* → .*CHOWN/);
  expect((await debug.info("capabilities")).get("effective")).toMatch(/CHOWN DAC_OVERRIDE/);
  expect((await debug.end("quit")).status).toBe(0);
});

test("a breakpoint is a step's number or name, or a phase, and continue ends with the program's status", () => {
  const commands = script("break confine", "continue", "list", "clear", "continue");
  const { status, stdout, stderr } = machine.caisson([
    "step",
    "--command",
    commands,
    ...FLAGS,
    "sh",
    "-c",
    "echo it ran; exit 7",
  ]);
  expect({ status, stderr }).toEqual({ status: 7, stderr: "" });
  expect(stdout).toMatch(/^>\* +\d+ {2}confine {2}init {2}pivotRoot/m);
  expect(stdout).toMatch(/^it ran$/m);
  expect(stdout).toMatch(/has ended with status 7/);
});

test("a breakpoint behind the filter is refused: nobody stands still there", () => {
  const commands = script("break execute", "break loadSeccomp", "continue", "continue");
  const { stdout, stderr } = machine.caisson(["step", "--command", commands, ...FLAGS, "true"]);
  expect(stderr).toMatch(/nothing stands still before step \d+: the filter of step \d+ may refuse/);
  expect(stdout).not.toContain("ended with status");
  const without = script("break execute", "continue");
  const unfiltered = ["--security-opt", "seccomp=unconfined", ...FLAGS, "true"];
  const told = machine.succeeds(["step", "--command", without, ...unfiltered]);
  expect(told).toMatch(/^>\* +\d+ {2}start +init {2}execute/m);
});

test("the numbers are those that explain prints", () => {
  const explained = machine.succeeds(["explain", ...FLAGS, "true"]).match(/^ +\d+ {2}\S.*/gm) ?? [];
  const stepped = machine.succeeds(["step", "--command", script("list all"), ...FLAGS, "true"]);
  const numbers = [...stepped.matchAll(/^[ >*]{2} *(\d+) {2}\w+ +(?:host|init)/gm)].map(([, number]) => Number(number));
  expect(numbers.slice(1)).toEqual(explained.map((_, index) => index));
});

test("leaving undoes what was done, wherever it stands", async () => {
  for (const place of ["enter", "build", "confine", "loadSeccomp"]) {
    const debug = await Debugger.start(machine, [...FLAGS, "true"]);
    await debug.ask(`break ${place}`);
    await debug.ask("continue");
    const id = onlyId();
    expect(cgroupsOf(id)).not.toEqual([]);
    expect(await debug.end("quit")).toEqual({ status: 0, complaints: "" });
    expect(machine.containers()).toEqual([]);
    expect(cgroupsOf(id)).toEqual([]);
  }
});

test("a debugger that is killed takes its container with it, and the next command removes the rest", async () => {
  const debug = await Debugger.start(machine, [...FLAGS, "true"]);
  await debug.ask("break pivotRoot");
  await debug.ask("continue");
  const pid = await debug.process();
  const id = onlyId();
  debug.kill("SIGKILL");
  await debug.end();
  until("init has ended with it", () => !alive(pid), 5_000);
  expect(cgroupsOf(id)).not.toEqual([]);
  machine.succeeds(["run", "--rm", ...FLAGS, "true"]);
  machine.settle();
  expect(machine.containers()).toEqual([]);
  expect(cgroupsOf(id)).toEqual([]);
});

test("one that is asked to end undoes everything first", async () => {
  const debug = await Debugger.start(machine, [...FLAGS, "true"]);
  await debug.ask("break pivotRoot");
  await debug.ask("continue");
  const pid = await debug.process();
  const id = onlyId();
  debug.kill("SIGTERM");
  expect(await debug.end()).toEqual({ status: 0, complaints: "" });
  expect(alive(pid)).toBe(false);
  expect(machine.containers()).toEqual([]);
  expect(cgroupsOf(id)).toEqual([]);
});

test("a script ends with the first command that is none", () => {
  const { status, stderr } = machine.caisson(["step", "--command", script("nxt", "continue"), ...FLAGS, "true"]);
  expect(status).toBe(125);
  expect(stderr).toBe("error: there is no command nxt: help lists them\n");
});

test("a step that the kernel refuses is told by its number in the plan, and everything is undone", () => {
  const { status, stdout, stderr } = machine.caisson(["step", "--command", script("continue"), ...FLAGS, "/bin/none"]);
  const listed = machine.succeeds(["step", "--command", script("list findExecutable"), ...FLAGS, "/bin/none"]);
  const number = /^ +(\d+) +\w+ +init +findExecutable/m.exec(listed)?.[1];
  expect(stderr).toMatch(/^error: cannot run \/bin\/none: there is no such file in the container/);
  expect(stderr).toContain(`(step ${number}, findExecutable)`);
  expect(stdout).toContain("everything has been undone");
  expect(status).toBe(127);
});

test("a shell inside is what init is at that moment: its root, its namespaces, its capabilities", async () => {
  const debug = await Debugger.start(machine, [...FLAGS, "true"]);
  await debug.ask("break pivotRoot");
  await debug.ask("continue");
  const pid = await debug.process();
  const look = "shell readlink /proc/self/ns/mnt; stat -c %d:%i /; grep CapEff /proc/self/status; hostname";
  const before = await debug.ask(look);
  const { dev, ino } = statSync("/");
  expect(before).toContain(`${readlinkSync(`/proc/${pid}/ns/mnt`)}\n${dev}:${ino}\n`);
  expect(before).toMatch(new RegExp(`CapEff:\\s+${status(process.pid, "CapEff")}`));
  // what somebody does there is seen, and there alone
  expect(await debug.ask("shell mount -t tmpfs none /mnt")).toMatch(/^ +mounts +\+ \/mnt {2}tmpfs none/m);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toMatch(/ \/mnt rw.* tmpfs none /);
  await debug.ask("break findExecutable");
  await debug.ask("continue");
  const after = await debug.ask(look);
  const root = statSync(`/proc/${pid}/root`);
  expect({ dev: root.dev, ino: root.ino }).not.toEqual({ dev, ino });
  expect(after).toContain(`${readlinkSync(`/proc/${pid}/ns/mnt`)}\n${root.dev}:${root.ino}\n`);
  // init has one more, to load the filter; capabilities(7): execve gives root no more than the bounding set
  expect(after).toMatch(new RegExp(`CapEff:\\s+${status(pid, "CapBnd")}`));
  expect(after).toContain(`\n${onlyId().slice(0, 12)}\n`);
  await debug.ask("shell mkdir /made");
  expect(statSync(`/proc/${pid}/root/made`).isDirectory()).toBe(true);
  expect(await debug.ask("next")).toMatch(/^done: findExecutable$/m);
  expect((await debug.end("quit")).status).toBe(0);
});

test("the cable to the bridge is seen from both ends when it is there, and gone when that is left", async () => {
  const debug = await Debugger.start(machine, [IMAGE, "true"]);
  await debug.ask("break makeEndpoint");
  await debug.ask("continue");
  const links = () => machine.network?.run(["ip", "-o", "link"]) ?? "";
  expect(links()).not.toContain("caisson0");
  const pid = await debug.process();
  const told = await debug.ask("next");
  const address = /\+ address (\d+\.\d+\.\d+\.\d+) /.exec(told)?.[1] ?? "none";
  expect(readFileSync(`/proc/${pid}/net/fib_trie`, "utf8")).toContain(`|-- ${address}\n`);
  expect(readFileSync(`/proc/${pid}/net/dev`, "utf8")).toContain("eth0:");
  expect(told).toMatch(/\+ interface eth0 /);
  expect(told).toMatch(/\+ the host's caisson0 /);
  expect(links()).toContain("caisson0");
  expect((await debug.end("quit")).status).toBe(0);
  expect(links()).not.toContain("caisson0");
});

test("the calls of a step are those of the trace, and halts are told as what they are", async () => {
  const debug = await Debugger.start(machine, ["--name", "walked", ...FLAGS, "/bin/none"]);
  await debug.ask("break pivotRoot");
  await debug.ask("continue");
  await debug.ask("next");
  expect(await debug.ask("calls")).toMatch(/^ +pivot_root\(.*\) = 0 /m);
  await debug.end("continue\nquit");
  const trace = machine.succeeds(["trace", "walked"]);
  expect(trace).toMatch(/ init +pivotRoot .* ok$/m);
  expect(trace).toMatch(/ init +standStill +stands still .* ok$/m);
  expect(trace).toMatch(/ init +findExecutable .* ENOENT$/m);
});

test("without a step one sees what it was for, and with it goes what needs it", () => {
  const steps = (...lines: string[]) =>
    machine.caisson([
      ...["step", "--command", script(...lines, "continue"), "--userns", "auto", ...FLAGS],
      ...["sh", "-c", "hostname; grep CapEff /proc/self/status; ls /proc"],
    ]);
  const named = steps("skip setHostname");
  expect(named).toMatchObject({ status: 0, stderr: "" });
  expect(named.stdout).toMatch(new RegExp(`^${hostname()}$`, "m"));
  const bare = steps("skip setCapabilities");
  expect(bare.stderr).toMatch(/^error: cannot carry out: checks that the kernel holds exactly those/);
  expect(bare.status).toBe(125);
  const empty = steps("break attachRoot", "continue", "next", "show", "skip makeFilesystem");
  expect(empty.stdout).toMatch(/^ - +\d+ .* attachMount /m);
  expect(empty.status).toBe(125);
});

test("where it could do harm no step is left out", () => {
  const { status, stderr } = machine.caisson(["step", "--command", script("skip pivotRoot"), ...FLAGS, "true"]);
  expect(stderr).toMatch(/^error: cannot leave out a step of this container: it has no user namespace of its own$/m);
  expect(status).toBe(125);
});

test("at a terminal it asks, lines are edited, a shell has a terminal, and Ctrl-C leaves nothing", () => {
  const { status, output } = machine.atTerminal(
    ["step", ...FLAGS, "true"],
    [
      ["expect", "(step) "],
      ["send", "brek\x7f"],
      ["send", "ak pivotRoot\r"],
      ["expect", " * "],
      ["expect", "(step) "],
      ["send", "conti\t"],
      ["expect", "continue"],
      ["send", "\r"],
      ["expect", ">* "],
      ["expect", "(step) "],
      ["send", "next\r"],
      ["expect", "done: pivotRoot"],
      ["expect", "(step) "],
      ["send", "shell\r"],
      ["expect", "inside# "],
      ["send", "tty; echo $((6*7))\r"],
      ["expect", "/dev/pts/0"],
      ["expect", "42"],
      ["expect", "inside# "],
      ["send", "exit\r"],
      ["expect", "(step) "],
      ["send", "info ids\r"],
      ["expect", "user map"],
      ["expect", "(step) "],
      ["send", "\x03"],
    ],
  );
  expect(output).not.toContain("error");
  expect(status).toBe(0);
  expect(machine.containers()).toEqual([]);
});

test("at a terminal the program has it until it ends, and the debugger asks again", () => {
  const { status, output } = machine.atTerminal(
    ["step", "-it", ...FLAGS, "sh", "-c", "read line; echo heard $line; exit 5"],
    [
      ["expect", "(step) "],
      ["send", "continue\r"],
      ["expect", "program runs"],
      ["send", "something\r"],
      ["expect", "heard something"],
      ["expect", "ended with status 5"],
      ["expect", "(step) "],
      ["send", "quit\r"],
    ],
  );
  expect(output).not.toContain("error");
  expect(status).toBe(5);
});
