import { fstatSync, readSync } from "node:fs";
import { join } from "node:path";
import { AT_FDCWD, close, O, RESOLVE, tryOpenIn } from "../kernel/file.ts";
import { call, tryCall } from "../kernel/syscall.ts";
import { isBind } from "../plan/mounts.ts";
import { normalPath } from "../plan/path.ts";
import { hasHome } from "../plan/process.ts";
import type { Mount, Spec } from "../spec/spec.ts";

const MAX_BYTES = 1 << 20;

/**
 * What only the root's /etc/passwd can tell: HOME, when the environment has none. The root is read before anything of
 * the container exists, through its descriptor; a file that the spec mounts over passwd is read instead.
 */
export function userFacts({ spec, bundle, pid }: { spec: Spec; bundle: string; pid?: number }): { home?: string } {
  const process = spec.process;
  if (process === undefined || hasHome(process.env ?? [])) return {};
  const uid = process.user?.uid ?? 0;
  const home = homeIn(readPasswd(spec, bundle, pid), uid);
  return home === undefined ? {} : { home };
}

function readPasswd(spec: Spec, bundle: string, pid: number | undefined): string {
  const cover = pid === undefined ? coverOf(spec) : undefined;
  if (cover !== undefined) {
    const { mount, below } = cover;
    // what a filesystem of its own has there is known to nobody yet, and engines mount empty ones
    if (!isBind(mount)) return "";
    // whoever can write a directory that is mounted must not lead us to another file of the host
    const flags = O.RDONLY | O.NONBLOCK | O.CLOEXEC | (below === "" ? 0 : O.NOFOLLOW);
    return readRegular(tryCall("openat", AT_FDCWD, join(absolute(bundle, mount.source ?? ""), below), flags, 0));
  }
  const path = pid === undefined ? absolute(bundle, spec.root?.path ?? "") : `/proc/${pid}/root`;
  const root = tryCall("openat", AT_FDCWD, path, O.PATH | O.DIRECTORY | O.CLOEXEC, 0);
  if (root < 0) return "";
  // O_NONBLOCK: an image whose passwd is a FIFO must not stop us
  const file = tryOpenIn(root, "etc/passwd", O.RDONLY | O.NONBLOCK, RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS);
  close(root);
  return readRegular(file);
}

/** The last mount on passwd itself, or on its directory. */
function coverOf({ mounts = [] }: Spec): { mount: Mount; below: string } | undefined {
  for (const mount of [...mounts].reverse()) {
    const target = normalPath(mount.destination);
    if (target === "/etc/passwd") return { mount, below: "" };
    if (target === "/etc" && !(mount.options ?? []).includes("tmpcopyup")) return { mount, below: "passwd" };
  }
  return;
}

function absolute(bundle: string, path: string): string {
  return path.startsWith("/") ? path : join(bundle, path);
}

function readRegular(fd: number): string {
  if (fd < 0) return "";
  try {
    const facts = fstatSync(fd);
    if (!facts.isFile() || facts.size > MAX_BYTES) return "";
    const bytes = Buffer.alloc(facts.size);
    return bytes.toString("utf8", 0, readSync(fd, bytes, 0, bytes.length, 0));
  } finally {
    call("close", fd);
  }
}

/** passwd(5): name:password:uid:gid:comment:home:shell */
function homeIn(passwd: string, uid: number): string | undefined {
  for (const line of passwd.split("\n")) {
    const fields = line.split(":");
    if (fields[2] === String(uid) && fields[5] !== undefined && fields[5] !== "") return fields[5];
  }
  return;
}
