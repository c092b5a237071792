import { capabilityNames } from "../linux/capabilities.ts";
import { type Asked, innocent, type Question, refuses } from "./question.ts";

const NEW_USER = 0x10000000;
const REFUSALS = ["EPERM", "EACCES"];

/** What each call needs, of whoever makes it, in the user namespace that owns what is changed. */
const NEEDED: { readonly [call: string]: string } = {
  open_tree: "CAP_SYS_ADMIN",
  move_mount: "CAP_SYS_ADMIN",
  mount_setattr: "CAP_SYS_ADMIN",
  fsopen: "CAP_SYS_ADMIN",
  fsconfig: "CAP_SYS_ADMIN",
  fsmount: "CAP_SYS_ADMIN",
  mount: "CAP_SYS_ADMIN",
  umount2: "CAP_SYS_ADMIN",
  pivot_root: "CAP_SYS_ADMIN",
  clone3: "CAP_SYS_ADMIN",
  unshare: "CAP_SYS_ADMIN",
  setns: "CAP_SYS_ADMIN",
  sethostname: "CAP_SYS_ADMIN",
  setdomainname: "CAP_SYS_ADMIN",
  bpf: "CAP_BPF",
  chroot: "CAP_SYS_CHROOT",
  mknodat: "CAP_MKNOD",
  setgroups: "CAP_SETGID",
  setresgid: "CAP_SETGID",
  setresuid: "CAP_SETUID",
  fchown: "CAP_CHOWN",
  fchownat: "CAP_CHOWN",
  prlimit64: "CAP_SYS_RESOURCE",
  sched_setattr: "CAP_SYS_NICE",
  ioprio_set: "CAP_SYS_NICE",
};

function neededFor({ call, step }: Asked): string | undefined {
  if (step.name === "dropBounding") return "CAP_SETPCAP";
  if (step.name === "setOomScore") return "CAP_SYS_RESOURCE";
  if (step.name === "writeCgroup") return step.args.file.startsWith("devices.") ? "CAP_SYS_ADMIN" : undefined;
  return NEEDED[call?.name ?? ""];
}

/** The step by which the process gets a new user namespace, if it does; from there on it has all capabilities in that. */
function entersUserNamespace({ plan }: Asked): number {
  return plan.findIndex(
    ({ name, args }) =>
      (name === "clone" || name === "cloneInto") && (Number(Reflect.get(args, "namespaces")) & NEW_USER) !== 0,
  );
}

/** Whether the kernel judged the step by what the caller himself has. */
function byCallersOwn(asked: Asked): boolean {
  const entered = entersUserNamespace(asked);
  return entered < 0 || asked.index < entered;
}

/** A capability that the caller does not have. */
const capability: Question = (asked) => {
  const needed = neededFor(asked);
  if (needed === undefined || !REFUSALS.includes(asked.code)) return [];
  if (asked.index === entersUserNamespace(asked)) return [];
  if (!byCallersOwn(asked))
    return innocent(
      `${needed} is not missing in the container's own user namespace: its first process has all of them there, and none outside`,
    );
  const { CapEff = "", CapBnd = "" } = asked.caller.status;
  const has = (set: string) => capabilityNames(BigInt(`0x${set === "" ? "0" : set}`)).some((name) => name === needed);
  if (has(CapEff)) return innocent(`the caller had ${needed} (CapEff ${CapEff})`);
  return has(CapBnd)
    ? refuses(
        `the caller did not have ${needed}: CapEff was ${CapEff}; the bounding set (CapBnd ${CapBnd}) would allow it`,
        "run it as root (sudo), or in a user namespace: caisson-runtime spec --rootless shows how",
      )
    : refuses(
        `the caller did not have ${needed}, and could not get it: it is in neither CapEff ${CapEff} nor the bounding set, CapBnd ${CapBnd}`,
        `whoever started the caller took ${needed} away: it has to be given there (docker run --cap-add, systemd's CapabilityBoundingSet=, capsh), or do without what needs it`,
      );
};

/** A host that does not let everybody make user namespaces. */
const userNamespace: Question = (asked, facts) => {
  if (asked.index !== entersUserNamespace(asked) || asked.code !== "EPERM") return [];
  const cloned = facts.text("/proc/sys/kernel/unprivileged_userns_clone");
  const restricted = facts.text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
  const shown = facts.mounts().some(({ mountPoint }) => mountPoint === "/");
  const admin = capabilityNames(BigInt(`0x${asked.caller.status.CapEff || "0"}`)).includes("CAP_SYS_ADMIN");
  const found = [
    ...(cloned === "0" && !admin
      ? refuses(
          "kernel.unprivileged_userns_clone is 0: on this host only CAP_SYS_ADMIN makes user namespaces",
          "sysctl kernel.unprivileged_userns_clone=1, as root of the host",
        )
      : []),
    ...(restricted === "1" && !admin
      ? refuses(
          "kernel.apparmor_restrict_unprivileged_userns is 1: AppArmor lets only programs whose profile says so make user namespaces",
          "load a profile with the rule userns for this program, or set that sysctl to 0",
        )
      : []),
    ...(shown
      ? []
      : refuses(
          "the caller is in a chroot: the root of its mount namespace is not to be seen in /proc/self/mountinfo, and nobody makes user namespaces from within one",
          "enter the directory by pivot_root or in a mount namespace of its own (unshare --mount --root does neither), or leave out the user namespace",
        )),
  ];
  return found.length > 0
    ? found
    : innocent("nothing on this host forbids new user namespaces, and the caller is in no chroot that can be seen");
};

