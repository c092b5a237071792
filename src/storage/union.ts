import { closeSync } from "node:fs";
import { openDirectory, S, type Stat, statIn } from "./tree.ts";
import type { Whiteouts } from "./whiteout.ts";

/** What a look-up found: a name in an open directory of one layer. The directory is closed after the call. */
export interface Found {
  directory: number;
  name: Buffer;
  stat: Stat;
}

/**
 * Looks a path up in layers (directory descriptors, the top one first) as their union mount would show it, and calls
 * `use` with what it found. Links are not followed: a component in the middle that is one ends the look-up.
 * @returns what `use` returned; undefined where nothing is shown
 */
export function findInUnion<T>(
  layers: readonly number[],
  path: readonly Buffer[],
  whiteouts: Whiteouts,
  use: (found: Found) => T,
): T | undefined {
  let directories: number[] = [];
  for (const layer of layers) {
    directories.push(layer);
    if (whiteouts.isOpaque(layer)) break;
  }
  let opened: number[] = [];
  try {
    for (const [depth, name] of path.entries()) {
      const isLast = depth === path.length - 1;
      const inner: number[] = [];
      try {
        for (const directory of directories) {
          if (whiteouts.isHidden(directory, name)) break;
          const stat = statIn(directory, name);
          if (stat === undefined) continue;
          if (isLast) return use({ directory, name, stat });
          if ((stat.mode & S.IFMT) !== S.IFDIR) break; // it hides what is below it
          const fd = openDirectory(directory, name);
          inner.push(fd);
          if (whiteouts.isOpaque(fd)) break;
        }
      } finally {
        for (const fd of opened) closeSync(fd);
        opened = inner;
      }
      if (inner.length === 0) return;
      directories = inner;
    }
    return;
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}
