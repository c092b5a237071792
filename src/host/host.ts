import { readFileSync } from "node:fs";
import { arch } from "node:process";
import { ContainerError } from "../error.ts";
import { parseCgroupLayout } from "../plan/cgroup-layout.ts";
import type { Host } from "../plan/host.ts";

let known: Host | undefined;

/** What compile needs to know of this host, looked at once a process. @throws ContainerError on an unknown machine */
export function detectHost(): Host {
  known ??= lookAtHost();
  return known;
}

function lookAtHost(): Host {
  if (arch !== "x64" && arch !== "arm64")
    throw new ContainerError({ message: `Caisson does not know the architecture ${arch}`, code: "ENOEXEC" });
  return {
    machine: arch === "x64" ? "x86_64" : "aarch64",
    cgroups: parseCgroupLayout(
      readFileSync("/proc/self/mountinfo", "utf8"),
      readFileSync("/proc/self/cgroup", "utf8"),
      v2Controllers(),
    ),
  };
}

function v2Controllers(): string {
  for (const mountPoint of ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]) {
    try {
      return readFileSync(`${mountPoint}/cgroup.controllers`, "utf8");
    } catch {
      // not the mount point of version 2, or there is none
    }
  }
  return "";
}