/** A filter of the caller's, found by calls that no filter would let past. */
const filter: Question = ({ code, call, caller }, facts) => {
  if (call === undefined || !["EPERM", "EACCES", "ENOSYS"].includes(code)) return [];
  if (caller.status.Seccomp !== "2") return innocent("the caller was under no system call filter (Seccomp 0)");
  const answer = facts.answerTo(call.name);
  if (answer === code)
    return refuses(
      `a system call filter of the caller's (Seccomp 2) answers ${code} to ${call.name}, whatever its arguments are: with wrong ones, too, which the kernel itself would have found fault with`,
      `whoever started the caller must let ${call.name} through: docker run --security-opt seccomp=…, systemd's SystemCallFilter=`,
    );
  return innocent(
    `the caller was under a system call filter (Seccomp 2)${answer === undefined ? "; whether it lets the call through was not tried" : `, and that lets ${call.name} through: with wrong arguments it is answered ${answer}`}`,
  );
};

/** An id that the container's user namespace does not have. */
const mapping: Question = ({ step, code, plan }) => {
  if (code !== "EINVAL" || (step.name !== "setIds" && step.name !== "setGroups")) return [];
  const maps = plan.flatMap(({ name, args }) =>
    name === "mapIds" || name === "mapIdsByHelper" ? [`${Reflect.get(args, "kind")} ${Reflect.get(args, "map")}`] : [],
  );
  if (maps.length === 0) return [];
  return refuses(
    `the id is none that the container's user namespace has; it has ${maps.map((map) => map.trim().replaceAll("\n", ", ")).join("; ")} (inside, outside, how many)`,
    "map the id in linux.uidMappings and gidMappings, or run as one that is mapped",
  );
};

/** What AppArmor calls what these do; other calls are judged by the files and capabilities they need. */
const OPERATIONS: { readonly [call: string]: string } = {
  mount: "mount",
  move_mount: "mount",
  umount2: "umount",
  pivot_root: "pivotroot",
};

/** A profile of AppArmor's that confines the caller, and init with him: what it refuses stands in the kernel's log. */
const confinement: Question = ({ code, call, caller }, facts) => {
  const [, profile] = /^(.+) \(enforce\)$/.exec(caller.label ?? "") ?? [];
  if (profile === undefined || call === undefined || !REFUSALS.includes(code)) return [];
  const operation = OPERATIONS[call.name];
  const refused = facts
    .log(`profile="${profile}"`)
    ?.filter((line) => line.includes('apparmor="DENIED"'))
    .filter((line) => operation === undefined || line.includes(`operation="${operation}"`))
    .at(-1);
  if (refused === undefined)
    return innocent(
      `the caller was confined by the AppArmor profile ${profile}; the kernel's log has no such refusal of its (auditd, where it runs, takes them: ausearch -m AVC)`,
    );
  return refuses(
    `the caller was confined by the AppArmor profile ${profile}, whose last such refusal in the kernel's log is ${refused.slice(refused.indexOf("apparmor="))}`,
    `allow it in the profile ${profile}, or start the caller without one (aa-exec -p unconfined, systemd's AppArmorProfile=)`,
  );
};

/** AppArmor and SELinux. */
const label: Question = ({ step, code, caller, call }, facts) => {
  if (step.name !== "writeProc" || call === undefined || !step.from.includes("apparmor")) return [];
  const profiles = facts.text("/sys/kernel/security/apparmor/profiles");
  const name = step.args.text.replace(/^\S+ /, "").trim();
  if (code === "ENOENT" && profiles !== undefined && !profiles.split("\n").some((line) => line.startsWith(`${name} (`)))
    return refuses(
      `no AppArmor profile ${name} is loaded: /sys/kernel/security/apparmor/profiles does not list it`,
      "load it with apparmor_parser, or name another in process.apparmorProfile",
    );
  return innocent(`the caller's own label is ${caller.label ?? "none"}`);
};

export const PRIVILEGES: readonly Question[] = [capability, userNamespace, filter, mapping, confinement, label];
