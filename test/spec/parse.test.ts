import { describe, expect, test } from "vitest";
import { ContainerError } from "../../src/error.ts";
import { faultsOf, parse, parseProcess, parseResources } from "../../src/spec/parse.ts";
import { everything, toJson } from "./everything.ts";

function refusal(work: () => unknown): ContainerError {
  try {
    work();
  } catch (error) {
    if (error instanceof ContainerError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

/** Everything, with one part replaced, and the faults found in it: "pointer message". */
function faultsWith(change: (spec: ReturnType<typeof everything>) => unknown): string[] {
  const spec = everything();
  change(spec);
  try {
    parse(toJson(spec));
    return [];
  } catch (error) {
    return faultsOf(error).map(({ pointer, message }) => `${pointer} ${message}`);
  }
}

const linux = (part: object) => faultsWith((spec) => Object.assign(spec.linux ?? {}, part));
const ofProcess = (part: object) => faultsWith((spec) => Object.assign(spec.process ?? {}, part));

describe("a sound document", () => {
  test("keeps every field", () => {
    expect(parse(toJson(everything()))).toEqual(everything());
  });

  test("may come as UTF-8, with a byte order mark, too", () => {
    const bytes = new TextEncoder().encode(`\ufeff${toJson({ ...everything(), hostname: "käfig" })}`);
    expect(parse(bytes).hostname).toBe("käfig");
  });

  test("keeps all digits of 64-bit numbers", () => {
    const json = `{"ociVersion":"1.0.0","process":{"cwd":"/","rlimits":[
      {"type":"RLIMIT_CORE","soft":9007199254740993,"hard":18446744073709551615}]},
      "linux":{"resources":{"memory":{"limit":-9223372036854775808,"swap":9007199254740991}}}}`;
    const { process, linux } = parse(json);
    expect(process?.rlimits).toEqual([{ type: "RLIMIT_CORE", soft: 9007199254740993n, hard: 18446744073709551615n }]);
    expect(linux?.resources?.memory).toEqual({ limit: -9223372036854775808n, swap: 9007199254740991 });
  });

  test("keeps long numbers apart from strings that look like them", () => {
    const digits = "12345678901234567890";
    const spec = parse(
      `{"ociVersion":"1.0.0","annotations":{"${digits}":"a\\"${digits}","b":"[${digits}]"},"x":-${digits}}`,
    );
    expect(spec.annotations).toEqual({ [digits]: `a"${digits}`, b: `[${digits}]` });
    expect(faultsWith((spec) => Object.assign(spec, { hostname: 12345678901234567890n }))).toEqual([
      "/hostname must be a string, not 12345678901234567890",
    ]);
  });

  test("loses what the specification does not know", () => {
    const json = toJson({
      ...everything(),
      windows: { x: 1 },
      extra: null,
      process: { ...everything().process, commandLine: 5 },
    });
    expect(parse(json)).toEqual(everything());
  });

  test("has nothing where a document has null, and needs what it needs", () => {
    const { process, linux } = parse(
      '{"ociVersion":"1.0.0","root":null,"mounts":null,"hooks":{"prestart":null},"linux":{"timeOffsets":null,"seccomp":null,"namespaces":[{"type":"time","path":null}]},"process":{"cwd":"/","env":null,"user":{"uid":0,"gid":0,"umask":null}}}',
    );
    expect(process).toEqual({ cwd: "/", user: { uid: 0, gid: 0 } });
    expect(linux).toEqual({ namespaces: [{ type: "time" }] });
    expect(faultsWith((spec) => Object.assign(spec, { ociVersion: null }))).toEqual(["/ociVersion is required"]);
    expect(faultsWith((spec) => Object.assign(spec, { mounts: [null], annotations: { a: null } }))).toEqual([
      "/mounts/0 must be an object, not null",
      "/annotations/a must be a string, not null",
    ]);
  });

  test("cannot reach a prototype", () => {
    const spec = parse(
      '{"ociVersion":"1.0.0","__proto__":{"hostname":"a"},"annotations":{"__proto__":"b","constructor":"c"}}',
    );
    expect(spec.hostname).toBeUndefined();
    expect(Object.entries(spec.annotations ?? {})).toEqual([
      ["__proto__", "b"],
      ["constructor", "c"],
    ]);
    expect(Object.getPrototypeOf({})).not.toHaveProperty("hostname");
  });
});

describe("an unsound document", () => {
  test("has all its faults listed at once, each with its pointer", () => {
    const error = refusal(() =>
      parse(
        `{"process":{"args":["a",1],"rlimits":[{"type":"RLIMIT_CORE","soft":2,"hard":1}]},
          "linux":{"sysctl":{"a/b.~c":2},"namespaces":[{"type":"pid"},{"type":"pid"}]}}`,
        { path: "/b/config.json" },
      ),
    );
    expect(error.code).toBe("ERR_SPEC");
    expect(error.message.split("\n")).toEqual([
      "cannot use /b/config.json, it has 6 faults:",
      "  /process/args/1 must be a string, not 1",
      "  /process/rlimits/0/soft must not exceed the hard limit 1",
      "  /process/cwd is required",
      "  /linux/sysctl/a~1b.~0c must be a string, not 2",
      '  /linux/namespaces/1/type "pid" is there twice',
      "  /ociVersion is required",
    ]);
    expect(faultsOf(error)[3]).toEqual({ pointer: "/linux/sysctl/a~1b.~0c", message: "must be a string, not 2" });
  });

  test("with one fault is told in one line", () => {
    const error = refusal(() => parse('{"ociVersion":"1.0.0","hostname":5}'));
    expect(error.message).toBe("cannot use config.json: /hostname must be a string, not 5");
    expect(faultsOf(error)).toEqual([{ pointer: "/hostname", message: "must be a string, not 5" }]);
  });

  test("cannot write control characters to a terminal", () => {
    const error = refusal(() => parse('{"ociVersion":"\\u001b[2J","annotations":{"\\u001b[2J\\n":1}}'));
    expect(error.message).not.toMatch(/[^\n -~]/);
    expect(refusal(() => parse("{\u001b[2J\u009b")).message).not.toMatch(/\p{Cc}/u);
  });

  test.each(["", "{", "null", "[]", "5", '"x"', '{"ociVersion":"1.0.0",}', "\ufeff\ufeff{}"])(
    "is refused: %j",
    (json) => {
      expect(refusal(() => parse(json)).code).toBe("ERR_SPEC");
    },
  );

  test("is refused if it is not UTF-8", () => {
    expect(refusal(() => parse(Uint8Array.of(0x7b, 0xff, 0x7d))).message).toMatch(/JSON in UTF-8/);
  });

  test("stays unsound where a long number makes it", () => {
    for (const json of ['{"a": "1234567890123456}', '{"a": 0001234567890123456}', "{1234567890123456: 1}"])
      expect(refusal(() => parse(json)).message).toMatch(/must be JSON/);
  });

  test("of more than 16 MiB is refused unread", () => {
    const json = `{"ociVersion":"1.0.0","x":"${"x".repeat(16 * 1024 * 1024)}"}`;
    expect(refusal(() => parse(json)).message).toMatch(/at most 16 MiB/);
  });

  test("of great depth does no harm", () => {
    const depth = 200_000;
    const deep = `${"[".repeat(depth)}${"]".repeat(depth)}`;
    expect(parse(`{"ociVersion":"1.0.0","unknown":${deep}}`)).toEqual({ ociVersion: "1.0.0" });
    expect(refusal(() => parse(`{"ociVersion":"1.0.0","mounts":${deep}}`)).message).toMatch(
      /\/mounts\/0 must be an object/,
    );
  });

  test("with very many faults has the first hundred listed", () => {
    const json = JSON.stringify({ ociVersion: "1.0.0", mounts: Array(500).fill(1) });
    expect(faultsOf(refusal(() => parse(json)))).toHaveLength(100);
  });
});

describe("refused, because Linux could not do it", () => {
  const NUL = "must not contain a NUL character: the kernel would stop reading there";
  test.each<[string, string[], string[]]>([
    ["NUL in an argument", ofProcess({ args: ["a\0b"] }), [`/process/args/0 ${NUL}`]],
    ["a relative cwd", ofProcess({ cwd: "tmp" }), ['/process/cwd must be an absolute path, not "tmp"']],
    ["a variable without =", ofProcess({ env: ["A"] }), ['/process/env/0 must have the form NAME=value, not "A"']],
    ["a variable without name", ofProcess({ env: ["=A"] }), ['/process/env/0 must have the form NAME=value, not "=A"']],
    [
      "the user −1",
      ofProcess({ user: { uid: 4294967295 } }),
      ["/process/user/uid must be from 0 to 4294967294, not 4294967295"],
    ],
    [
      "a rlimit twice",
      ofProcess({ rlimits: Array(2).fill({ type: "RLIMIT_AS", soft: 1, hard: 1 }) }),
      ['/process/rlimits/1/type "RLIMIT_AS" is there twice'],
    ],
    [
      "an adjustment of 1001",
      ofProcess({ oomScoreAdj: 1001 }),
      ["/process/oomScoreAdj must be from -1000 to 1000, not 1001"],
    ],
    [
      "a FIFO policy without priority",
      ofProcess({ scheduler: { policy: "SCHED_FIFO" } }),
      ["/process/scheduler/priority must be from 1 to 99 for SCHED_FIFO"],
    ],
    [
      "a priority without need",
      ofProcess({ scheduler: { policy: "SCHED_BATCH", priority: 1 } }),
      ["/process/scheduler/priority must be 0 for SCHED_BATCH"],
    ],
    [
      "times of SCHED_DEADLINE that it cannot keep",
      ofProcess({ scheduler: { policy: "SCHED_DEADLINE", runtime: 3000, deadline: 2000, period: 1000 } }),
      [
        "/process/scheduler/deadline must be at least the runtime 3000",
        "/process/scheduler/period must be at least the deadline 2000",
      ],
    ],
    [
      "SCHED_DEADLINE without its times",
      ofProcess({ scheduler: { policy: "SCHED_DEADLINE" } }),
      ["/process/scheduler/runtime must be at least 1024 ns for SCHED_DEADLINE"],
    ],
    ...["3-1", "1-", "-", "-1", "0-", "0 1", "1-2-3", "0-99999999999", "99999"].map(
      (list): [string, string[], string[]] => [
        `the CPU list ${list}`,
        ofProcess({ execCPUAffinity: { final: `0,${list}` } }),
        [`/process/execCPUAffinity/final must be a list of CPUs such as "0-3,7", not "0,${list}"`],
      ],
    ),
    [
      "a deadline without need",
      ofProcess({ scheduler: { policy: "SCHED_OTHER", deadline: 1 } }),
      ["/process/scheduler/deadline is only for SCHED_DEADLINE, not for SCHED_OTHER"],
    ],
    [
      "a very long path",
      linux({ namespaces: [{ type: "network", path: `/${"a".repeat(70_000)}` }] }).slice(0, 1),
      ["/linux/namespaces/0/path must be shorter than 4096 bytes"],
    ],
    [
      "an empty mapping",
      linux({ uidMappings: [{ containerID: 0, hostID: 0, size: 0 }] }),
      ["/linux/uidMappings/0/size must be at least 1"],
    ],
    [
      "a mapping that wraps",
      linux({ uidMappings: [{ containerID: 1, hostID: 0, size: 4294967295 }] }),
      ["/linux/uidMappings/0/size must not reach beyond id 4294967294"],
    ],
    [
      "mappings that overlap",
      linux({
        gidMappings: [
          { containerID: 0, hostID: 5, size: 10 },
          { containerID: 9, hostID: 50, size: 1 },
        ],
      }),
      ["/linux/gidMappings/1/containerID overlaps with an earlier mapping"],
    ],
    [
      "a relative device",
      linux({ devices: [{ type: "c", path: "dev/x" }] }),
      ['/linux/devices/0/path must be an absolute path, not "dev/x"'],
    ],
    [
      "a way out of the cgroup",
      linux({ cgroupsPath: "/a/../../b" }),
      ['/linux/cgroupsPath must not contain "..": "/a/../../b"'],
    ],
    [
      "a way out by the slice",
      linux({ cgroupsPath: "..:a:b" }),
      ['/linux/cgroupsPath must not contain "..": "..:a:b"'],
    ],
    [
      "a way out by unified",
      linux({ resources: { unified: { "../x": "1" } } }),
      ['/linux/resources/unified/..~1x must be a file name, not "../x"'],
    ],
    [
      "a way out by closID",
      linux({ intelRdt: { closID: ".." } }),
      ['/linux/intelRdt/closID must be a file name, not ".."'],
    ],
    [
      "a way out by sysctl",
      linux({ sysctl: { "net//../kernel": "1" } }),
      ["/linux/sysctl/net~1~1..~1kernel must be the name of a setting below /proc/sys"],
    ],
    [
      "an unknown device rule",
      linux({ resources: { devices: [{ allow: true, type: "x", access: "q" }] } }),
      [
        '/linux/resources/devices/0/type must be "a", "b" or "c", not "x"',
        '/linux/resources/devices/0/access must be of the letters "r", "w" and "m", not "q"',
      ],
    ],
    [
      "an interface of 16 letters",
      linux({ netDevices: { a: { name: "0123456789abcdef" } } }),
      ['/linux/netDevices/a/name must be the name of a network interface, not "0123456789abcdef"'],
    ],
    [
      "two interfaces of one name",
      linux({ netDevices: { a: { name: "c" }, b: { name: "c" } } }),
      ['/linux/netDevices/b/name "c" is there twice'],
    ],
    [
      "metadata for nobody",
      linux({ seccomp: { defaultAction: "SCMP_ACT_KILL", listenerMetadata: "a" } }),
      ["/linux/seccomp/listenerMetadata must not be there without listenerPath"],
    ],
    [
      "an errno for ALLOW",
      linux({ seccomp: { defaultAction: "SCMP_ACT_ALLOW", defaultErrnoRet: 1 } }),
      ["/linux/seccomp/defaultErrnoRet must not be there with SCMP_ACT_ALLOW"],
    ],
    [
      "an errno of 4096",
      linux({ seccomp: { defaultAction: "SCMP_ACT_ERRNO", defaultErrnoRet: 4096 } }),
      ["/linux/seccomp/defaultErrnoRet must be at most 4095, not 4096"],
    ],
    [
      "notification of everything",
      linux({ seccomp: { defaultAction: "SCMP_ACT_NOTIFY", listenerPath: "/a" } }),
      ["/linux/seccomp/defaultAction must not be SCMP_ACT_NOTIFY"],
    ],
    [
      "notification of nobody",
      linux({ seccomp: { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: ["a"], action: "SCMP_ACT_NOTIFY" }] } }),
      ["/linux/seccomp/listenerPath is required for SCMP_ACT_NOTIFY"],
    ],
    [
      "a policy without nodes",
      linux({ memoryPolicy: { mode: "MPOL_BIND" } }),
      ["/linux/memoryPolicy/nodes is required for MPOL_BIND"],
    ],
    [
      "nodes for a policy without",
      linux({ memoryPolicy: { mode: "MPOL_LOCAL", nodes: "0" } }),
      ["/linux/memoryPolicy/nodes must be empty for MPOL_LOCAL"],
    ],
    [
      "a version of tomorrow",
      faultsWith((spec) => Object.assign(spec, { ociVersion: "2.0.0" })),
      ['/ociVersion must be a version from 1.0.0 to before 2.0.0, not "2.0.0"'],
    ],
    [
      "a hook to be looked up",
      faultsWith((spec) => Object.assign(spec, { hooks: { poststop: [{ path: "x" }] } })),
      ['/hooks/poststop/0/path must be an absolute path, not "x"'],
    ],
    [
      "a name of 65 letters",
      faultsWith((spec) => Object.assign(spec, { hostname: "a".repeat(65) })),
      ["/hostname must not be longer than 64 bytes"],
    ],
  ])("%s", (_, faults, expected) => {
    expect(faults).toEqual(expected);
  });
});

describe("accepted, because clients send it", () => {
  test.each<[string, string[]]>([
    ["a version of a release candidate", faultsWith((spec) => Object.assign(spec, { ociVersion: "1.0.2-dev" }))],
    ["a device's st_mode", linux({ devices: [{ type: "c", path: "/dev/null", fileMode: 8630 }] })],
    ["a device whose minor number 0 was left out", linux({ devices: [{ type: "b", path: "/dev/sda", major: 8 }] })],
    ['a device rule of the type ""', linux({ resources: { devices: [{ allow: false, type: "", access: "" }] } })],
  ])("%s", (_, faults) => {
    expect(faults).toEqual([]);
  });
});

describe("parts on their own", () => {
  test("a process for exec needs a program", () => {
    expect(parseProcess('{"cwd":"/","args":["sh"]}')).toEqual({ cwd: "/", args: ["sh"] });
    expect(refusal(() => parseProcess('{"cwd":"/"}', { path: "p.json" })).message).toBe(
      "cannot use p.json: /args must name the program to run",
    );
  });

  test("resources for update", () => {
    expect(parseResources('{"pids":{"limit":-1}}')).toEqual({ pids: { limit: -1 } });
    expect(refusal(() => parseResources('{"pids":{}}')).message).toBe(
      "cannot use config.json: /pids/limit is required",
    );
  });

  test("other errors have no faults", () => {
    expect(faultsOf(new Error("x"))).toEqual([]);
    expect(faultsOf(new ContainerError({ message: "x", code: "ENOENT", cause: [] }))).toEqual([]);
  });
});
