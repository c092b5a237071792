import { readFileSync } from "node:fs";

/** A process's directory in the version 1 hierarchy of a controller, where the host sees it. */
export function directoryOf(pid: number, controller: string): string {
  const line = readFileSync(`/proc/${pid}/cgroup`, "utf8")
    .split("\n")
    .find((each) => each.split(":")[1]?.split(",").includes(controller));
  return `/sys/fs/cgroup/${controller}${line?.slice(line.indexOf(":", line.indexOf(":") + 1) + 1)}`;
}

/** A cgroup file without the line's end. */
export function read(directory: string, file: string): string {
  return readFileSync(`${directory}/${file}`, "utf8").trim();
}
