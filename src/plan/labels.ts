import type { Process } from "../spec/spec.ts";
import type { Host } from "./host.ts";
import type { Step } from "./step.ts";

/**
 * What security modules call the process after execve. The proc to write to is opened while the host's is still wholly
 * visible: afterwards a user namespace would not be given one.
 */
export function openLabels(process: Process, host: Host): Step[] {
  const from = fromOf(process, host);
  return from === undefined ? [] : [{ name: "openProc", args: { all: 0, proc: "labels" }, from }];
}

/** Behind the hooks of the container's namespaces: they are the host's programs, and not meant. */
export function setLabels(process: Process, host: Host): Step[] {
  const { apparmorProfile = "", selinuxLabel = "" } = process;
  const from = fromOf(process, host);
  if (from === undefined) return [];
  const steps: Step[] = [];
  // AppArmor has a directory of its own since Linux 5.8; exec beside it is that of whichever module comes first
  if (apparmorProfile !== "" && host.apparmor)
    steps.push({
      name: "writeProc",
      args: { proc: "labels", path: "self/attr/apparmor/exec", text: `exec ${apparmorProfile}` },
      from: "/spec/process/apparmorProfile",
    });
  if (selinuxLabel !== "")
    steps.push({
      name: "writeProc",
      args: { proc: "labels", path: "self/attr/exec", text: selinuxLabel },
      from: "/spec/process/selinuxLabel",
    });
  return [...steps, { name: "closeSlot", args: { file: "labels" }, from }];
}

/** Without AppArmor everything is unconfined; any other profile has been refused then. */
function fromOf({ apparmorProfile = "", selinuxLabel = "" }: Process, { apparmor }: Host): string | undefined {
  if (apparmorProfile !== "" && apparmor) return "/spec/process/apparmorProfile";
  return selinuxLabel === "" ? undefined : "/spec/process/selinuxLabel";
}

/** These label what is in them by themselves, or not at all. */
const UNLABELLED: ReadonlySet<string> = new Set(["proc", "sysfs", "cgroup", "cgroup2", "mqueue"]);

/** A filesystem's parameters for linux.mountLabel: mount(8), "context=". */
export function mountContext(type: string, mountLabel = ""): string[] {
  return mountLabel === "" || UNLABELLED.has(type) ? [] : [`context=${mountLabel}`];
}
