import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  cleanUp,
  cleanUpFile,
  create,
  exec,
  idle,
  makeBundle,
  probe,
  run,
  runtime,
  scratchDirectory,
  seenIn,
  state,
} from "../support/bundle.ts";

// runc's command line where it is about one flag or one command alone.

afterEach(cleanUp);
afterAll(cleanUpFile);

test("versions are told as runc tells them", () => {
  covers("--version");
  const { status, stdout } = runtime(["--version"]);
  expect(status).toBe(0);
  // the first line names the program, a later one the specification: engines read both
  expect(stdout).toMatch(/^\S+ version \d+\.\d+\.\d+/);
  expect(stdout).toMatch(/^spec: 1\.\d+\.\d+/m);
});

test("a spec is written that the runtime takes, and never over one that is there", () => {
  covers("spec --bundle");
  const directory = mkdtempSync(join(scratchDirectory(), "spec-"));
  expect(runtime(["spec", "--bundle", directory])).toMatchObject({ status: 0, stderr: "" });
  const ours = JSON.parse(readFileSync(join(directory, "config.json"), "utf8"));
  expect(ours).toMatchObject({ process: { args: ["sh"], terminal: true }, root: { path: "rootfs" }, hostname: "runc" });
  const again = runtime(["spec", "--bundle", directory]);
  expect(again.status).toBe(1);
  expect(again.stderr).toContain("exists");
});

test("the document and the manager of cgroups can be named as with crun", () => {
  covers("create --config", "--cgroup-manager");
  const bundle = makeBundle();
  mkdirSync(join(bundle.path, "config"));
  renameSync(join(bundle.path, "config.json"), join(bundle.path, "config/other.json"));
  const run = (manager: string) =>
    runtime([
      `--cgroup-manager=${manager}`,
      "run",
      "--bundle",
      bundle.path,
      "--config",
      "config/other.json",
      bundle.id,
    ]);
  expect(seenIn(run("cgroupfs")).pid).toBe(1);
  expect(run("disabled")).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("invalid value for --cgroup-manager: disabled"),
  });
});

test("a spec for a user without privileges maps that user, and has no limits", () => {
  covers("spec --rootless");
  const directory = mkdtempSync(join(scratchDirectory(), "spec-"));
  const { status } = runtime(["spec", "--rootless"], { cwd: directory });
  expect(status).toBe(0);
  const { linux } = JSON.parse(readFileSync(join(directory, "config.json"), "utf8"));
  expect(linux.namespaces).toContainEqual({ type: "user" });
  expect(linux.uidMappings).toEqual([{ containerID: 0, hostID: 0, size: 1 }]);
  expect(linux.resources).toBeUndefined();
});

test("what it can do is told as the specification has it", () => {
  covers("features");
  const { status, stdout } = runtime(["features"]);
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    ociVersionMin: "1.0.0",
    hooks: ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    mountOptions: expect.arrayContaining(["rbind", "ro", "rslave", "nosymfollow"]),
    linux: {
      namespaces: expect.arrayContaining(["cgroup", "mount", "time", "user"]),
      seccomp: { enabled: true },
      memoryPolicy: { modes: expect.arrayContaining(["MPOL_BIND"]), flags: expect.any(Array) },
    },
    potentiallyUnsafeConfigAnnotations: ["org.systemd.property."],
  });
});

test("without pivot_root the container sees its root and nothing else", () => {
  covers("create --no-pivot");
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--stat", "/bin/probe", "--stat", "/../../proc/1/root/work"];
  });
  const seen = seenIn(run(bundle, {}, "--no-pivot"));
  expect(seen.actions.map(({ error }) => error)).toEqual([null, "ENOENT"]);
});

test("the caller's session keyring stays with --no-new-keyring", () => {
  covers("create --no-new-keyring", "keyring");
  const join = "import ctypes,os,sys; ctypes.CDLL(None).syscall(250,1,b'callers'); os.execvp(sys.argv[1],sys.argv[1:])";
  const through = ["python3", "-c", join];
  const seen = probe(() => undefined, [], { flags: ["--no-new-keyring"], through });
  expect(seen.keyring?.description).toContain("callers");
  expect(probe(() => undefined, [], { through }).keyring?.description).toContain("_ses.");
});

test("exec --no-new-privs sets the flag where the container's own process has it not", () => {
  covers("exec --no-new-privs");
  const bundle = idle((spec) => {
    spec.process.noNewPrivileges = false;
  });
  expect(seenIn(exec(bundle, ["/bin/probe"])).noNewPrivs).toBe(false);
  expect(seenIn(exec(bundle, ["/bin/probe"], { flags: ["--no-new-privs"] })).noNewPrivs).toBe(true);
});

test("a specification of another major version is refused", () => {
  covers("ociVersion");
  for (const version of ["2.0.0", "0.6.0", "one"]) {
    const bundle = makeBundle((spec) => {
      spec.ociVersion = version;
    });
    const { status, stderr } = create(bundle);
    expect(status, version).toBe(1);
    expect(stderr, version).toContain("/ociVersion");
  }
  expect(
    seenIn(
      run(
        makeBundle((spec) => {
          spec.ociVersion = "1.0.0";
        }),
      ),
    ).pid,
  ).toBe(1);
});

test("a type of namespace that is there twice is refused", () => {
  covers("linux.namespaces twice");
  const bundle = makeBundle((spec) => {
    spec.linux.namespaces?.push({ type: "pid" });
  });
  const { status, stderr } = create(bundle);
  expect(status).toBe(1);
  expect(stderr).toMatch(/\/linux\/namespaces\/\d+\/type .*twice/);
});

