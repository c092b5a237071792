import { spawnSync } from "node:child_process";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { fixtures } from "../../rootfs-fixtures/build.mjs";
import { results, until } from "../support/bundle.ts";
import { expectFailure, lastLine, Machine } from "../support/engine.ts";

let machine: Machine;
const IMAGE = "caisson/quickstart";
const QUIET = ["--rm", "--network", "none"];

beforeAll(async () => {
  machine = await Machine.make();
});
afterEach(() => machine.expectEmpty());
afterAll(() => machine.close());

const run = (flags: readonly string[], words: readonly string[] = ["/bin/true"]) =>
  machine.caisson(["run", ...QUIET, ...flags, IMAGE, ...words]);
const detached = (flags: readonly string[], words: readonly string[] = ["sleep", "60"]) =>
  machine.succeeds([
    "run",
    "-d",
    ...(flags.includes("--network") ? [] : ["--network", "none"]),
    ...flags,
    IMAGE,
    ...words,
  ]);

describe("the environment", () => {
  const file = (text: string) => {
    const path = join(machine.directory, "environment");
    writeFileSync(path, text);
    return path;
  };

  test("comes from files, too, and -e goes before them wherever it stands", () => {
    const path = file("\ufeffA=of the file\r\n# B=no\n\n  C=1 2 \nOWN\nNOT_OURS\nD=a=b\nE=\n");
    const flags = ["-e", "A=of the flag", "--env-file", path, "-e", "OWN_TOO"];
    const how = { env: { PATH: process.env.PATH, OWN: "ours", OWN_TOO: "x" } };
    const { env } = lastLine(machine.succeeds(["run", ...QUIET, ...flags, IMAGE, "/bin/probe"], how));
    const given = env.filter((entry) => /^(A|B|C|D|E|OWN|OWN_TOO|NOT_OURS)=/.test(entry));
    expect(given.sort()).toEqual(["A=of the flag", "C=1 2 ", "D=a=b", "E=", "OWN=ours", "OWN_TOO=x"]);
    const id = detached(["-e", "A=0"]);
    const exec = machine.succeeds(["exec", ...flags, id, "/bin/probe"], how);
    expect(lastLine(exec).env).toEqual(expect.arrayContaining(["A=of the flag", "C=1 2 ", "OWN=ours", "OWN_TOO=x"]));
    expect(lastLine(exec).env.filter((entry) => /^(A=|OWN_TOO|NOT_OURS)/.test(entry)).length).toBe(2);
    machine.succeeds(["rm", "-f", id]);
  });

  test("of files that cannot be meant is refused, with the line", () => {
    // Node 20 looks for --env-file among our words, too, and ends where it finds no such file
    if (process.env.CAISSON_BIN !== "node")
      expectFailure(run(["--env-file", "/no/such"]), /environment file \/no\/such: ENOENT/);
    expectFailure(run(["--env-file", file("A=1\nB C=2\n")]), /line 2 of .*no blanks/);
    expectFailure(run(["--env-file", file("=x\n")]), /line 1 of .*is missing/);
  });
});

describe("names", () => {
  test("an empty host name or name is none that was given", () => {
    const seen = machine.seen(["-h", "", "--name", ""]);
    expect(seen.hostname).toMatch(/^[0-9a-f]{12}$/);
    expect(seen.env).toContain(`HOSTNAME=${seen.hostname}`);
  });

  test("with the host's network the machine's name is the host's, unless one is given", () => {
    const seen = (...flags: string[]) =>
      lastLine(machine.succeeds(["run", "--rm", "--net", "host", ...flags, IMAGE, "/bin/probe"]));
    const own = seen();
    expect(own.hostname).toBe(hostname());
    expect(own.env).toContain(`HOSTNAME=${hostname()}`);
    expect(seen("-h", "other").hostname).toBe("other");
  });

  test("who shares another's network has its host name and its files about names", () => {
    const id = detached(["-h", "shared.example", "--name", "owner"]);
    const shared = ["run", "--rm", "--network", "container:owner"];
    const words = ["/bin/probe", "--read", "/etc/hosts", "--read", "/etc/hostname", "--read", "/etc/resolv.conf"];
    const seen = lastLine(machine.succeeds([...shared, IMAGE, ...words]));
    const { Pid } = machine.inspect(id).State;
    const ownersFile = (name: string) => readFileSync(`/proc/${Pid}/root/etc/${name}`, "utf8").trimEnd();
    expect(seen.hostname).toBe("shared.example");
    expect(results(seen.actions).map((text) => String(text).trimEnd())).toEqual(
      ["hosts", "hostname", "resolv.conf"].map(ownersFile),
    );
    expectFailure(machine.caisson([...shared, "-h", "x", IMAGE, "/bin/true"]), /has its host name/);
    machine.succeeds(["rm", "-f", id]);
  });
});

