import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const WARNINGS = [
  "all",
  "extra",
  "conversion",
  "shadow",
  "switch-enum",
  "missing-prototypes",
  "strict-prototypes",
  "vla",
]
  .map((name) => `-W${name}`)
  .concat("-Werror");
const SOURCES = join(import.meta.dirname, "../../native/monitor");
const DRIVER = join(import.meta.dirname, "monitor_driver.py");

const BUILDS = {
  static: ["-static", "-O2"],
  sanitized: ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
};

const work = mkdtempSync(join(tmpdir(), "caisson-monitor-"));
const init = join(work, "init");

beforeAll(() => {
  execFileSync("gcc", [
    "-std=c17",
    "-static",
    "-Wall",
    "-Wextra",
    "-Werror",
    join(import.meta.dirname, "monitor_init.c"),
    "-o",
    init,
  ]);
});

afterAll(() => rmSync(work, { recursive: true, force: true }));

describe.each(Object.entries(BUILDS))("the monitor, %s,", (build, flags) => {
  const monitor = join(work, `monitor-${build}`);
  const faults = `${monitor}.fault`;

  beforeAll(() => {
    const sources = readdirSync(SOURCES).filter((name) => name.endsWith(".c"));
    execFileSync("gcc", [
      "-std=c17",
      ...flags,
      ...WARNINGS,
      ...sources.map((name) => join(SOURCES, name)),
      "-o",
      monitor,
    ]);
  });

  /** What a scenario of monitor_driver.py has seen. The monitor has no stderr: sanitizers write to a file. */
  async function drive(scenario: string): Promise<Record<string, unknown>> {
    const directory = mkdtempSync(join(work, "container-"));
    // leaks are looked for by ptrace, which a process that is not dumpable refuses
    const env = {
      ...process.env,
      ASAN_OPTIONS: `detect_leaks=0:log_path=${faults}`,
      UBSAN_OPTIONS: `log_path=${faults}`,
    };
    const { stdout } = await promisify(execFile)("python3", [DRIVER, monitor, init, scenario, directory], { env });
    const reports = readdirSync(work).filter((name) => name.includes(".fault"));
    expect(reports.map((name) => readFileSync(join(work, name), "utf8"))).toEqual([]);
    return JSON.parse(stdout);
  }

  test("passes on both streams, logs them as Docker does, and records how the container ended", async () => {
    const seen = await drive("output");
    expect(seen).toMatchObject({
      starter: 0,
      mode: "0o600",
      err: "err\n",
      status: 3 << 8,
      messages: [
        [17, 7 << 8],
        [19, 3 << 8],
      ],
      monitor: 0,
      // neither socket nor temporary files; and no clean-up program, as the client has cleaned up
      files: ["exit.json", "log"],
    });
    expect(Buffer.from(String(seen.out), "latin1").toString("hex")).toBe(
      Buffer.concat([Buffer.from("out\na"), Buffer.from([0xff, 1]), Buffer.from('\t"\\<é\u2028')]).toString("hex"),
    );
    expect(seen.log).toHaveLength(3);
    expect(seen.log).toEqual(
      expect.arrayContaining([
        ["out\n", "stdout"],
        ["err\n", "stderr"],
        ['a\ufffd\u0001\t"\\<é\u2028', "stdout"],
      ]),
    );
    expect(seen.raw).toMatch(
      /^\{"log":"a\\ufffd\\u0001\\t\\"\\\\\\u003cé\\u2028","stream":"stdout","time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"\}$/m,
    );
    const { finishedAt, ...record } = seen.record as { finishedAt: string }; // the driver's JSON
    expect(record).toEqual({
      version: 1,
      pid: seen.pid,
      status: 3,
      signal: 0,
      oomKilled: false,
      logRecordsDropped: 0,
    });
    expect(Math.abs(Date.parse(finishedAt) / 1000 - Number(seen.now))).toBeLessThan(10);
  });

  test("records death by a signal as 128 and the signal", async () => {
    expect(await drive("killed")).toMatchObject({ status: 9, record: { status: 137, signal: 9 } });
  });

  test("records whether the kernel killed for want of memory", async () => {
    expect(await drive("memory")).toEqual([true, false, true]);
  });

  test("sends a client's signal to the container", async () => {
    expect(await drive("signalled")).toEqual({ status: 5 });
  });

  test("passes SIGTERM on to the container instead of leaving it alone", async () => {
    expect(await drive("terminated")).toEqual({ status: 6, monitor: 0 });
  });

  test("keeps the status of a container that exits before its pid is announced", async () => {
    expect(await drive("early")).toEqual({ gone: true, told: 9, noRecord: true, out: "soon\n", record: 9 });
  });

  test("reads no output before it has heard the clients that came before STARTED", async () => {
    expect(await drive("first")).toEqual({ out: "first\n", monitor: 0 });
  });

  test("passes stdin on, whole, and its end", async () => {
    expect(await drive("stdin")).toEqual({ same: true, monitor: 0 });
  });

  test("loses no input of a client that does not wait and then leaves", async () => {
    expect(await drive("eager")).toEqual({ same: true, monitor: 0 });
  });

  test("takes a signal from a client whose input nobody reads", async () => {
    expect(await drive("heldsignal")).toEqual({ status: 9, monitor: 0 });
  });

  test("gives an empty stdin without --stdin", async () => {
    expect(await drive("nostdin")).toEqual({ out: "end\n" });
  });

  test("closes the ports of a container that has ended when a client says that no rule leads there", async () => {
    expect(await drive("unpublished")).toEqual({ running: "EADDRINUSE", exited: "bound", monitor: 0 });
  });

  test("serves several clients, each what it has subscribed to", async () => {
    expect(await drive("clients")).toEqual({
      out: ["one\ntwo\n", "one\ntwo\n", "two\n", ""],
      err: ["err\n", "err\n", "", ""],
      status: [0, 0, 0, 0],
      monitor: 0,
      cleaned: false,
    });
  });

  test("turns the seventeenth client away", async () => {
    expect(await drive("crowd")).toEqual({ tooMany: [null, null], others: Array(16).fill(19), monitor: 0 });
  });

  test("goes on when client and creator are killed, and cleans up with nothing but PATH", async () => {
    const { cleaned, ...seen } = await drive("clientkilled");
    expect(seen).toEqual({
      monitor: 0,
      record: 4,
      log: ["ready\n", "unseen\n"],
      files: ["cleaned", "exit.json", "log"],
    });
    // the shell adds SHLVL and PWD
    expect(String(cleaned).trim().split("\n").sort()).toEqual(["PATH=/host/bin:/bin", "PWD=/", "SHLVL=1"]);
  });

  test("cleans up when a foreground client dies before it has done so", async () => {
    expect(await drive("exitunclean")).toEqual({ before: false, monitor: 0, cleaned: true });
  });

  test("hears STARTED from a creator that leaves without reading its own messages", async () => {
    expect(await drive("unread")).toEqual({ monitor: 0, record: 8 });
  });

  test("kills and cleans up when the creator dies before STARTED", async () => {
    expect(await drive("creatorkilled")).toEqual({
      alive: true,
      client: null,
      monitor: 0,
      container: null,
      record: null,
      cleaned: true,
      files: ["cleaned", "log"],
    });
  });

  test("finds all there is to kill when the creator dies before it has announced the container", async () => {
    const seen = await drive("creatorkilledearly");
    expect(seen.children).toBeGreaterThan(0);
    expect(seen).toMatchObject({ monitor: 0, left: Array(Number(seen.children) + 1).fill(null), cleaned: true });
  });

  test("kills, without record or clean-up program, when the creator aborts", async () => {
    expect(await drive("abort")).toEqual({ monitor: 0, container: null, record: null, cleaned: false, files: ["log"] });
  });

  test("delivers and logs 20 MB, whole, to a foreground client that is slow", async () => {
    expect(await drive("big")).toEqual({ size: 20_000_000, same: true, logged: true, err: "done\n", monitor: 0 });
  });

  test("drops a client that reads nothing and is not in the foreground", async () => {
    expect(await drive("stuck")).toEqual({ size: 2_000_000, bounded: true, dropped: true, monitor: 0 });
  });

  test("writes the exit record although a foreground client has paused, which later gets every byte", async () => {
    expect(await drive("paused")).toEqual({ recorded: true, undelivered: true, other: 9, monitor: 0, complete: true });
  });

  test("rotates the log at its size and keeps one old file", async () => {
    const { sizes, ...seen } = await drive("rotation");
    expect(seen).toEqual({ contiguous: true, files: ["exit.json", "log", "log.1"] });
    for (const sizeBytes of sizes as number[]) expect(sizeBytes).toBeLessThanOrEqual(4096); // the driver's JSON
  });

  test("splits a long line into records of 16 KiB, between two characters", async () => {
    expect(await drive("longline")).toEqual({ sizes: [16_383, 16_383, 3619], second: "éy", last: "y\n" });
  });

  test("lets the container run on when the disk is full, and leaves no half record", async () => {
    expect(await drive("diskfull")).toEqual({ lines: 200_011, whole: true, dropped: true, last: "more\n" });
  });

  test("serves a terminal: output, input, its size, and a container that opens it again", async () => {
    expect(await drive("terminal")).toEqual({
      out: "ready\r\ngot words\r\n33 77\r\nback\r\n",
      status: 2,
      monitor: 0,
      log: ["ready\r\n", "got words\r\n", "33 77\r\n", "back\r\n"].map((line) => [line, "stdout"]),
    });
  });

  test("gives a terminal the size that was asked for before it came", async () => {
    expect(await drive("firstsize")).toEqual({ out: "11 22\r\n" });
  });

  test("reaps processes whose parents have left", async () => {
    expect(await drive("orphans")).toEqual({ adopted: true, reaped: true, monitor: 0 });
  });

  test("holds a published port until its own end", async () => {
    expect(await drive("ports")).toEqual({ running: "EADDRINUSE", exited: "EADDRINUSE", after: "bound", monitor: 0 });
  });

  test("holds 128 ports and refuses more", async () => {
    expect(await drive("manyports")).toEqual({ refused: ["EMFILE", "EMFILE"], monitor: 0 });
  });

  test("does not wait for a process that the container left behind", async () => {
    expect(await drive("background")).toEqual({ status: 1, monitor: 0, left: false });
  });

  test("is idle while a container has closed its streams or its terminal", async () => {
    expect(await drive("closed")).toEqual({ status: 0, idle: true });
    expect(await drive("hangup")).toEqual({ status: 0, idle: true, monitor: 0 });
  });

  test("refuses arguments that make no sense", async () => {
    expect(await drive("usage")).toEqual({ statuses: Array(9).fill(125) });
  });

  test("tells why init could not be executed", async () => {
    expect(await drive("badinit")).toEqual({ failed: ["EACCES", 6], exited: [17, 127], monitor: 0 });
  });

  test("refuses messages that make no sense and keeps nothing that came with them", async () => {
    expect(await drive("nonsense")).toEqual({
      refused: ["EPROTO", "EBADF", "EPROTO", "EPROTO", "EPROTO"],
      leaked: false,
      dropped: null,
      monitor: 0,
    });
  });
});
