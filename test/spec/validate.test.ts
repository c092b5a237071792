import { describe, expect, test } from "vitest";
import type { Linux, Mount, Spec } from "../../src/spec/spec.ts";
import { validate, warningsOf } from "../../src/spec/validate.ts";
import { covers } from "../conformance/covers.ts";
import { everything } from "./everything.ts";

const lines = (faults: { pointer: string; message: string }[]) =>
  faults.map(({ pointer, message }) => `${pointer} ${message}`);
const spec = (part: Partial<Spec>): Spec => ({ ociVersion: "1.0.0", ...part });
const linux = (part: Linux) => lines(validate(spec({ linux: part })));
const mount = (part: Partial<Mount>, linux: Linux = {}) =>
  lines(validate(spec({ mounts: [{ destination: "/a", ...part }], linux })));
const mapping = [{ containerID: 0, hostID: 1000, size: 1 }];

describe("what would change the host needs a namespace", () => {
  test.each<[string, string[], string]>([
    ["a host name", lines(validate(spec({ hostname: "a" }))), "/hostname needs a namespace of type uts"],
    ["a domain name", lines(validate(spec({ domainname: "a" }))), "/domainname needs a namespace of type uts"],
    ["uid mappings", linux({ uidMappings: mapping }), "/linux/uidMappings needs a namespace of type user"],
    ["gid mappings", linux({ gidMappings: mapping }), "/linux/gidMappings needs a namespace of type user"],
    [
      "time offsets",
      linux({ timeOffsets: { boottime: { secs: 1 } } }),
      "/linux/timeOffsets needs a namespace of type time",
    ],
    ["network devices", linux({ netDevices: { eth0: {} } }), "/linux/netDevices needs a namespace of type network"],
    ["masked paths", linux({ maskedPaths: ["/a"] }), "/linux/maskedPaths needs a namespace of type mount"],
    ["read-only paths", linux({ readonlyPaths: ["/a"] }), "/linux/readonlyPaths needs a namespace of type mount"],
    [
      "a setting of the network",
      linux({ sysctl: { "net.ipv4.ip_forward": "1" } }),
      "/linux/sysctl/net.ipv4.ip_forward needs a namespace of type network",
    ],
    [
      "a setting with slashes",
      linux({ sysctl: { "net/ipv4/ip_forward": "1" } }),
      "/linux/sysctl/net~1ipv4~1ip_forward needs a namespace of type network",
    ],
    [
      "a setting of messages",
      linux({ sysctl: { "kernel.shmmax": "1" } }),
      "/linux/sysctl/kernel.shmmax needs a namespace of type ipc",
    ],
    [
      "a setting of message queues",
      linux({ sysctl: { "fs.mqueue.msg_max": "1" } }),
      "/linux/sysctl/fs.mqueue.msg_max needs a namespace of type ipc",
    ],
    [
      "a setting of users",
      linux({ sysctl: { "user.max_pid_namespaces": "1" } }),
      "/linux/sysctl/user.max_pid_namespaces needs a namespace of type user",
    ],
  ])("%s", (_, faults, expected) => {
    expect(faults).toEqual([`${expected} in /linux/namespaces`]);
  });

  test("and with the namespaces it is sound", () => {
    expect(validate(everything(), { runnable: true })).toEqual([]);
  });

  test("joined ones count", () => {
    expect(validate(spec({ hostname: "a", linux: { namespaces: [{ type: "uts", path: "/proc/1/ns/uts" }] } }))).toEqual(
      [],
    );
  });
});

describe("settings of the whole machine", () => {
  test.each(["kernel.panic", "vm.swappiness", "fs.file-max", "kernel/core_pattern", "netfilter.x"])(
    "%s is refused",
    (name) => {
      const namespaces = everything().linux?.namespaces ?? [];
      expect(linux({ namespaces, uidMappings: mapping, gidMappings: mapping, sysctl: { [name]: "1" } })).toEqual([
        `/linux/sysctl/${name.replace("/", "~1")} is a setting of the whole machine: no namespace holds it`,
      ]);
    },
  );

  test("the host name is not one, but has its field", () => {
    expect(
      linux({ namespaces: [{ type: "uts" }], sysctl: { "kernel.hostname": "a", "kernel.domainname": "b" } }),
    ).toEqual(["/linux/sysctl/kernel.hostname has a field of its own: /hostname"]);
  });
});

