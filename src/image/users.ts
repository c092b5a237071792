import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { O, RESOLVE, tryOpenIn } from "../kernel/file.ts";
import { kernelError } from "../kernel/syscall.ts";
import { type Found, findInUnion } from "../storage/union.ts";
import { OVERLAY_WHITEOUTS } from "../storage/whiteout.ts";

/** Who a process of a container is. */
export interface User {
  uid: number;
  gid: number;
  /** gid first. */
  additionalGids: number[];
  /** From /etc/passwd; "/" where it says nothing. */
  home: string;
}

/** A container's root: its descriptor, or before it is mounted the directories of its layers, the top one first. */
export type Root = number | { layers: readonly string[] };

const FILE_BYTES = 1 << 20;
/** 2^31-1: a larger number turned into root in programs that read it as a signed one (CVE-2024-40635). */
const MAX_ID = 0x7fffffff;

interface Passwd {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

interface Group {
  name: string;
  gid: number;
  members: string[];
}

function fault(message: string): ContainerError {
  return new ContainerError({ message, code: "ERR_USER" });
}

/**
 * A file inside a container's root, through its descriptor. The container may have put anything there: links stay inside
 * the root, a fifo or device is not waited for. @returns undefined where there is none
 * @throws ContainerError ERR_USER for what is no file or larger than 1 MiB
 */
function readInRoot(root: Root, path: string): string | undefined {
  return typeof root === "number"
    ? readOpened(tryOpenIn(root, path, O.RDONLY | O.NONBLOCK | O.NOCTTY, RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS), path)
    : readInLayers(root.layers, path);
}

/** The file that a union of the layers (directories, the top one first) would show; links are not followed. */
function readInLayers(layers: readonly string[], path: string): string | undefined {
  const directories = layers.map((layer) => openSync(layer, O.RDONLY | O.DIRECTORY | O.NOFOLLOW));
  try {
    const parts = path.split("/").map((part) => Buffer.from(part));
    const open = ({ directory, name }: Found) =>
      tryOpenIn(directory, name, O.RDONLY | O.NONBLOCK | O.NOCTTY, RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS);
    const fd = findInUnion(directories, parts, OVERLAY_WHITEOUTS, open);
    return fd === undefined ? undefined : readOpened(fd, path);
  } finally {
    for (const fd of directories) closeSync(fd);
  }
}

function readOpened(fd: number, path: string): string | undefined {
  const [ENOENT, ENOTDIR, ENXIO, ELOOP] = [-2, -20, -6, -40];
  if (fd === ENOENT || fd === ENOTDIR || fd === ELOOP) return;
  if (fd === ENXIO) throw fault(`cannot read /${path} of the container: it is not a file`);
  if (fd < 0) throw kernelError("openat2", -fd, path);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw fault(`cannot read /${path} of the container: it is not a file`);
    // one byte more tells whether there is more; procfs files say that they are empty
    const buffer = Buffer.alloc(FILE_BYTES + 1);
    let length = 0;
    for (let more = 1; more > 0 && length < buffer.length; length += more)
      more = readSync(fd, buffer, length, buffer.length - length, null);
    if (length > FILE_BYTES) throw fault(`cannot read /${path} of the container: it is larger than 1 MiB`);
    return buffer.toString("utf8", 0, length);
  } finally {
    closeSync(fd);
  }
}

/** Digits alone, no sign, no blank, no other base. undefined: it is not a number. @throws ContainerError beyond 2^31-1 */
function parseId(text: string, what: string): number | undefined {
  if (!/^[0-9]+$/.test(text)) return;
  const id = Number(text);
  if (id > MAX_ID) throw fault(`cannot use ${what} ${text}: ids go from 0 to ${MAX_ID}`);
  return id;
}

/** An id in /etc/passwd or /etc/group: what is none makes the line no entry. */
function idField(text: string | undefined): number | undefined {
  return text !== undefined && /^[0-9]{1,10}$/.test(text) && Number(text) <= MAX_ID ? Number(text) : undefined;
}

function parsePasswd(text: string | undefined): Passwd[] {
  const entries: Passwd[] = [];
  for (const line of (text ?? "").split("\n")) {
    const [name, , uidText, gidText, , home = ""] = line.split(":");
    const [uid, gid] = [idField(uidText), idField(gidText)];
    if (name && uid !== undefined && gid !== undefined) entries.push({ name, uid, gid, home });
  }
  return entries;
}

function parseGroups(text: string | undefined): Group[] {
  const entries: Group[] = [];
  for (const line of (text ?? "").split("\n")) {
    const [name, , gidText, members = ""] = line.split(":");
    const gid = idField(gidText);
    if (name && gid !== undefined)
      entries.push({ name, gid, members: members.split(",").filter((member) => member !== "") });
  }
  return entries;
}

/**
 * Finds out who "USER" or "USER:GROUP" is in a container; each is a name or a number, and names win. "" is root.
 * A number needs no entry: its group is then 0. Supplementary groups are those of the user's name, unless a group is given.
 * @param root descriptor of the container's root
 * @param additional names or numbers of further groups (--group-add)
 * @throws ContainerError ERR_USER in docker's words
 */
export function resolveUser(root: Root, text: string, additional: readonly string[] = []): User {
  const parts = text.split(":");
  const [userText = "", groupText] = parts;
  // 2026-30892: "1000:" and its like must not end as another user than the one meant
  if (parts.length > 2 || groupText === "" || /[\s\0]/.test(text) || (userText === "" && groupText !== undefined))
    throw fault(`cannot use ${JSON.stringify(text)} as a user: it must be USER or USER:GROUP`);
  const wanted = userText === "" ? "0" : userText;
  const users = parsePasswd(readInRoot(root, "etc/passwd"));
  const groups = parseGroups(readInRoot(root, "etc/group"));

  const id = parseId(wanted, "uid");
  const entry = users.find(({ name }) => name === wanted) ?? users.find(({ uid }) => uid === id);
  if (entry === undefined && id === undefined)
    throw fault(`unable to find user ${userText}: no matching entries in passwd file`);
  const uid = entry?.uid ?? id ?? 0;

  const groupId = (given: string): number => {
    const number = parseId(given, "gid");
    const found = groups.find(({ name }) => name === given)?.gid ?? number;
    if (found === undefined) throw fault(`unable to find group ${given}: no matching entries in group file`);
    return found;
  };
  const gid = groupText === undefined ? (entry?.gid ?? 0) : groupId(groupText);
  const own =
    groupText === undefined && entry !== undefined
      ? groups.filter(({ members }) => members.includes(entry.name)).map((group) => group.gid)
      : [];
  // the group itself too: else a program could leave it, and with it what the group is denied (CVE-2022-36109)
  const additionalGids = [...new Set([gid, ...own, ...additional.map(groupId)])];
  return { uid, gid, additionalGids, home: homeOr(entry) };
}

/** Home directory of a uid by the container's /etc/passwd; "/" where it says nothing. @throws ContainerError ERR_USER */
export function homeOf(root: Root, uid: number): string {
  return homeOr(parsePasswd(readInRoot(root, "etc/passwd")).find((entry) => entry.uid === uid));
}

function homeOr(entry: Passwd | undefined): string {
  return entry === undefined || entry.home === "" ? "/" : entry.home;
}
