import { innocent, type Question, refuses } from "./question.ts";

const parentOf = (path: string) => path.slice(0, path.lastIndexOf("/"));

/** A file that this kernel's controller does not have, or a controller that is not there. */
const missingFile: Question = ({ step, code }, facts) => {
  if (step.name !== "writeCgroup" || !["ENOENT", "EACCES"].includes(code)) return [];
  const { directory, file } = step.args;
  const above = parentOf(directory);
  const names = facts.list(directory) ?? facts.list(above);
  if (names === undefined)
    return refuses(`${above} is not there: the controller is mounted nowhere`, "mount it, or leave the limit out");
  const [controller] = file.split(".");
  const like = names.filter((name) => name.startsWith(`${controller}.`));
  if (names.includes(file)) return [];
  // the files of a hierarchy's root are fewer than those of the cgroups in it
  const root = facts.list(parentOf(above)) === undefined || !names.includes("cgroup.procs");
  if (root) return [];
  return refuses(
    `${above} has no file ${file}${like.length === 0 ? `, and none of the controller ${controller}` : `; of its controller there are ${like.slice(0, 12).join(", ")}`}`,
    like.length === 0
      ? "enable the controller (cgroup.subtree_control on version 2, cgroup_enable= on the kernel's command line), or leave the limit out"
      : "leave the limit out, or use a kernel that was built with it",
  );
};

/** "0-3,7" in numbers. */
function listed(text: string): number[] {
  return text.split(",").flatMap((part) => {
    const [first = "", last = first] = part.trim().split("-");
    return first === "" ? [] : Array.from({ length: Number(last) - Number(first) + 1 }, (_, i) => Number(first) + i);
  });
}

/** Processors or memory that the cgroup above does not have. */
const cpuset: Question = ({ step, code }, facts) => {
  if (step.name !== "writeCgroup" || !["EACCES", "EINVAL", "ERANGE", "ENOSPC"].includes(code)) return [];
  const { directory, file, value } = step.args;
  if (value === undefined || !/^cpuset\.(cpus|mems)$/.test(file)) return [];
  const above = parentOf(directory);
  const effective =
    facts.text(`${above}/${file}.effective`) ?? facts.text(`${above}/${file.replace(/(cpus|mems)$/, "effective_$1")}`);
  const allowed = effective ?? facts.text(`${above}/${file}`);
  if (allowed === undefined) return [];
  const lacking = listed(value).filter((number) => !listed(allowed).includes(number));
  const what = file === "cpuset.cpus" ? "processors" : "memory nodes";
  const host = facts.text(
    file === "cpuset.cpus" ? "/sys/devices/system/cpu/online" : "/sys/devices/system/node/online",
  );
  return lacking.length > 0
    ? refuses(
        `${above} has the ${what} ${allowed}, and ${value} asks for ${lacking.join(", ")} as well${host === undefined ? "" : `; the host has ${host} online`}`,
        `ask for some of ${allowed}`,
      )
    : innocent(`${above} has the ${what} ${allowed}, among which are those asked for`);
};

/** A device that is not there. */
const device: Question = ({ step, code }, facts) => {
  if (step.name !== "writeCgroup" || code !== "ENODEV") return [];
  const [numbers = ""] = (step.args.value ?? "").split(" ");
  const there = facts.list("/sys/dev/block") ?? [];
  return there.includes(numbers)
    ? innocent(`the block device ${numbers} is there (/sys/dev/block/${numbers})`)
    : refuses(
        `there is no block device ${numbers}: /sys/dev/block has ${there.length === 0 ? "none at all" : there.slice(0, 12).join(", ")}`,
        "correct major and minor (lsblk shows them)",
      );
};

const REALTIME = "cpu.rt_runtime_us";

