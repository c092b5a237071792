import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Helper {
  /** Where the helper is; undefined if it cannot be built here. */
  path: string | undefined;
  /** Why not, or "". */
  reason: string;
  directory: string;
  remove(): void;
}

/** Builds one of the C programs beside this file in a directory of its own. */
export function buildHelper(source: string, ...libraries: string[]): Helper {
  const directory = mkdtempSync(join(tmpdir(), "caisson-seccomp-"));
  const path = join(directory, "helper");
  const file = new URL(source, import.meta.url).pathname;
  const flags = ["-std=gnu17", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-O1"];
  const gcc = spawnSync("gcc", [...flags, "-o", path, file, ...libraries], { encoding: "utf8" });
  const missing = gcc.error !== undefined || /No such file|cannot find -l/.test(gcc.stderr);
  if (gcc.status !== 0 && !missing) throw new Error(gcc.stderr);
  return {
    path: gcc.status === 0 ? path : undefined,
    reason: gcc.status === 0 ? "" : `needs gcc ${libraries.join(" ")}`.trim(),
    directory,
    remove: () => rmSync(directory, { recursive: true }),
  };
}
