import { readFileSync, readlinkSync } from "node:fs";
import { NAMESPACES } from "../linux/namespaces.ts";
import { parseLimits, parseStatus } from "../linux/process-status.ts";

/** What the kernel judges a caller by, as /proc/self shows it. */
export interface Caller {
  /** Lines of status: "Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", …. proc_pid_status(5) */
  status: { [line: string]: string };
  /** Hard limits by resource ("Max open files"): "unlimited" or a number. */
  limits: { [resource: string]: string };
  /** Names such as "net:[4026531840]" by the file's name below ns. */
  namespaces: { [file: string]: string };
  /** Label of AppArmor or SELinux; absent where the kernel has neither. */
  label?: string;
}

const LINES = ["Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Threads"];

/** Looks at our own process. What cannot be read is left out. */
export function lookAtCaller(): Caller {
  const status = parseStatus(read("status"));
  const limits = parseLimits(read("limits"));
  const label = read("attr/current").replace(/\0|\n/g, "");
  return {
    status: Object.fromEntries(LINES.map((line) => [line, status.get(line) ?? ""])),
    limits: Object.fromEntries([...limits].map(([resource, [, hard]]) => [resource, hard])),
    namespaces: Object.fromEntries(Object.values(NAMESPACES).map(({ file }) => [file, namespaceOf(file)])),
    ...(label === "" ? {} : { label }),
  };
}

function read(file: string): string {
  try {
    return readFileSync(`/proc/self/${file}`, "utf8");
  } catch {
    return "";
  }
}

function namespaceOf(file: string): string {
  try {
    return readlinkSync(`/proc/self/ns/${file}`);
  } catch {
    return "";
  }
}
