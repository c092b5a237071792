import { createHash } from "node:crypto";
import { once } from "node:events";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { alive, until } from "../support/bundle.ts";
import { expectFailure, Machine } from "../support/engine.ts";

let machine: Machine;
const RUN = ["run", "--rm", "--network", "none"];
const IMAGE = "caisson/quickstart";
/** Says each signal it gets. */
const LISTENER =
  "trap 'echo got-int' INT; trap 'exit 4' QUIT; trap 'echo got-size; stty size' WINCH; echo ready; while :; do sleep 0.05; done";

beforeAll(async () => {
  machine = await Machine.make();
});
afterEach(() => machine.expectEmpty());
afterAll(() => machine.close());

test("-it gives a terminal of its own, of the caller's size, and the command's status", () => {
  const script =
    "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo three; echo $TERM; cat /proc/self/stat | cut -d' ' -f7; exit 7";
  const { status, output } = machine.atTerminal([...RUN, "-it", IMAGE, "sh", "-c", script], [], {
    rows: 33,
    columns: 101,
  });
  expect({ status, output }).toEqual({ status: 7, output: "/dev/pts/0\r\n33 101\r\nthree\r\nxterm\r\n34816\r\n" });
});

test("a window that changes tells the container, and Ctrl-C goes to it", () => {
  const { status, output } = machine.atTerminal(
    [...RUN, "-it", IMAGE, "sh", "-c", LISTENER],
    [
      ["expect", "ready"],
      ["resize", 50, 132],
      ["expect", "got-size"],
      ["expect", "50 132"],
      ["send", "\x03"],
      ["expect", "got-int"],
      ["send", "\x1c"],
    ],
  );
  expect(output).toContain("got-int");
  expect(status).toBe(4);
});

test("what is typed comes as lines, with echo, and Ctrl-D ends the input", () => {
  const { status, output } = machine.atTerminal(
    [...RUN, "-it", IMAGE, "sh", "-c", 'echo ready; while read line; do echo "<$line>"; done; exit 3'],
    [
      ["expect", "ready\r\n"],
      ["send", "one\n"],
      ["expect", "<one>"],
      ["send", "two\n"],
      ["expect", "<two>"],
      ["send", "\x04"],
    ],
  );
  expect(output).toBe("ready\r\none\r\n<one>\r\ntwo\r\n<two>\r\n");
  expect(status).toBe(3);
});

test("Ctrl-P Ctrl-Q leaves it running; attach comes back, at another size, and gets its status", () => {
  const run = machine.atTerminal(
    [
      "run",
      "--network",
      "none",
      "--name",
      "left",
      "-it",
      IMAGE,
      "sh",
      "-c",
      "while read line; do stty size; test $line = end && exit 9; done",
    ],
    [
      ["send", "\n"],
      ["expect", "24 80"],
      ["send", "\x10\x11"],
    ],
  );
  expect(run.status).toBe(0);
  expect(machine.inspect("left").State).toMatchObject({ Status: "running" });
  const attached = machine.atTerminal(
    ["attach", "left"],
    [
      ["send", "x\n"],
      ["expect", "40 90"],
      ["send", "end\n"],
    ],
    { rows: 40, columns: 90 },
  );
  expect(attached.status).toBe(9);
  machine.succeeds(["rm", "left"]);
});

test("attach has what is on the terminal drawn anew, also at the same size", () => {
  const words = ["run", "--rm", "--network", "none", "--name", "drawn", "-it", IMAGE, "sh", "-c", LISTENER];
  const left = machine.atTerminal(words, [
    ["expect", "ready"],
    ["send", "\x10\x11"],
  ]);
  expect(left.status).toBe(0);
  const back = machine.atTerminal(
    ["attach", "drawn"],
    [
      ["expect", "got-size"],
      ["expect", "24 80"],
      ["send", "\x1c"],
    ],
  );
  expect(back.status).toBe(4);
});

test("the caller's terminal is as before afterwards, even when the container is killed", () => {
  const [first = "", ...rest] = machine.commandLine([
    ...RUN,
    "--name",
    "killed",
    "-it",
    IMAGE,
    "sh",
    "-c",
    "stty raw -echo; kill -9 -1; echo alive; sleep 0.2; exit 2",
  ]);
  const quoted = [first, ...rest].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  const { status, output } = machine.atShell(
    `stty -a > /dev/null; before=$(stty -g); ${quoted}; s=$?; [ "$before" = "$(stty -g)" ] && echo restored; exit $s`,
    [],
  );
  expect(output).toContain("restored");
  expect(status).toBe(2);
});