test("a new user namespace needs both mappings or none, a joined one none", () => {
  expect(linux({ namespaces: [{ type: "user" }], uidMappings: mapping }).map((line) => line.split(" ")[0])).toEqual([
    "/linux/gidMappings",
  ]);
  expect(linux({ namespaces: [{ type: "user" }] })).toEqual([]);
  expect(linux({ namespaces: [{ type: "user", path: "/proc/1/ns/user" }] })).toEqual([]);
});

describe("mounts", () => {
  test.each<[string, string[], string[]]>([
    [
      "user ids alone are mapped",
      mount({ source: "/b", options: ["bind"], uidMappings: mapping }),
      ["/mounts/0/gidMappings is required: user and group ids are mapped together"],
    ],
    [
      "group ids alone are mapped",
      mount({ source: "/b", options: ["bind"], gidMappings: mapping }),
      ["/mounts/0/uidMappings is required: user and group ids are mapped together"],
    ],
    [
      "ids are mapped on a new file system",
      mount({ type: "tmpfs", uidMappings: mapping, gidMappings: mapping }),
      ["/mounts/0/options must have bind or rbind for mapped ids"],
    ],
    [
      "ids are mapped as nowhere",
      mount({ source: "/b", options: ["bind", "ridmap"] }),
      ["/mounts/0/options has ridmap, which needs mappings or a user namespace"],
    ],
    ["a bind mount has no source", mount({ options: ["rbind"] }), ["/mounts/0/source is required for a bind mount"]],
    ["a bind mount is remounted", mount({ options: ["bind", "remount", "ro"] }), []],
    ["both are mapped", mount({ source: "/b", options: ["bind"], uidMappings: mapping, gidMappings: mapping }), []],
    [
      "ids are mapped as in the user namespace",
      mount(
        { source: "/b", options: ["bind", "idmap"] },
        { namespaces: [{ type: "user" }], uidMappings: mapping, gidMappings: mapping },
      ),
      [],
    ],
  ])("%s", (_, faults, expected) => {
    expect(faults).toEqual(expected);
  });
});

test("what is to run needs a root, a process and a program", () => {
  expect(lines(validate(spec({}), { runnable: true }))).toEqual(["/root is required", "/process is required"]);
  expect(lines(validate(spec({ root: { path: "r" }, process: { cwd: "/", args: [] } }), { runnable: true }))).toEqual([
    "/process/args must name the program to run",
  ]);
  expect(validate(spec({}))).toEqual([]);
});

test("what has no effect is warned about", () => {
  covers("process.capabilities unknown", "linux.personality.flags", "linux.resources.memory.kernel");
  const odd = spec({
    mounts: [{ destination: "/a" }, { destination: "b" }],
    process: { cwd: "/", capabilities: { bounding: ["CAP_KILL", "CAP_FLY"], ambient: ["cap_kill"] } },
    linux: {
      namespaces: [
        { type: "time", path: "/t" },
        { type: "user", path: "/u" },
      ],
      timeOffsets: { monotonic: { secs: 1 } },
      uidMappings: mapping,
      personality: { domain: "LINUX", flags: ["X"] },
      resources: { memory: { kernel: 1 } },
    },
  });
  expect(lines(warningsOf(odd))).toEqual([
    "/mounts/1/destination is relative: taken as relative to /",
    '/process/capabilities/bounding/1 "CAP_FLY" is unknown and ignored',
    '/process/capabilities/ambient/0 "cap_kill" is unknown and ignored',
    "/linux/personality/flags are ignored: the specification defines none",
    "/linux/resources/memory/kernel is ignored: Linux has no such limit any more",
    "/linux/timeOffsets are ignored: the clocks of a joined namespace are set already",
    "/linux/uidMappings is ignored: the joined user namespace has its own",
  ]);
  expect(warningsOf(spec({}))).toEqual([]);
});
