import { expect, test } from "vitest";
import { compile } from "../../src/plan/compile.ts";
import type { Definition } from "../../src/plan/definition.ts";
import { markdownNotes, renderNotes } from "../../src/plan/explain.ts";
import type { Host } from "../../src/plan/host.ts";
import { type Note, notes } from "../../src/plan/note.ts";
import type { Spec } from "../../src/spec/spec.ts";
import { template } from "../../src/spec/template.ts";
import { HOSTS } from "./examples.ts";

type Linux = NonNullable<Spec["linux"]>;

function definitionOf(spec: Spec, more: Partial<Definition> = {}): Definition {
  return { id: "c", spec, bundle: "/bundle", start: "now", preserved: 0, ...more };
}

function noted(
  host: Host,
  edit: (spec: Spec & { linux: Linux }) => void = () => undefined,
  more = {},
  files = "",
): Note[] {
  const { linux = {}, ...spec } = template(host.rootless === undefined ? {} : { rootless: host.rootless });
  const whole = { ...spec, linux };
  edit(whole);
  const definition = definitionOf(whole, more);
  const plan = compile(definition, host);
  const found = notes(definition, host, plan, files);
  for (const { steps } of found) for (const step of steps) expect(plan[step]).toBeDefined();
  return found;
}

const about = (found: Note[], from: string) => found.filter((note) => note.from === from);

test("version 2 of cgroups has other files and scales, and a program for devices", () => {
  const found = noted(HOSTS.v2, ({ linux }) => {
    linux.resources = { cpu: { shares: 512 }, memory: { limit: 1 << 26, swap: 1 << 27 } };
  });
  expect(about(found, "/spec/linux/resources/cpu/shares")).toMatchObject([
    { kind: "replaced", says: expect.stringMatching(/^it becomes \d+ in cpu\.weight$/), steps: [expect.any(Number)] },
  ]);
  expect(about(found, "/spec/linux/resources/memory/swap")).toMatchObject([
    { says: `it becomes ${1 << 26} in memory.swap.max`, because: expect.stringContaining("version 2") },
  ]);
  expect(about(found, "/spec/linux/resources/devices")).toMatchObject([{ says: expect.stringContaining("eBPF") }]);
  expect(about(found, "/spec/linux/cgroupsPath")).toEqual([]);
  expect(found.some(({ says }) => says.includes("cgroup2 filesystem"))).toBe(true);
});

test("a filter has no rules for calls and architectures that this machine lacks", () => {
  const [architecture, elsewhere, nowhere, ...others] = about(
    noted(HOSTS.v2, ({ linux }) => {
      linux.seccomp = {
        defaultAction: "SCMP_ACT_ALLOW",
        architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_S390X"],
        syscalls: [{ names: ["read", "s390_sthyi", "raed"], action: "SCMP_ACT_ERRNO" }],
      };
    }),
    "/spec/linux/seccomp",
  );
  expect(architecture).toMatchObject({ kind: "skipped", says: "nothing is filtered for SCMP_ARCH_S390X" });
  expect(elsewhere).toMatchObject({ says: "there is no rule for s390_sthyi", steps: [expect.any(Number)] });
  expect(nowhere).toMatchObject({ says: "there is no rule for raed", because: expect.stringContaining("no Linux") });
  expect(others).toEqual([]);
});

test("version 1 has other files, lists for devices, and nobody is born into it", () => {
  const found = noted(HOSTS.v1, (spec) => {
    spec.linux.resources = { memory: { limit: 1 << 26 } };
    spec.process = { cwd: "/", args: ["x"], apparmorProfile: "unconfined" };
  });
  expect(about(found, "/spec/linux/resources")).toMatchObject([
    { because: "memory is mounted as version 1 here", steps: [expect.any(Number)] },
  ]);
  expect(about(found, "/spec/linux/resources/devices")).toMatchObject([
    { says: expect.stringContaining("devices.allow") },
  ]);
  expect(about(found, "/spec/linux/cgroupsPath")).toMatchObject([
    { because: expect.stringContaining("CLONE_INTO_CGROUP") },
  ]);
  expect(about(found, "/spec/process/apparmorProfile")).toMatchObject([
    {
      kind: "skipped",
      says: expect.stringContaining("unconfined"),
      because: expect.stringContaining("without AppArmor"),
    },
  ]);
});