test("settings are those of the container's namespaces; one of the machine is refused", () => {
  covers("linux.sysctl");
  const before = readFileSync("/proc/sys/kernel/msgmax", "utf8");
  const seen = probe(
    (spec) => {
      spec.linux.sysctl = { "kernel.msgmax": "4242", "net.ipv4.ip_forward": "1", "net/ipv4/ip_default_ttl": "77" };
    },
    ["kernel/msgmax", "net/ipv4/ip_forward", "net/ipv4/ip_default_ttl"].flatMap((name) => [
      "--read",
      `/proc/sys/${name}`,
    ]),
  );
  expect(seen.actions.map(({ result }) => result)).toEqual(["4242\n", "1\n", "77\n"]);
  expect(readFileSync("/proc/sys/kernel/msgmax", "utf8")).toBe(before);
  const machine = create(
    makeBundle((spec) => {
      spec.linux.sysctl = { "vm.swappiness": "1" };
    }),
  );
  expect(machine).toMatchObject({ status: 1, stderr: expect.stringContaining("/linux/sysctl/vm.swappiness") });
});

test("the memory policy is the process's", ({ skip }) => {
  covers("linux.memoryPolicy");
  skip(!existsSync("/proc/self/numa_maps"), "the kernel has no NUMA");
  const bundle = idle((spec) => {
    spec.linux.memoryPolicy = { mode: "MPOL_BIND", nodes: "0", flags: ["MPOL_F_STATIC_NODES"] };
  });
  const { pid } = state(bundle);
  expect(readFileSync(`/proc/${pid}/numa_maps`, "utf8")).toMatch(/ bind=static:0 /);
});

test("--debug logs more, where the log is, and in its format", () => {
  covers("--debug");
  const log = join(mkdtempSync(join(scratchDirectory(), "log-")), "log");
  const bundle = makeBundle();
  const quiet = runtime(["--log", log, "list"]);
  expect(quiet).toMatchObject({ status: 0, stderr: "" });
  expect(readFileSync(log, "utf8")).toBe("");
  expect(
    runtime(["--debug", "--log", log, "--log-format", "json", "run", "--bundle", bundle.path, bundle.id]),
  ).toMatchObject({ status: 0, stderr: "" });
  const lines = readFileSync(log, "utf8").trimEnd().split("\n");
  expect(lines.map((line) => JSON.parse(line).level)).toEqual(lines.map(() => "debug"));
  expect(lines[0]).toContain(bundle.id);
});

test("a log that cannot be written, or is of no known format, is said before anything is done", () => {
  const bundle = makeBundle();
  for (const words of [
    ["--log", "/no/such/directory/log"],
    ["--log-format", "xml"],
    ["--rootless", "perhaps"],
  ]) {
    expect(runtime([...words, "create", "--bundle", bundle.path, bundle.id]).status, words[0]).toBe(1);
    expect(runtime(["state", bundle.id]).status).toBe(1);
  }
});

test("flags may stand behind the other words, as with runc, but not those of another program", () => {
  const bundle = idle();
  const { stdout } = exec(bundle, ["/bin/probe", "--exit", "3"]);
  expect(stdout).not.toBe("");
  expect(runtime(["kill", bundle.id, "KILL", "--all"]).status).toBe(0);
  expect(runtime(["delete", bundle.id, "--force"])).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(runtime(["state", bundle.id]).status).toBe(1);
  const kept = makeBundle();
  expect(runtime(["run", kept.id, "--keep=1", "--bundle", kept.path]).status).toBe(0);
  expect(state(kept).status).toBe("stopped");
  // behind them it is a word too many, and so it is for runc
  expect(runtime(["state", kept.id, "--bogus"]).stdout).toMatch(/^Incorrect Usage\./);
  expect(runtime(["delete", kept.id, "--help"]).stdout).toMatch(/^NAME:/);
});

test("what is not understood is said with the command's help; a command that there is not, with status 3", () => {
  for (const [flag, says] of [
    ["--bogus", "flag provided but not defined: -bogus"],
    ["--quiet=perhaps", 'invalid boolean value "perhaps" for -quiet: parse error'],
    ["--format", "flag needs an argument: -format"],
  ] as const) {
    const { status, stdout, stderr } = runtime(["list", flag]);
    expect(status).toBe(1);
    expect(stdout.split("\n")[0]).toBe(`Incorrect Usage: ${says}`);
    expect(stderr).toContain(JSON.stringify(says).slice(1, -1));
  }
  expect(runtime(["nosuch", "-h"])).toMatchObject({
    status: 3,
    stderr: expect.stringContaining("No help topic for 'nosuch'"),
  });
});

test("a pid file that cannot be written leaves no container", () => {
  const bundle = makeBundle();
  for (const verb of ["create", "run"]) {
    expect(runtime([verb, "--bundle", bundle.path, "--pid-file", "/no/such/file", bundle.id])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/open \/no\/such\/file\S*: no such file or directory/),
    });
    expect(runtime(["state", bundle.id]).status).toBe(1);
  }
});

test("a console socket is refused where nothing is sent to it", () => {
  const bundle = makeBundle((spec) => {
    spec.process.terminal = true;
  });
  expect(runtime(["run", "--bundle", bundle.path, "--console-socket", "/no/such", bundle.id])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("cannot use console socket if runc will not detach or allocate tty"),
  });
});
