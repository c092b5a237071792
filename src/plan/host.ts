import type { CgroupLayout } from "./cgroup-layout.ts";

/** The facts about this host and its kernel that compile needs. src/host finds them. */
export interface Host {
  machine: "x86_64" | "aarch64";
  cgroups: CgroupLayout;
}
