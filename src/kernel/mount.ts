import { AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW } from "./file.ts";
import { call, tryCall } from "./syscall.ts";

export const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const CLOEXEC = 0o2000000;
const FSCONFIG = { SET_FLAG: 0, SET_STRING: 1, SET_FD: 5, CREATE: 6, RECONFIGURE: 7 } as const;

/** One filesystem parameter: a flag, a string, or a descriptor. */
export type Parameter = [key: string, value?: string | number];

/** fsopen, fsconfig, fsmount: a filesystem that is mounted nowhere yet. @returns its descriptor @throws ContainerError */
export function makeFilesystem(type: string, parameters: Parameter[], attributes = 0): number {
  const context = call("fsopen", type, 1);
  try {
    setParameters(context, parameters);
    call("fsconfig", context, FSCONFIG.CREATE, null, null, 0);
    return call("fsmount", context, 1, attributes);
  } finally {
    tryCall("close", context);
  }
}

/** fspick: what is mounted at a path has these parameters from now on, whichever mount shows it. @throws ContainerError */
export function reconfigureFilesystem(path: string, parameters: Parameter[]): void {
  const context = call("fspick", AT_FDCWD, path, 1);
  try {
    setParameters(context, parameters);
    call("fsconfig", context, FSCONFIG.RECONFIGURE, null, null, 0);
  } finally {
    tryCall("close", context);
  }
}

function setParameters(context: number, parameters: Parameter[]): void {
  for (const [key, value] of parameters) {
    if (value === undefined) call("fsconfig", context, FSCONFIG.SET_FLAG, key, null, 0);
    else if (typeof value === "string") call("fsconfig", context, FSCONFIG.SET_STRING, key, value, 0);
    else call("fsconfig", context, FSCONFIG.SET_FD, key, null, value);
  }
}

/**
 * A detached clone of what is mounted at a path, or of the tree a descriptor stands for (path "").
 * @param follow false: where the path is a symbolic link, the link itself
 * @throws ContainerError
 */
export function cloneTree(directory: number, path: string, recursive: boolean, follow = true): number {
  const flags = (recursive ? AT_RECURSIVE : 0) | (follow ? 0 : AT_SYMLINK_NOFOLLOW);
  return call("open_tree", directory, path, OPEN_TREE_CLONE | CLOEXEC | AT_EMPTY_PATH | flags);
}

/** mount_setattr(2). @throws ContainerError */
export function setAttributes(
  fd: number,
  {
    set = 0,
    clear = 0,
    propagation = 0,
    userns = 0,
  }: { set?: number; clear?: number; propagation?: number; userns?: number },
  recursive = false,
): void {
  const attributes = new BigUint64Array([BigInt(set), BigInt(clear), BigInt(propagation), BigInt(userns)]);
  call("mount_setattr", fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), new Uint8Array(attributes.buffer), 32);
}

/** Attaches a detached tree at a path of this mount namespace. @throws ContainerError */
export function attach(fd: number, path: string): void {
  const MOVE_MOUNT_F_EMPTY_PATH = 4;
  call("move_mount", fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
}