test("-i with a pipe: a megabyte goes through cat as it is, and the end of the input ends it", () => {
  const input = Buffer.from(Array.from({ length: 1 << 20 }, (_, i) => (i * 7 + (i >> 8)) & 0xff));
  const { status, stderr, bytes } = machine.caisson([...RUN, "-i", IMAGE, "cat"], { input });
  expect({ status, stderr, equal: bytes.equals(input) }).toEqual({ status: 0, stderr: "", equal: true });
  expect(
    machine.caisson([...RUN, "-i", IMAGE, "sh", "-c", "cat >&2; exit 5"], { input: "to the error stream" }),
  ).toMatchObject({ status: 5, stdout: "", stderr: "to the error stream" });
});

test("-it with an input that is no terminal is refused, whose end the container would wait for", () => {
  const refused = (words: string[]) =>
    expectFailure(machine.caisson(words, { input: "typed\n" }), /the input device is not a TTY: leave -t out/);
  refused([...RUN, "-it", IMAGE, "cat"]);
  const id = machine.succeeds(["run", "-d", "-it", "--network", "none", IMAGE, "sh"]);
  refused(["exec", "-it", id, "cat"]);
  refused(["attach", id]);
  expect(machine.succeeds(["exec", "-t", id, "tty"])).toMatch(/^\/dev\/pts\/\d+$/);
  machine.succeeds(["rm", "-f", id]);
});

test("the input of a detached container stays open when somebody who wrote to it leaves", async () => {
  const echo = "while read line; do echo got $line; done; echo ended";
  const id = machine.succeeds(["run", "-d", "-i", "--network", "none", IMAGE, "sh", "-c", echo]);
  for (const word of ["one", "two"]) {
    const client = machine.start(["attach", id], { stdio: ["pipe", "pipe", "inherit"] });
    client.stdin?.end(`${word}\n`);
    const [heard] = client.stdout === null ? [] : await once(client.stdout, "data");
    expect(String(heard)).toBe(`got ${word}\n`);
    client.kill("SIGKILL");
    await once(client, "close");
  }
  expect(alive(machine.inspect(id).State.Pid)).toBe(true);
  expect(machine.succeeds(["logs", id])).toBe("got one\ngot two");
  machine.succeeds(["rm", "-f", id]);
});

test("without -i the input is empty, whatever ours is", () => {
  expect(machine.caisson([...RUN, IMAGE, "cat"], { input: "not for it" })).toMatchObject({ status: 0, stdout: "" });
});

test("20 MB of output come complete and in order, and both streams apart", () => {
  const { status, bytes, stderr } = machine.caisson([...RUN, IMAGE, "sh", "-c", "seq 1 2700000; echo done >&2"]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "done\n" });
  const expected = createHash("sha256");
  for (let i = 1; i <= 2_700_000; i++) expected.update(`${i}\n`);
  expect(bytes.length).toBeGreaterThan(19 << 20);
  expect(createHash("sha256").update(bytes).digest("hex")).toBe(expected.digest("hex"));
});

test("a reader that goes away is followed by whoever writes to it, and the container runs on", () => {
  const words = (...flags: string[]) => [...flags, "--network", "none", "--name", "endless", IMAGE, "yes"];
  const first = (command: string[]) =>
    machine.shell(`${machine.commandLine(command).join(" ")} | head -n 1; exit \${PIPESTATUS[0]}`);
  const notice = expect.stringMatching(/^nobody reads here any more what container endless writes: it runs on$/m);
  expect(first(words("run"))).toEqual({ stdout: "y\n", stderr: notice, status: 141 });
  expect(alive(machine.inspect("endless").State.Pid)).toBe(true);
  expect(first(["attach", "endless"])).toEqual({ stdout: "y\n", stderr: notice, status: 141 });
  expect(first(["logs", "-f", "endless"])).toEqual({ stdout: "y\n", stderr: "", status: 141 });
  expect(alive(machine.inspect("endless").State.Pid)).toBe(true);
  machine.succeeds(["rm", "-f", "endless"]);
});

test("an input that stays open does not keep an ended container", async () => {
  const child = machine.start([...RUN, "-i", IMAGE, "/bin/probe", "--exit", "6"], {
    stdio: ["pipe", "ignore", "ignore"],
  });
  const [status] = await once(child, "exit");
  expect(status).toBe(6);
});

test("exec -it has a terminal too, and its own size and status", () => {
  const id = machine.succeeds(["run", "-d", "--network", "none", IMAGE, "/bin/probe", "--sleep", "60"]);
  const pid = machine.inspect(id).State.Pid;
  const { status, output } = machine.atTerminal(
    ["exec", "-it", id, "sh", "-c", `${LISTENER}`],
    [
      ["expect", "ready"],
      ["resize", 44, 99],
      ["expect", "44 99"],
      ["send", "\x03"],
      ["expect", "got-int"],
      ["send", "\x1c"],
    ],
  );
  expect({ status, output: output.includes("got-int") }).toEqual({ status: 4, output: true });
  machine.succeeds(["rm", "-f", id]);
  until("it has ended", () => !alive(pid));
});
