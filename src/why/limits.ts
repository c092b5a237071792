import { capabilityNames } from "../linux/capabilities.ts";
import { NAMESPACES } from "../linux/namespaces.ts";
import { LIMIT_WORDS } from "../linux/process-status.ts";
import { RLIMITS } from "../linux/rlimits.ts";
import type { Step } from "../plan/step.ts";
import { rootPath } from "./paths.ts";
import { type Facts, innocent, type Question, refuses } from "./question.ts";

/** user.max_*_namespaces, by the specification's name of the kind. namespaces(7) */
const SYSCTLS: { readonly [kind: string]: string } = {
  user: "user",
  pid: "pid",
  mount: "mnt",
  network: "net",
  ipc: "ipc",
  uts: "uts",
  cgroup: "cgroup",
  time: "time",
};

const SECOND_LEVEL =
  "the limits of user namespaces further out count as well, and cannot be seen from here: look at /proc/sys/user there";

/** Namespaces that are all used up. */
const namespaces: Question = ({ step, code, caller }, facts) => {
  if (code !== "ENOSPC" || !["clone", "cloneInto", "unshare", "makeUserNamespace"].includes(step.name)) return [];
  const flags = step.name === "makeUserNamespace" ? 0x10000000 : Number(Reflect.get(step.args, "namespaces"));
  const asked = Object.entries(NAMESPACES).filter(([, { flag }]) => (flags & flag) !== 0);
  const seen = asked.map(([kind, { file }]) => {
    const name = `max_${SYSCTLS[kind]}_namespaces`;
    const limit = facts.text(`/proc/sys/user/${name}`);
    return { name: `user.${name}`, limit, used: facts.namespaces(file) };
  });
  const full = seen.filter(({ limit, used }) => limit !== undefined && (Number(limit) === 0 || used >= Number(limit)));
  if (full.length > 0)
    return full.flatMap(({ name, limit, used }) =>
      refuses(
        `${name} is ${limit}${limit === "0" ? "" : `, and processes are in ${used} of that kind`}: this user namespace may have no more of them`,
        `sysctl ${name}=… with a higher number, or end containers that are not needed; or leave that namespace out of linux.namespaces`,
      ),
    );
  const below = seen.map(({ name, limit, used }) => `${name} is ${limit}, ${used} are to be seen`).join("; ");
  const inner = caller.namespaces.user !== undefined && facts.text("/proc/self/uid_map") !== "0          0 4294967295";
  return innocent(inner ? `${below}; ${SECOND_LEVEL}` : below);
};

/** Processes that are all used up. */
const processes: Question = ({ code, call, caller, step }, facts) => {
  if (code !== "EAGAIN" || !["clone3", "clone", "vfork", "execve", "setresuid"].includes(call?.name ?? "")) return [];
  const [uid = ""] = (caller.status.Uid ?? "").split(/\s+/);
  const limit = caller.limits["Max processes"] ?? "unlimited";
  // init, once it is there, is one more
  const own = Number(caller.status.Threads ?? 1) + (call?.name === "vfork" ? 0 : 1);
  const others = processesOf(uid, facts);
  const limits = [
    limit !== "unlimited" && own + others >= Number(limit)
      ? refuses(
          `RLIMIT_NPROC allowed the caller ${limit} processes and threads of user ${uid}: the caller had ${own} with init's, others of that user have ${others} now`,
          "raise the limit (ulimit -u, limits.conf, systemd's LimitNPROC=), or end processes of that user",
        )
      : innocent(`RLIMIT_NPROC allowed the caller ${limit}; it had ${own}, others of user ${uid} have ${others} now`),
    ...(["clone3", "clone", "vfork"].includes(call?.name ?? "")
      ? [pidsMax(countedIn(step, facts), facts), pidMax(facts)]
      : []),
  ];
  return limits.flat();
};

function processesOf(uid: string, facts: Facts): number {
  return (facts.list("/proc") ?? [])
    .filter((name) => /^[0-9]+$/.test(name))
    .map((pid) => facts.text(`/proc/${pid}/status`) ?? "")
    .filter((status) => new RegExp(`^Uid:\\s+${uid}\\s`, "m").test(status))
    .reduce((sum, status) => sum + Number(/^Threads:\s+(\d+)$/m.exec(status)?.[1] ?? 1), 0);
}

/** The cgroup in which the process that was not made would have been counted: the container's, or our own. */
function countedIn(step: Step, facts: Facts): string {
  const old = "/sys/fs/cgroup/pids";
  const version2 = facts.list(old) === undefined;
  if (version2 && step.name === "cloneInto") return step.args.cgroup;
  const own = facts.text("/proc/self/cgroup") ?? "";
  const path = /^\d+:(?:[^:]*,)?pids(?:,[^:]*)?:(.*)$/m.exec(own)?.[1] ?? /^0::(.*)$/m.exec(own)?.[1] ?? "/";
  return `${version2 ? "/sys/fs/cgroup" : old}${path}`;
}

/** pids.max of a cgroup and of all above it. */
function pidsMax(path: string, facts: Facts) {
  const names = path.split("/").filter((name) => name !== "");
  for (let length = names.length; length > 0; length--) {
    const directory = `/${names.slice(0, length).join("/")}`;
    const [max, current] = [facts.text(`${directory}/pids.max`), facts.text(`${directory}/pids.current`)];
    if (max !== undefined && max !== "max" && Number(current) >= Number(max))
      return refuses(
        `${directory} has ${current} processes, and its pids.max is ${max}`,
        `write a higher number to ${directory}/pids.max, or end processes in there`,
      );
  }
  return innocent(`no pids.max from ${path} upwards is reached`);
}