describe("the files about names", () => {
  const FILES = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

  test("are the container's own with the host's network, too: what is written there is not the host's", () => {
    const [hosts = ""] = FILES;
    const before = readFileSync(hosts, "utf8");
    const id = detached(["--network", "host", "-h", "own"]);
    const { Pid } = machine.inspect(id).State;
    // were it the host's after all, this test would not write there
    expect(statSync(`/proc/${Pid}/root${hosts}`).ino).not.toBe(statSync(hosts).ino);
    machine.succeeds(["exec", id, "sh", "-c", `cat ${hosts} >/tmp/before; echo mine >>${hosts}`]);
    const inside = (path: string) => readFileSync(`/proc/${Pid}/root${path}`, "utf8");
    expect(inside("/tmp/before")).toBe(before);
    expect(inside(hosts)).toBe(`${before}mine\n`);
    expect(readFileSync(hosts, "utf8")).toBe(before);
    expect(inside("/etc/hostname")).toBe("own\n");
    expect(inside("/etc/resolv.conf")).toBe(readFileSync("/etc/resolv.conf", "utf8"));
    const words = ["run", "--rm", "--network", `container:${id}`, IMAGE, "cat", hosts];
    expect(machine.succeeds(words)).toBe(`${before}mine`);
    machine.succeeds(["rm", "-f", id]);
  });

  test("are read-only with the root", () => {
    const writes = FILES.flatMap((path) => ["--write", path, "x"]);
    expect(results(machine.seen(["--read-only"], writes).actions)).toEqual(["EROFS", "EROFS", "EROFS"]);
  });
});

describe("a user namespace", () => {
  test("goes with the host's network: interfaces are the host's, and nothing of them can be changed", () => {
    const words = [
      "run",
      "--rm",
      "--network",
      "host",
      "--userns",
      "auto",
      IMAGE,
      "/bin/probe",
      "--write",
      "/sys/x",
      "x",
    ];
    const seen = lastLine(machine.succeeds(words));
    expect(seen.uidMap).toEqual(["0 100000 65536"]);
    expect(seen.network.map(({ name }) => name)).toEqual(
      machine.network
        ?.run(["ls", "/proc/sys/net/ipv4/conf"])
        .trim()
        .split("\n")
        .filter((name) => !["all", "default"].includes(name)),
    );
    expect(results(seen.actions)).toEqual(["EROFS"]);
    const up = ["ip", "link", "set", "lo", "down"];
    expect(
      machine.caisson(["run", "--rm", "--network", "host", "--userns", "auto", "--cap-add", "NET_ADMIN", IMAGE, ...up])
        .status,
    ).not.toBe(0);
  });
});

describe("--security-opt", () => {
  test("systempaths=unconfined uncovers what proc hides, seccomp=builtin holds for privileged ones", () => {
    const covered = (mounts: { mountPoint: string }[]) =>
      mounts.filter(({ mountPoint }) => mountPoint.startsWith("/proc/")).length;
    expect(covered(machine.seen([]).mounts)).toBeGreaterThan(3);
    expect(covered(machine.seen(["--security-opt", "systempaths=unconfined"]).mounts)).toBe(0);
    expect(machine.seen(["--privileged"]).seccomp.mode).toBe(0);
    expect(machine.seen(["--privileged", "--security-opt", "seccomp=builtin"]).seccomp.mode).toBe(2);
    expect(machine.seen(["--security-opt", "label=disable", "--security-opt", "apparmor=unconfined"]).pid).toBe(1);
  });

  test("what it cannot have meant is refused", () => {
    for (const option of ["no-new-privileges=maybe", "systempaths=x", "label=type:t", "label", "seccomp=", ""])
      expectFailure(run(["--security-opt", option]), /cannot use security option/);
  });
});

test("processors that this machine has not are refused before anything is made", () => {
  expectFailure(run(["--cpuset-cpus", "7777"]), /processors of this machine are 0/);
  for (const list of ["x", "1-", "", "0,,1", "1-0-2", "1-0"])
    expectFailure(run(["--cpuset-cpus", list]), /must be a list/);
  expect(machine.seen(["--cpuset-cpus", "0"]).affinity).toEqual([0]);
});

describe("exec", () => {
  test("leaves our input alone unless -i is given, and with -d our output, too", () => {
    const id = detached([]);
    expect(machine.caisson(["exec", id, "cat"], { input: "not for it" })).toMatchObject({ status: 0, stdout: "" });
    expect(machine.caisson(["exec", "-i", id, "cat"], { input: "for it" }).stdout).toBe("for it");
    // whoever reads what we print must not wait for the process
    const [command = "", ...words] = machine.commandLine(["exec", "-d", id, "sleep", "50"]);
    expect(spawnSync(command, words, { timeout: 20_000, encoding: "utf8" }).stdout).toMatch(/^\d+\n$/);
    expectFailure(machine.caisson(["exec", "-w", "relative", id, "true"]), /must be an absolute path/);
    machine.succeeds(["rm", "-f", id]);
  });
});

