import { closeSync, openSync } from "node:fs";
import { O, pathBytes } from "../kernel/file.ts";
import { call, tryCall } from "../kernel/syscall.ts";
import {
  copyEntry,
  EEXIST,
  keptXattrs,
  listNames,
  listXattrs,
  openDirectory,
  removeTree,
  S,
  setAttributesOf,
  statIn,
  timespecs,
  tryOpenDirectory,
} from "./tree.ts";
import { OVERLAY_WHITEOUTS, type Whiteouts } from "./whiteout.ts";

/**
 * Copies layers (directories, the top one first) into an empty directory, so that it shows what their union mount would.
 * Contents are shared with the layers where the file system can. @throws ContainerError
 */
export function copyLayers(layers: readonly string[], target: string, whiteouts: Whiteouts = OVERLAY_WHITEOUTS): void {
  const to = openSync(target, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
  try {
    for (const layer of [...layers].reverse()) {
      const from = openSync(layer, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
      try {
        copyDirectory(from, to, { whiteouts, root: to, links: new Map() }, []);
      } finally {
        closeSync(from);
      }
    }
  } finally {
    closeSync(to);
  }
}

interface Copy {
  whiteouts: Whiteouts;
  root: number;
  /** Where the first name of a file with several went, by inode. */
  links: Map<bigint, Buffer[]>;
}

function copyDirectory(from: number, to: number, copy: Copy, path: Buffer[]): void {
  const { whiteouts, links } = copy;
  if (whiteouts.isOpaque(from)) for (const name of listNames(to)) removeTree(to, name);
  for (const name of listNames(from)) {
    if (whiteouts.isMark(from, name)) continue;
    const stat = statIn(from, name);
    if (stat === undefined) continue;
    const here = [...path, name];
    if ((stat.mode & S.IFMT) === S.IFDIR) {
      if (tryCall("mkdirat", to, pathBytes(name), 0o700) === EEXIST && isNoDirectory(to, name)) {
        removeTree(to, name);
        call("mkdirat", to, pathBytes(name), 0o700);
      }
      const [inner, target] = [openDirectory(from, name), openDirectory(to, name)];
      try {
        copyDirectory(inner, target, copy, here);
      } finally {
        closeSync(inner);
        closeSync(target);
      }
      continue;
    }
    removeTree(to, name);
    const first = links.get(stat.inode);
    if (first !== undefined) linkTo(copy.root, first, to, name);
    else {
      copyEntry(from, name, to, name);
      if (stat.links > 1) links.set(stat.inode, here);
    }
  }
  for (const name of whiteouts.hiddenNames(from)) removeTree(to, name);
  const stat = statIn(from, "");
  if (stat === undefined) return;
  const xattrs = listXattrs(from);
  setAttributesOf(to, { ...stat, xattrs: keptXattrs(xattrs) });
  call("utimensat", to, null, timespecs(stat.mtimeSeconds, stat.mtimeNanoseconds), 0);
}

function isNoDirectory(directory: number, name: Buffer): boolean {
  return ((statIn(directory, name)?.mode ?? 0) & S.IFMT) !== S.IFDIR;
}

function linkTo(root: number, path: readonly Buffer[], to: number, name: Buffer): void {
  let directory = root;
  try {
    for (const component of path.slice(0, -1)) {
      const inner = tryOpenDirectory(directory, component);
      if (directory !== root) closeSync(directory);
      directory = inner;
    }
    call("linkat", directory, pathBytes(path.at(-1) ?? name), to, pathBytes(name), 0);
  } finally {
    if (directory !== root) closeSync(directory);
  }
}