test("an ordinary user's container has less, and what it has in other ways", () => {
  const found = noted(HOSTS.rootless, (spec) => {
    spec.linux.namespaces = (spec.linux.namespaces ?? []).filter(({ type }) => type !== "network");
    spec.mounts?.push({ destination: "/sys", type: "sysfs", source: "sysfs" });
    spec.linux.resources = { devices: [{ allow: false, access: "rwm" }] };
    spec.linux.uidMappings = [
      { containerID: 0, hostID: 1000, size: 1 },
      { containerID: 1, hostID: 100_000, size: 10 },
    ];
  });
  const says = found.map(({ kind, says: text }) => `${kind}: ${text}`).join("\n");
  expect(says).toMatch(/^replaced: \/sys is the host's \/sys bound, and no sysfs of its own$/m);
  expect(says).toMatch(/^replaced: init clones root, bind mounts and devices inside/m);
  expect(says).toMatch(/^skipped: no cgroup is made in \/sys\/fs\/cgroup$/m);
  expect(says).toMatch(/^skipped: the rules for devices are not put into force$/m);
  expect(says).toMatch(/^replaced: devices are the host's own, bound/m);
  expect(says).toMatch(/^replaced: newuidmap and newgidmap/m);
  expect(says).toMatch(/^skipped: the caller's groups stay/m);
});

test("systemd makes the cgroup where it is asked to", () => {
  const found = noted({ ...HOSTS.v2, systemd: { version: 252, controlGroup: "", user: false } });
  expect(about(found, "/spec/linux/cgroupsPath")).toMatchObject([{ says: expect.stringContaining("systemd makes") }]);
});

test("capabilities that the runtime does not have are not granted", () => {
  const found = noted({ ...HOSTS.v2, lacking: ["CAP_KILL"] });
  expect(about(found, "/spec/process/capabilities/bounding/1")).toEqual([
    {
      kind: "skipped",
      says: "CAP_KILL is not granted",
      because: "the runtime itself does not have it",
      from: "/spec/process/capabilities/bounding/1",
      steps: [],
    },
  ]);
});

test.each([
  ["aufs", "nodev\toverlay\n", /joined by aufs.*refused for this data directory/],
  ["vfs", "nodev\ttmpfs\n", /copied into one directory.*the kernel has no overlay/],
] as const)("layers that %s joins are not joined by overlay", (driver, filesystems, says) => {
  const root = { layers: ["/layer"], container: "/c", driver };
  const found = about(
    noted(HOSTS.v2, () => undefined, { root }, filesystems),
    "/root",
  );
  expect(found.map((note) => `${note.says}: ${note.because}`).join()).toMatch(says);
  expect(
    about(
      noted(HOSTS.v2, () => undefined, { root: { ...root, driver: "overlay" } }),
      "/root",
    ),
  ).toEqual([]);
});

test("they stand below the steps, in words and in Markdown", () => {
  const note: Note = {
    kind: "skipped",
    says: "a <b> is left out",
    because: "of c",
    from: "/spec/linux/x",
    steps: [1, 2, 3, 7],
  };
  expect(renderNotes([note])).toBe(
    "\nON THIS HOST\n   skipped  a <b> is left out  /linux/x\n            because of c (steps 1 to 3, 7)\n",
  );
  expect(markdownNotes([note])).toBe(
    "\n## On this host\n\n- **skipped**: a \\<b\\> is left out, because of c `/linux/x` (steps 1 to 3, 7)\n",
  );
  expect(renderNotes([]) + markdownNotes([])).toBe("");
});
