import type { Spec } from "../spec/spec.ts";
import { normalPath } from "./path.ts";
import type { Step } from "./step.ts";

/** Done before the root is pivoted: what covers a file is the host's own null device. */
export function hidePaths({ linux }: Spec): Step[] {
  const { maskedPaths = [], readonlyPaths = [] } = linux ?? {};
  const protect = readonlyPaths.map(
    (path, at): Step => ({
      name: "protectPath",
      args: { root: "root", path: normalPath(path) },
      from: `/spec/linux/readonlyPaths/${at}`,
    }),
  );
  if (maskedPaths.length === 0) return protect;
  return [
    ...protect,
    { name: "openOwn", args: { path: "/dev/null", file: "null" }, from: "/spec/linux/maskedPaths" },
    ...maskedPaths.map(
      (path, at): Step => ({
        name: "maskPath",
        args: { root: "root", path: normalPath(path), null: "null" },
        from: `/spec/linux/maskedPaths/${at}`,
      }),
    ),
    { name: "closeSlot", args: { file: "null" }, from: "/spec/linux/maskedPaths" },
  ];
}
