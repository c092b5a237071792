import { existsSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { close, O, open } from "../kernel/file.ts";
import { openProcess, reap, signal, spawn, wait } from "../kernel/process.ts";
import { call } from "../kernel/syscall.ts";

/** Where distributions keep newuidmap(1); PATH is the caller's, and what is found there need not be root's program. */
const DIRECTORIES = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/run/wrappers/bin"];
const TIMEOUT_MS = 10_000;

/** Writes a file of a process that rules its user namespace: uid_map, gid_map, setgroups. @throws ContainerError */
export function writeIdFile(pid: number, name: "uid_map" | "gid_map" | "setgroups", text: string): void {
  const file = open(`/proc/${pid}/${name}`, O.WRONLY);
  try {
    const bytes = Buffer.from(text);
    call("write", file, bytes, bytes.length);
  } finally {
    close(file);
  }
}

/** Has newuidmap(1) or newgidmap(1) write a map, each line "inside outside count". @throws ContainerError */
export function mapByHelper(pid: number, kind: "uid" | "gid", map: string): void {
  const name = `new${kind}map`;
  const path = DIRECTORIES.map((directory) => `${directory}/${name}`).find(existsSync);
  if (path === undefined)
    throw new ContainerError({
      message: `cannot map more than one's own ${kind}: there is no ${name}`,
      code: "ENOENT",
      hint: `install it (Debian's package uidmap), or map one ${kind} only`,
    });
  const helper = openProcess(spawn(path, [name, String(pid), ...map.trim().split(/\s+/)], [], [-1, 2, 2]));
  try {
    const [ended] = wait([helper], TIMEOUT_MS);
    if (ended === 0) signal(helper, 9);
    const { status } = reap(helper) ?? { status: -1 };
    if (status !== 0)
      throw new ContainerError({
        message: `failed to use new${kind} map on ${pid}: ${ended === 0 ? "it did not end in time" : `exit status ${status}`}`,
        code: "EPERM",
        hint: `/etc/sub${kind} must lend this user all ${kind}s of the map that are not its own`,
      });
  } finally {
    close(helper);
  }
}