function pidMax(facts: Facts) {
  const [pids, threads] = [facts.text("/proc/sys/kernel/pid_max"), facts.text("/proc/sys/kernel/threads-max")];
  const running = Number(/\/(\d+) /.exec(facts.text("/proc/loadavg") ?? "")?.[1] ?? 0);
  const least = Math.min(Number(pids ?? Infinity), Number(threads ?? Infinity));
  return running >= least - 300
    ? refuses(
        `the host has ${running} processes and threads, with kernel.pid_max ${pids} and kernel.threads-max ${threads}`,
        "raise kernel.pid_max and kernel.threads-max, or end processes",
      )
    : innocent(
        `the host has ${running} processes and threads; kernel.pid_max is ${pids}, kernel.threads-max ${threads}`,
      );
}

/** A limit above one's own, or above the host's. */
const rlimit: Question = ({ step, code, caller }, facts) => {
  if (step.name !== "setLimit" || code !== "EPERM") return [];
  const { resource, hard } = step.args;
  const [name = ""] = Object.entries(RLIMITS).find(([, number]) => number === Number(resource)) ?? [];
  const own = caller.limits[LIMIT_WORDS[name] ?? ""];
  const most = facts.text("/proc/sys/fs/nr_open");
  if (name === "RLIMIT_NOFILE" && most !== undefined && BigInt(hard) > BigInt(most))
    return refuses(
      `${hard} open files are asked for, and fs.nr_open of this host allows nobody more than ${most}`,
      `ask for at most ${most}, or raise fs.nr_open`,
    );
  return own !== undefined && own !== "unlimited" && BigInt(hard) > BigInt(own)
    ? refuses(
        `${name} of ${hard} is asked for, and the caller's own hard limit was ${own}`,
        `ask for at most ${own}, or have whoever starts the caller raise it (ulimit -H, limits.conf, systemd's Limit…=)`,
      )
    : innocent(`the caller's own hard limit of ${name} was ${own}`);
};

/** A place in the queue of the out-of-memory killer below the lowest that was granted. */
const oomScore: Question = ({ step, code, caller }, facts) => {
  if (step.name !== "setOomScore" || code !== "EACCES") return [];
  const own = Number(facts.text("/proc/self/oom_score_adj"));
  const { adjustment } = step.args;
  if (
    Number(adjustment) >= own ||
    capabilityNames(BigInt(`0x${caller.status.CapEff || "0"}`)).includes("CAP_SYS_RESOURCE")
  )
    return innocent(`our own score is ${own}`);
  return refuses(
    `${adjustment} is below our own score, ${own} (/proc/self/oom_score_adj), and the caller did not have CAP_SYS_RESOURCE: without that nobody goes below what was once set by one who had it`,
    `set process.oomScoreAdj to ${own} or more`,
  );
};

/** A filesystem without room. */
const space: Question = (asked, facts) => {
  const { code, call } = asked;
  if (!["ENOSPC", "EDQUOT"].includes(code)) return [];
  if (["clone3", "unshare", "move_mount", "open_tree"].includes(call?.name ?? "")) return [];
  const inside = ["target", "path"]
    .map((name) => Reflect.get(asked.step.args, name))
    .find((path) => typeof path === "string");
  const places = [rootPath(asked.plan), asked.path, typeof inside === "string" ? inside : undefined];
  const place = places.find((path): path is string => path !== undefined && facts.space(path) !== undefined);
  const left = place === undefined ? undefined : facts.space(place);
  if (place === undefined || left === undefined) return [];
  const { freeBytes, freeFiles, files } = left;
  if (files > 0 && freeFiles === 0)
    return refuses(
      `the filesystem of ${place} has no inode left, of ${files} (df -i)`,
      "remove files there, or make the filesystem anew with more inodes",
    );
  return freeBytes < 4096
    ? refuses(
        `the filesystem of ${place} is full: ${freeBytes} bytes are free (df)`,
        "remove files there, or use another place",
      )
    : innocent(`the filesystem of ${place} has ${freeBytes} bytes and ${freeFiles} inodes left`);
};

/** Keys that are all used up. */
const keys: Question = ({ code, call, caller }, facts) => {
  if (code !== "EDQUOT" || call?.name !== "keyctl") return [];
  const [uid = ""] = (caller.status.Uid ?? "").split(/\s+/);
  const line = (facts.text("/proc/key-users") ?? "").split("\n").find((each) => each.trim().startsWith(`${uid}:`));
  const [, , , quota = ""] = (line ?? "").trim().split(/\s+/);
  const [used = "0", most = "0"] = quota.split("/");
  return Number(used) >= Number(most)
    ? refuses(
        `user ${uid} has ${used} of ${most} keys (/proc/key-users)`,
        "raise kernel.keys.maxkeys, or use --no-new-keyring",
      )
    : innocent(`user ${uid} has ${used} of ${most} keys`);
};

export const LIMITS: readonly Question[] = [namespaces, processes, rlimit, oomScore, space, keys];
