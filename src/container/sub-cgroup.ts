import { existsSync } from "node:fs";
import { ContainerError } from "../error.ts";
import type { CgroupDirectory } from "../plan/cgroup-layout.ts";

/**
 * A container's cgroups, narrowed to ones beneath them that exist: exec's --cgroup.
 * @param asked each "<path>" for all hierarchies, alone, or "<controller>[,<controller>…]:<path>"
 * @throws ContainerError in runc's words
 */
export function subCgroups(directories: readonly CgroupDirectory[], asked: readonly string[]): CgroupDirectory[] {
  const chosen = parse(asked);
  const everywhere = chosen.get("");
  const unknown = [...chosen.keys()].find(
    (name) => name !== "" && !directories.some(({ hierarchy }) => hierarchy.controllers.includes(name)),
  );
  if (unknown !== undefined) throw refusal(`unknown controller ${unknown} in SubCgroupPaths`);
  return directories.map((directory) => {
    const { hierarchy, path } = directory;
    const controller = hierarchy.controllers.find((name) => chosen.has(name));
    const sub = everywhere ?? (controller === undefined ? undefined : chosen.get(controller));
    if (sub === undefined) return directory;
    const names = sub.split("/").filter((name) => name !== "" && name !== ".");
    if (names.includes("..")) throw refusal(`bad sub cgroup path: ${sub} is not a sub cgroup path`);
    const below = [path, ...names].join("/");
    if (existsSync(below)) return { hierarchy, path: below };
    // beside version 1, the version 2 hierarchy often has no controllers, and nobody divides it
    if (everywhere !== undefined && hierarchy.version === 2 && hierarchy.controllers.length === 0) return directory;
    throw refusal(`error adding pid to cgroups: ${below}: no such file or directory`, "ENOENT");
  });
}

function parse(asked: readonly string[]): Map<string, string> {
  const chosen = new Map<string, string>();
  for (const argument of asked) {
    const colon = argument.indexOf(":");
    if (colon < 0) {
      if (asked.length > 1) throw refusal(`invalid --cgroup argument: ${argument} (missing <controller>: prefix)`);
      return new Map([["", argument]]);
    }
    for (const name of argument.slice(0, colon).split(",")) {
      if (name === "") throw refusal(`invalid --cgroup argument: ${argument} (empty <controller> prefix)`);
      if (chosen.has(name)) throw refusal(`invalid --cgroup argument(s): controller ${name} specified multiple times`);
      chosen.set(name, argument.slice(colon + 1));
    }
  }
  return chosen;
}

function refusal(message: string, code = "ERR_USAGE"): ContainerError {
  return new ContainerError({ message, code });
}
