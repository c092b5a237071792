import { absentFrom } from "../seccomp/compile.ts";
import { isSyscallName } from "../seccomp/syscalls.ts";
import { withheldCapabilities } from "./capabilities.ts";
import { containerCgroups } from "./cgroup.ts";
import { cgroupDirectories } from "./cgroup-layout.ts";
import type { Definition } from "./definition.ts";
import type { Host } from "./host.ts";
import { bindSharedViews } from "./rootless.ts";
import type { Plan, Step, StepName } from "./step.ts";

/** What this host makes of a definition that another host would do otherwise. */
export interface Note {
  /** "skipped": not done at all; "replaced": done in another way. */
  kind: "skipped" | "replaced";
  /** One sentence: what was asked, and what is done instead. */
  says: string;
  /** What it is about this host. */
  because: string;
  /** JSON pointer into the definition. */
  from: string;
  /** The steps that do it instead, by their places in the plan. */
  steps: number[];
}

/**
 * What is skipped or replaced on this host, and why: read off the plan that was made, so that it says what is done.
 * @param filesystems text of /proc/filesystems
 */
export function notes(definition: Definition, host: Host, plan: Plan, filesystems = ""): Note[] {
  return [
    ...layers(plan, filesystems),
    ...sharedViews(definition, host, plan),
    ...rootlessTrees(host, plan),
    ...cgroupsLeftOut(definition, host),
    ...systemd(plan),
    ...limits(plan, host),
    ...deviceRules(definition, host, plan),
    ...birth(plan, host),
    ...cgroupMounts(definition, host, plan),
    ...devices(plan, host),
    ...helpers(plan),
    ...groups(plan),
    ...labels(definition, host),
    ...filter(definition, host, plan),
    ...capabilities(definition, host),
  ];
}

/** Places of steps in a plan. */
function places(plan: Plan, wanted: (step: Step) => boolean): number[] {
  return plan.flatMap((step, at) => (wanted(step) ? [at] : []));
}

const named =
  (...names: StepName[]) =>
  ({ name }: Step) =>
    names.includes(name);

const USER_NAMESPACE = "the container's root belongs to a user namespace";

function layers(plan: Plan, filesystems: string): Note[] {
  const [at] = places(plan, named("mountUnion"));
  const step = at === undefined ? undefined : plan[at];
  if (at === undefined || step?.name !== "mountUnion" || step.args.driver === "overlay") return [];
  const known = filesystems.split("\n").some((line) => line.endsWith("\toverlay"));
  const { driver } = step.args;
  return [
    {
      kind: "replaced",
      says: `the layers are ${driver === "aufs" ? "joined by aufs" : "copied into one directory (vfs)"}, not by overlay`,
      because: known
        ? "the kernel has overlay (/proc/filesystems), but it was refused for this data directory: on an overlay or without extended attributes it cannot write"
        : "the kernel has no overlay: /proc/filesystems does not list it",
      from: "/root",
      steps: [at],
    },
  ];
}

function sharedViews({ spec }: Definition, host: Host, plan: Plan): Note[] {
  const { mounts = [] } = bindSharedViews(spec, host);
  return (spec.mounts ?? []).flatMap((mount, index): Note[] => {
    const bound = mounts[index];
    if (bound === undefined || bound.type === mount.type) return [];
    const from = `/spec/mounts/${index}`;
    return [
      {
        kind: "replaced",
        says: `${mount.destination} is the host's ${bound.source} bound, and no ${mount.type} of its own`,
        because: `a ${mount.type} shows a namespace, which here is the host's, and ${USER_NAMESPACE}, which has no power over it`,
        from,
        steps: places(plan, (step) => step.from === from),
      },
    ];
  });
}

function rootlessTrees({ rootless }: Host, plan: Plan): Note[] {
  const steps = places(plan, named("cloneOwn"));
  if (rootless === undefined || steps.length === 0) return [];
  return [
    {
      kind: "replaced",
      says: "init clones root, bind mounts and devices inside, and not the host outside",
      because: `the caller is ${rootless.uid === 0 ? "root of a user namespace" : `user ${rootless.uid}`}: only in a mount namespace of its own user namespace may it clone mounts`,
      from: "/spec/root",
      steps,
    },
  ];
}

function cgroupsLeftOut(definition: Definition, host: Host): Note[] {
  if (host.systemd !== undefined) return [];
  const made = containerCgroups(definition, host).map(({ path }) => path);
  const all = cgroupDirectories(host.cgroups, definition.spec.linux?.cgroupsPath, definition.id);
  const left = all.filter(({ path }) => !made.includes(path));
  if (left.length === 0) return [];
  return [
    {
      kind: "skipped",
      says: `no cgroup is made in ${left.map(({ hierarchy }) => hierarchy.mountPoint).join(", ")}`,
      because: "the caller may not write there: nothing of it was handed over (cgroups(7), delegation)",
      from: "/spec/linux/cgroupsPath",
      steps: [],
    },
  ];
}

