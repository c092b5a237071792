import { innocent, type Question, refuses } from "./question.ts";

/** A device that the host does not have. */
const device: Question = ({ step, code }, facts) => {
  if (step.name !== "moveDevice" || !["ENODEV", "ENOENT"].includes(code)) return [];
  const there = facts.list("/sys/class/net") ?? [];
  return there.includes(step.args.device)
    ? innocent(`${step.args.device} is there now`)
    : refuses(
        `the host has no network device ${step.args.device}; it has ${there.join(", ")}`,
        "correct the name in linux.netDevices (ip link shows them), or make the device first",
      );
};

/** A kernel parameter that this kernel, or a new network namespace, does not have. */
const sysctl: Question = ({ step, code }, facts) => {
  if (step.name !== "writeProc" || !step.from.startsWith("/spec/linux/sysctl")) return [];
  const path = `/proc/${step.args.path}`;
  const walk = facts.walk(path);
  if (code === "ENOENT" && walk.stopped !== undefined) {
    const above = walk.parts.at(-1)?.path ?? "/proc/sys";
    const names = facts.list(above) ?? [];
    return refuses(
      `${walk.stopped.path} does not exist on this host either; ${above} has ${names.slice(0, 16).join(", ")}${names.length > 16 ? ", …" : ""}`,
      "correct the name in linux.sysctl, or load the module that brings it",
    );
  }
  if (code === "EINVAL" || code === "ERANGE")
    return refuses(
      `${path} does not take ${JSON.stringify(step.args.text.trim())}; the host's own value is ${JSON.stringify(facts.text(path) ?? "")}`,
      "correct the value in linux.sysctl",
    );
  return [];
};

export const NETWORK: readonly Question[] = [device, sysctl];
