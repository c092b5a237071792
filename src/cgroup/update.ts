import { ContainerError } from "../error.ts";
import type { ResourceWrite } from "../plan/cgroup-files.ts";
import { applyWrite } from "./cgroup.ts";
import { readIfPresent } from "./file.ts";

/**
 * Changes the limits of a cgroup that is in use: all of them, or, where the kernel refuses one, none.
 * @throws ContainerError of the write that was refused, with the JSON pointer of what asked for it
 */
export function applyUpdate(writes: readonly ResourceWrite[]): void {
  const done: ResourceWrite[] = [];
  for (const write of writes) {
    const before = readIfPresent(`${write.directory}/${write.file}`)?.trim();
    try {
      applyWrite(write);
    } catch (error) {
      for (const each of done.reverse()) restore(each);
      if (!(error instanceof ContainerError)) throw error;
      throw new ContainerError({
        ...error,
        message: error.message,
        from: `/spec${write.from}`,
        hint: hintFor(write, error.code),
        cause: error,
      });
    }
    // a table of devices is not what one line of it was
    if (before !== undefined && before !== "" && !before.includes("\n")) done.push({ ...write, value: before });
  }
}

/** The kernel may refuse even that; the first error is what counts. */
function restore(write: ResourceWrite): void {
  try {
    applyWrite({ ...write, optional: true });
  } catch {
    // nothing more can be done
  }
}

function hintFor({ directory, file }: ResourceWrite, code: string | undefined): string | undefined {
  if (code !== "EBUSY" || file !== "memory.limit_in_bytes") return;
  const usage = readIfPresent(`${directory}/memory.usage_in_bytes`)?.trim();
  const peak = readIfPresent(`${directory}/memory.max_usage_in_bytes`)?.trim();
  return `unable to set memory limit (current usage: ${usage}, peak usage: ${peak})`;
}