test("exec -t says which terminal it is, as run -t does, unless the container or the caller says another", () => {
  const term = (flags: string[], ...more: string[]) => {
    const id = detached(flags);
    const { env } = lastLine(machine.succeeds(["exec", ...more, id, "/bin/probe"]));
    machine.succeeds(["rm", "-f", id]);
    return env.filter((entry) => entry.startsWith("TERM="));
  };
  expect(term([])).toEqual([]);
  expect(term([], "-t")).toEqual(["TERM=xterm"]);
  expect(term(["-e", "TERM=linux"], "-t")).toEqual(["TERM=linux"]);
  expect(term(["-e", "TERM=linux"], "-t", "-e", "TERM=vt100")).toEqual(["TERM=vt100"]);
});

test("a limit of nothing is none, and units of memory can be written out", () => {
  const id = detached(["--memory", "64MiB", "--cpus", "0"]);
  const limit = (flag: string) => machine.succeeds(["inspect", "-f", `{{.HostConfig.${flag}}}`, id]);
  expect([limit("Memory"), limit("NanoCpus")]).toEqual([String(64 << 20), "0"]);
  machine.succeeds(["rm", "-f", id]);
});

test("an empty working directory is none that was given", () => {
  const id = detached(["-w", "", "-w", "/tmp"]);
  expect(machine.succeeds(["exec", "-w", "", id, "pwd"])).toBe("/tmp");
  machine.succeeds(["rm", "-f", id]);
  expect(machine.seen(["-w", ""]).cwd).toBe("/");
});

test("a switch can be given with what it is to be", () => {
  const id = detached(["--read-only=true", "--rm=true", "--rm=false", "--privileged=false"]);
  const { HostConfig } = machine.inspect(id);
  expect(HostConfig).toMatchObject({ ReadonlyRootfs: true, AutoRemove: false, Privileged: false });
  expect(machine.succeeds(["ps", "--all=true", "--quiet=true", "--no-trunc=true"])).toBe(id);
  expectFailure(machine.caisson(["ps", "--all=perhaps"]), /unknown option '--all=perhaps'/);
  // behind the image it is the command's
  expect(machine.succeeds(["run", ...QUIET, IMAGE, "echo", "--rm=true"])).toBe("--rm=true");
  machine.succeeds(["rm", "--force=true", id]);
});

describe("several containers", () => {
  test("are served even if one of them cannot be", () => {
    const [one, other] = [detached(["--name", "one"]), detached(["--name", "other"])];
    const killed = machine.caisson(["kill", "one", "nobody", "other"]);
    expect(killed).toMatchObject({
      status: 125,
      stdout: "one\nother\n",
      stderr: "error: there is no container nobody\n",
    });
    expect(machine.caisson(["wait", "one", "nobody", other])).toMatchObject({ status: 125, stdout: "137\n137\n" });
    expect(machine.caisson(["stop", "nobody", one])).toMatchObject({ status: 125, stdout: `${one}\n` });
    expect(machine.caisson(["rm", "nobody", "one", "other"])).toMatchObject({ status: 125, stdout: "one\nother\n" });
  });

  test("are removed by force whether they are there or not", () => {
    const id = detached([]);
    const { status, stdout, stderr } = machine.caisson(["rm", "-f", "nobody", id]);
    expect({ status, stdout, stderr }).toEqual({
      status: 0,
      stdout: `${id}\n`,
      stderr: "there is no container nobody\n",
    });
  });

  test("that remove themselves are waited for all the same", () => {
    const words = (seconds: string, status: number) => ["sh", "-c", `sleep ${seconds}; exit ${status}`];
    const slow = detached(["--rm"], words("1.5", 3));
    const fast = detached(["--rm"], words("0.7", 4));
    expect(machine.succeeds(["wait", slow, fast])).toBe("3\n4");
  });
});

test("stop and logs refuse numbers that are none; logs has times", async () => {
  const id = detached([], ["sh", "-c", "echo early; sleep 1.5; echo late; exec sleep 60"]);
  until("all is said", () => machine.caisson(["logs", id]).stdout.includes("late"));
  const [, late = ""] = machine.succeeds(["logs", "-t", id]).split("\n");
  const moment = late.split(" ")[0] ?? "";
  expect(machine.succeeds(["logs", "--since", moment.slice(0, 23), id])).toBe("late");
  expect(machine.succeeds(["logs", "--until", moment.slice(0, 23), id])).toBe("early");
  expect(machine.succeeds(["logs", "--since", "1h", "--until", "30m", id])).toBe("");
  expect(machine.succeeds(["logs", "--until", "0.1s", "-f", "--tail", "1", id])).toBe("late");
  expectFailure(machine.caisson(["logs", "--tail", "x", id]), /must be a number/);
  expectFailure(machine.caisson(["logs", "--since", "soon", id]), /must be a time/);
  expectFailure(machine.caisson(["stop", "-t", "x", id]), /number of seconds/);
  machine.succeeds(["stop", "-t", "0", id]);
  machine.succeeds(["rm", id]);
});

test("an archive is loaded from standard input, as it is or compressed", () => {
  for (const input of [readFileSync(fixtures.images.variants.docker), readFileSync(fixtures.images.variants.ociGzip)])
    expect(machine.succeeds(["load", "-q"], { input })).toContain("Loaded image: caisson/variants:bare");
  expectFailure(machine.caisson(["load"], { input: "no archive" }), /cannot read/);
});
