import { sysctlPath } from "../linux/sysctls.ts";
import type { Spec } from "../spec/spec.ts";
import type { Step } from "./step.ts";

/** Kernel parameters of the container's namespaces, through a proc that is closed right after. */
export function setSysctls({ linux }: Spec): Step[] {
  const entries = Object.entries(linux?.sysctl ?? {});
  if (entries.length === 0) return [];
  const from = "/spec/linux/sysctl";
  return [
    { name: "openProc", args: { all: 1, proc: "sysctls" }, from },
    ...entries.map(
      ([name, value]): Step => ({
        name: "writeProc",
        args: { proc: "sysctls", path: `sys/${sysctlPath(name) ?? name}`, text: value },
        from: `${from}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`,
      }),
    ),
    { name: "closeSlot", args: { file: "sysctls" }, from },
  ];
}