/** A budget for real-time processes that the cgroup, or the one above, does not have. */
const realtime: Question = ({ step, code, plan }, facts) => {
  if (step.name === "writeCgroup" && step.args.file.startsWith("cpu.rt_")) {
    const above = parentOf(step.args.directory);
    const [budget, period] = [facts.text(`${above}/${REALTIME}`), facts.text(`${above}/cpu.rt_period_us`)];
    return budget === undefined
      ? []
      : refuses(
          `${step.args.value} is asked for, and ${above} has ${budget} µs of real time in ${period} µs for itself and all below (${REALTIME})`,
          `give ${above} a larger budget, and linux.resources.cpu.realtimeRuntime a part of it`,
        );
  }
  if (step.name !== "setScheduler" || code !== "EPERM") return [];
  const own = plan.flatMap(({ name, args }) => (name === "makeCgroup" ? [String(Reflect.get(args, "path"))] : []));
  const above = own.map(parentOf).find((path) => facts.text(`${path}/${REALTIME}`) !== undefined);
  if (above === undefined) return innocent(`this kernel gives cgroups no budgets of real time (${REALTIME})`);
  return plan.some((each) => each.name === "writeCgroup" && each.args.file === REALTIME)
    ? innocent("the container's cgroup is given a budget of real time")
    : refuses(
        `a new cgroup in ${above} has no real time at all (${REALTIME} is 0), and the container's is given none`,
        "set linux.resources.cpu.realtimeRuntime and realtimePeriod",
      );
};

/** A value that the controller finds out of range. */
const value: Question = ({ step, code }, facts) => {
  if (step.name !== "writeCgroup" || !["EINVAL", "ERANGE", "EBUSY"].includes(code)) return [];
  const { directory, file } = step.args;
  if (/^cpuset\.|^cpu\.rt_/.test(file)) return [];
  const above = parentOf(directory);
  const theirs = facts.text(`${above}/${file}`);
  if (/quota|period|cpu\.max$/.test(file)) {
    const [quota, period] = [facts.text(`${above}/cpu.cfs_quota_us`), facts.text(`${above}/cpu.cfs_period_us`)];
    const limits = "a period is 1000 to 1000000 µs, a quota at least 1000 µs";
    return refuses(
      `${step.args.value} is asked for; ${limits}${quota === undefined ? "" : `, and no larger part than that of ${above}, which has ${quota === "-1" ? "no quota" : `${quota} in ${period} µs`}`}`,
      "correct linux.resources.cpu",
    );
  }
  return theirs === undefined ? [] : innocent(`${above} itself has ${theirs} in ${file}`);
};

/** A directory of cgroups that cannot be made. */
const directory: Question = ({ step, code }, facts) => {
  if (step.name !== "makeCgroup") return [];
  const above = parentOf(step.args.path);
  if (["EBUSY", "EEXIST"].includes(code)) {
    const inside = facts.text(`${step.args.path}/cgroup.procs`);
    return inside === undefined || inside === ""
      ? innocent(`${step.args.path} is not in use now`)
      : refuses(
          `${step.args.path} has processes in it: ${inside.split("\n").slice(0, 8).join(", ")}`,
          "end them, or give the container another linux.cgroupsPath",
        );
  }
  if (!["EACCES", "EPERM", "EROFS"].includes(code)) return [];
  const { found } = facts.walk(above);
  const mount = facts.mounts().findLast(({ mountPoint }) => above === mountPoint || above.startsWith(`${mountPoint}/`));
  if (mount?.options.includes("ro") === true)
    return refuses(
      `${mount.mountPoint} is mounted read-only (${mount.type}, ${mount.options.join(",")})`,
      `mount -o remount,rw ${mount.mountPoint}`,
    );
  return found === undefined
    ? []
    : refuses(
        `${above} belongs to ${found.uid}:${found.gid} with mode ${(found.mode & 0o777).toString(8)}: it was not handed over to the caller`,
        "have the cgroup delegated (systemd: Delegate=yes), or let the container do without limits",
      );
};

export const CONTROL_GROUPS: readonly Question[] = [missingFile, cpuset, device, realtime, value, directory];
