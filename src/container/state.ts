import { isFrozen } from "../cgroup/cgroup.ts";
import { ContainerError } from "../error.ts";
import { isThisBoot, processState, startTime } from "../kernel/process.ts";
import type { Status } from "../spec/spec.ts";
import type { Record } from "./store.ts";

/** Whether a record's process is there, and not another one with its pid. */
function isAlive({ pid, startTime: started, bootId: boot }: Record): boolean {
  return pid > 0 && isThisBoot(boot) && startTime(pid) === started && processState(pid) !== "Z";
}

/** Which operations each status allows: OCI runtime.md, "Lifecycle"; where it is silent, as runc has it. */
const ALLOWED = {
  start: ["created"],
  kill: ["created", "running", "paused"],
  exec: ["created", "running"],
  pause: ["created", "running"],
  resume: ["paused"],
  update: ["created", "running", "paused"],
  "change the mounts of": ["created", "running", "paused"],
  delete: ["stopped"],
} satisfies { [operation: string]: Status[] };

/** @throws ContainerError in the words that engines look for */
export function requireStatus(operation: keyof typeof ALLOWED, id: string, status: Status): void {
  const allowed: readonly Status[] = ALLOWED[operation];
  if (allowed.includes(status)) return;
  const refusals = {
    start:
      status === "running"
        ? "cannot start an already running container"
        : status === "stopped"
          ? "cannot start a container that has stopped"
          : `cannot start a container in the ${status} state`,
    kill: "container not running",
    exec:
      status === "paused"
        ? "cannot exec in a paused container (use --ignore-paused to override)"
        : "cannot exec in a stopped container",
    pause: "container not running",
    resume: "container not paused",
    update: "container not running",
    "change the mounts of": "container not running",
    delete: `cannot delete container ${id} that is not stopped: ${status}`,
  };
  throw new ContainerError({ message: refusals[operation], code: "ERR_STATUS" });
}

/** The status as the specification has it. @param waits whether start.sock is still there */
export function statusOf(record: Record, waits: boolean): Status {
  if (record.status === "creating") return "creating";
  if (!isAlive(record)) return "stopped";
  if (isFrozen(record.cgroups)) return "paused";
  return waits ? "created" : "running";
}