function systemd(plan: Plan): Note[] {
  const steps = places(plan, named("startUnit"));
  if (steps.length === 0) return [];
  return [
    {
      kind: "replaced",
      says: "systemd makes the cgroup, as a scope, and sets the limits that it knows",
      because: "systemd was asked for: where it rules the tree of cgroups, nobody else should make any",
      from: "/spec/linux/cgroupsPath",
      steps,
    },
  ];
}

/** Limits that have another name or scale in the version of cgroups that is mounted: [the spec's name, the file]. */
const ON_VERSION_2: readonly [string, string, string][] = [
  ["/spec/linux/resources/cpu/shares", "cpu.weight", "shares go from 2 to 262144, weights from 1 to 10000"],
  ["/spec/linux/resources/cpu/quota", "cpu.max", "quota and period are one file there"],
  ["/spec/linux/resources/cpu/period", "cpu.max", "quota and period are one file there"],
  ["/spec/linux/resources/memory/swap", "memory.swap.max", "swap is counted by itself there, without memory"],
  ["/spec/linux/resources/memory/reservation", "memory.low", "the soft limit is a protection there"],
  ["/spec/linux/resources/blockIO/weight", "io.weight", "weights go from 1 to 10000 there, not from 10 to 1000"],
];

function limits(plan: Plan, { cgroups }: Host): Note[] {
  const writes = plan.flatMap((step, at) =>
    step.name === "writeCgroup" && /^\/spec\/linux\/resources\/(?!devices)/.test(step.from) ? [{ step, at }] : [],
  );
  const translated = ON_VERSION_2.flatMap(([from, file, because]): Note[] =>
    writes
      .filter(({ step }) => step.from === from && step.args.file === file)
      .map(({ step, at }) => ({
        kind: "replaced",
        says: `it becomes ${step.args.value} in ${file}`,
        because: `its controller is mounted as version 2: ${because}`,
        from,
        steps: [at],
      })),
  );
  const old = cgroups.hierarchies.filter(
    ({ version, mountPoint }) =>
      version === 1 && writes.some(({ step }) => step.args.directory.startsWith(`${mountPoint}/`)),
  );
  if (old.length === 0) return translated;
  const ofOld = writes.filter(({ step }) =>
    old.some(({ mountPoint }) => step.args.directory.startsWith(`${mountPoint}/`)),
  );
  return [
    ...translated,
    {
      kind: "replaced",
      says: "limits are written into the files of cgroup version 1, one hierarchy a controller",
      because: `${old.flatMap(({ controllers }) => controllers).join(", ")} ${old.length === 1 ? "is" : "are"} mounted as version 1 here${cgroups.mode === "hybrid" ? ", beside a hierarchy of version 2 that has no such controllers" : ""}`,
      from: "/spec/linux/resources",
      steps: ofOld.map(({ at }) => at),
    },
  ];
}

function deviceRules({ spec }: Definition, host: Host, plan: Plan): Note[] {
  const from = "/spec/linux/resources/devices";
  const filters = places(plan, named("filterDevices"));
  const files = places(plan, (step) => step.name === "writeCgroup" && step.args.file.startsWith("devices."));
  if (filters.length > 0)
    return [
      {
        kind: "replaced",
        says: "a program of the kernel's (eBPF) decides which devices may be opened, and no list of devices",
        because: "cgroup version 2 has no devices.allow",
        from,
        steps: filters,
      },
    ];
  if (files.length > 0)
    return [
      {
        kind: "replaced",
        says: "the lists devices.allow and devices.deny decide which devices may be opened, and no program of the kernel's (eBPF)",
        because: "the controller for devices is mounted as version 1",
        from,
        steps: files,
      },
    ];
  if (spec.linux?.resources?.devices === undefined) return [];
  return [
    {
      kind: "skipped",
      says: "the rules for devices are not put into force",
      because:
        host.rootless === undefined
          ? "there is no cgroup hierarchy that could hold them"
          : "only root of the host may restrict devices; the caller's containers can make none",
      from,
      steps: [],
    },
  ];
}

function birth(plan: Plan, { cgroups, systemd: managed }: Host): Note[] {
  const steps = places(plan, named("clone", "enterCgroup"));
  if (!plan.some(named("enterCgroup")) && !plan.some(named("clone"))) return [];
  const unified = plan.some(named("cloneInto"));
  const entering = places(plan, named("enterCgroup"));
  if (entering.length > 0)
    return [
      {
        kind: "replaced",
        says: `the first process enters its cgroups by itself, one after the other, and is ${unified ? "born in that of version 2 alone" : "born in none of them"}`,
        because:
          "CLONE_INTO_CGROUP of clone3(2) knows hierarchies of version 2 only, and those with the controllers are of version 1",
        from: "/spec/linux/cgroupsPath",
        steps: unified ? entering : steps,
      },
    ];
  if (unified || managed !== undefined) return [];
  return [
    {
      kind: "replaced",
      says: "the first process is made by a plain clone, and not born in a cgroup",
      because:
        cgroups.hierarchies.length === 0
          ? "no cgroup hierarchy is mounted"
          : "it has no cgroup of version 2 of its own",
      from: "/spec/linux/cgroupsPath",
      steps,
    },
  ];
}

function cgroupMounts({ spec }: Definition, { cgroups }: Host, plan: Plan): Note[] {
  return (spec.mounts ?? []).flatMap((mount, index): Note[] => {
    if (mount.type !== "cgroup") return [];
    const from = `/spec/mounts/${index}`;
    return [
      {
        kind: "replaced",
        says:
          cgroups.mode === "v2"
            ? `${mount.destination} is a cgroup2 filesystem`
            : `${mount.destination} is a tmpfs with one directory for each of ${cgroups.hierarchies.length} hierarchies`,
        because: `cgroups are ${{ v1: "of version 1", v2: "of version 2 alone", hybrid: "of both versions" }[cgroups.mode]} on this host`,
        from,
        steps: places(plan, (step) => step.from === from),
      },
    ];
  });
}

function devices(plan: Plan, { rootless }: Host): Note[] {
  const steps = places(plan, named("checkDevice"));
  if (steps.length === 0) return [];
  return [
    {
      kind: "replaced",
      says: "devices are the host's own, bound, after a look at their numbers; none is made",
      because: `mknod(2) needs CAP_MKNOD in the first user namespace, and ${rootless === undefined ? USER_NAMESPACE : "the caller has power in user namespaces only"}`,
      from: "/spec/linux/devices",
      steps,
    },
  ];
}

function helpers(plan: Plan): Note[] {
  const steps = places(plan, named("mapIdsByHelper"));
  if (steps.length === 0) return [];
  return [
    {
      kind: "replaced",
      says: "newuidmap and newgidmap, programs of root's, write the mappings",
      because: "who has no privileges may map but its own id; /etc/subuid and /etc/subgid lend the others",
      from: "/spec/linux/uidMappings",
      steps,
    },
  ];
}

function groups(plan: Plan): Note[] {
  const steps = places(plan, named("denySetgroups"));
  if (steps.length === 0) return [];
  return [
    {
      kind: "skipped",
      says: "the caller's groups stay, and nobody in the container can leave them",
      because: "setgroups(2) is denied in user namespaces that their maker mapped by himself (CVE-2014-8989)",
      from: "/spec/process/user/additionalGids",
      steps,
    },
  ];
}

function labels({ spec }: Definition, { apparmor }: Host): Note[] {
  const { apparmorProfile = "" } = spec.process ?? {};
  if (apparmorProfile === "" || apparmor) return [];
  return [
    {
      kind: "skipped",
      says: `the AppArmor profile ${apparmorProfile} is not asked for`,
      because:
        "this kernel runs without AppArmor (/sys/module/apparmor/parameters/enabled), where everything is unconfined",
      from: "/spec/process/apparmorProfile",
      steps: [],
    },
  ];
}

function filter({ spec }: Definition, { machine }: Host, plan: Plan): Note[] {
  const steps = places(plan, named("loadSeccomp"));
  const { seccomp } = spec.linux ?? {};
  if (steps.length === 0 || seccomp === undefined) return [];
  const { architectures, calls } = absentFrom(machine, seccomp);
  const [elsewhere, nowhere] = [calls.filter(isSyscallName), calls.filter((name) => !isSyscallName(name))];
  const left = [
    { names: architectures, says: "nothing is filtered for", because: `nothing of that runs on ${machine}` },
    { names: elsewhere, says: "there is no rule for", because: `the filtered interfaces of ${machine} lack them` },
    { names: nowhere, says: "there is no rule for", because: "no Linux known to this Caisson has such a system call" },
  ];
  return left
    .filter(({ names }) => names.length > 0)
    .map(({ names, says, because }) => ({
      kind: "skipped",
      says: `${says} ${names.join(", ")}`,
      because,
      from: "/spec/linux/seccomp",
      steps,
    }));
}

function capabilities({ spec }: Definition, host: Host): Note[] {
  return withheldCapabilities(spec.process ?? { cwd: "/" }, spec, host).map(({ name, from, reason }) => ({
    kind: "skipped",
    says: `${name} is not granted`,
    because: reason,
    from: `/spec${from}`,
    steps: [],
  }));
}
