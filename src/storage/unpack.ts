import { closeSync, ftruncateSync, writeSync } from "node:fs";
import { ContainerError } from "../error.ts";
import type { TarEntry, TarSink } from "../image/tar.ts";
import { addon } from "../kernel/addon.ts";
import { AT_SYMLINK_NOFOLLOW, O, pathBytes, RESOLVE, tryOpenIn } from "../kernel/file.ts";
import { call, kernelError, tryCall } from "../kernel/syscall.ts";
import {
  type Attributes,
  copyEntry,
  DOTDOT,
  deviceNumber,
  EEXIST,
  EOPNOTSUPP,
  isPlainName,
  keptXattrs,
  listXattrs,
  openDirectory,
  readLink,
  removeTree,
  S,
  type Stat,
  setAttributesOf,
  statIn,
  timespecs,
  tryOpenDirectory,
} from "./tree.ts";
import { type Found, findInUnion } from "./union.ts";
import { OVERLAY_WHITEOUTS, type Whiteouts } from "./whiteout.ts";

export interface UnpackTarget {
  /** Directory that becomes the layer. */
  root: number;
  /** The layers beneath it, the top one first. */
  lower: readonly number[];
  whiteouts?: Whiteouts;
}

/** Files up to this size are written in one crossing into the addon. */
const SMALL_BYTES = 1 << 20;
const MAX_LINKS = 40;
const EMPTY = Buffer.alloc(0);
const WHITEOUT = Buffer.from(".wh.");
const OPAQUE = Buffer.from(".wh..wh..opq");
const AUFS_METADATA = Buffer.from(".wh..wh.");

/**
 * Applies the members of a layer's archive to a directory (OCI image specification, layer.md), by descriptor.
 *
 * A path is walked one component at a time, each opened beneath its directory without following links. Where a
 * component is a link, of this layer or of one below, the walk goes on at its target inside the root, as containerd does
 * when it applies a layer to the mount of those below it: `lib/x` over a layer with `lib -> usr/lib` is `usr/lib/x`.
 * (Applied to the layer's directory alone, `lib` would become a directory that hides the link and all behind it.)
 * For the same reason a parent that the archive leaves out gets owner, mode and attributes from the layers below.
 * A path, or a link on it, that climbs above the root is an error.
 *
 * The descriptors kept are those of the directories of the last path alone; a directory that is replaced is forgotten.
 */
export class Unpacker implements TarSink {
  #root: number;
  #lower: readonly number[];
  #whiteouts: Whiteouts;
  #places: Walker;
  #targets: Walker;
  /** Paths with a whiteout of this layer. */
  #hidden = new Set<string>();
  #times = new Map<string, { path: Buffer[]; seconds: number; nanoseconds: number }>();
  #current: { mtimeSeconds: number; mtimeNanoseconds: number } = { mtimeSeconds: 0, mtimeNanoseconds: 0 };
  /** A file whose contents are still to come. */
  #entry: TarEntry | undefined;
  #parent = -1;
  #name: Buffer = EMPTY;
  #xattrs: (string | Uint8Array)[] = [];
  /** A large or sparse file while it is written. */
  #file = -1;
  #contents: Buffer = EMPTY;
  #contentsLength = 0;
  #sizeBytes = 0;
  #entries = 0;

  constructor({ root, lower, whiteouts = OVERLAY_WHITEOUTS }: UnpackTarget) {
    this.#root = root;
    this.#lower = lower;
    this.#whiteouts = whiteouts;
    this.#places = new Walker(root, (parent, path) => this.#missing(parent, path));
    this.#targets = new Walker(root, (parent, path) => this.#missing(parent, path));
  }

  begin(entry: TarEntry): void {
    this.#entries++;
    this.#current = entry;
    this.#explain(entry, () => this.#begin(entry));
  }

  data(bytes: Uint8Array, offsetBytes: number): void {
    const entry = this.#entry;
    if (entry === undefined) return;
    if (this.#file >= 0)
      this.#explain(entry, () => {
        for (let done = 0; done < bytes.length; )
          done += writeSync(this.#file, bytes, done, bytes.length - done, offsetBytes + done);
      });
    else if (bytes.length === entry.sizeBytes) this.#explain(entry, () => this.#writeSmall(entry, bytes));
    else {
      if (this.#contents.length < SMALL_BYTES) this.#contents = Buffer.allocUnsafe(SMALL_BYTES);
      this.#contents.set(bytes, this.#contentsLength);
      this.#contentsLength += bytes.length;
    }
  }

  end(): void {
    const entry = this.#entry;
    if (entry === undefined) return;
    this.#explain(entry, () => {
      if (this.#file < 0) this.#writeSmall(entry, this.#contents.subarray(0, this.#contentsLength));
      else this.#endLarge(entry);
    });
    this.#entry = undefined;
  }

  /** Sets the directories' times, which unpacking into them changed. @returns sum of the files' sizes, number of members */
  finish(): { sizeBytes: number; entries: number } {
    for (const { path, seconds, nanoseconds } of this.#times.values()) {
      const fd =
        path.length === 0 ? openDirectory(this.#root, Buffer.from(".")) : tryOpenDirectory(this.#root, join(path));
      // a later member may have replaced it
      if (fd < 0) continue;
      call("utimensat", fd, null, timespecs(seconds, nanoseconds), 0);
      closeSync(fd);
    }
    return { sizeBytes: this.#sizeBytes, entries: this.#entries };
  }

  /** Closes what is open; to be called however unpacking ended. */
  close(): void {
    this.#places.close();
    this.#targets.close();
    if (this.#file >= 0) closeSync(this.#file);
    this.#file = -1;
  }

  #begin(entry: TarEntry): void {
    const path = components(entry.path);
    const name = path.pop();
    if (name === undefined) {
      if (entry.type !== "directory") throw refusal("it stands for the root, but is no directory");
      const fd = openDirectory(this.#root, Buffer.from("."));
      this.#setDirectory(fd, entry, []);
      closeSync(fd);
      return;
    }
    // what aufs kept for itself in layers of old, not a part of the image
    const isOpaque = name.equals(OPAQUE);
    if (path.some(isAufsMetadata) || (isAufsMetadata(name) && !isOpaque)) return;
    this.#parent = this.#places.enter(path);
    if (isOpaque) {
      if (this.#lower.length > 0) this.#whiteouts.makeOpaque(this.#parent);
      return;
    }
    if (startsWith(name, WHITEOUT)) {
      this.#hide(name.subarray(WHITEOUT.length));
      return;
    }
    this.#name = name;
    const wasHidden = this.#reveal(name);
    switch (entry.type) {
      case "directory":
        this.#makeDirectory(entry, wasHidden);
        break;
      case "file":
        this.#entry = entry;
        this.#xattrs = keptXattrs(entry.xattrs);
        this.#contentsLength = 0;
        this.#sizeBytes += entry.sizeBytes;
        if (entry.sparse || entry.sizeBytes > SMALL_BYTES) this.#file = this.#create(entry.type);
        break;
      case "hardlink":
        this.#link(entry);
        break;
      case "symlink":
        this.#place("symlinkat", () => tryCall("symlinkat", pathBytes(entry.link), this.#parent, pathBytes(name)));
        this.#setByName(entry);
        break;
      default: {
        const type = { character: S.IFCHR, block: S.IFBLK, fifo: S.IFIFO }[entry.type];
        const device = deviceNumber(entry.deviceMajor, entry.deviceMinor);
        this.#place("mknodat", () => tryCall("mknodat", this.#parent, pathBytes(name), type | 0o600, device));
        this.#setByName(entry);
      }
    }
  }

  #hide(name: Buffer): void {
    if (!isPlainName(name)) throw refusal("it hides no name");
    if (this.#lower.length === 0) return;
    // a whiteout is about the layers below: what this layer has under that name stays
    const own = statIn(this.#parent, name);
    if (own === undefined) {
      const path = this.#places.pathOf(name);
      if (!this.#hidden.has(path)) this.#whiteouts.hide(this.#parent, name);
      this.#hidden.add(path);
    } else if ((own.mode & S.IFMT) === S.IFDIR) {
      const fd = openDirectory(this.#parent, name);
      this.#whiteouts.makeOpaque(fd);
      closeSync(fd);
    }
  }

  /** Takes back a whiteout of this layer, because the name comes back. @returns whether there was one */
  #reveal(name: Buffer): boolean {
    if (this.#hidden.size === 0 || !this.#hidden.delete(this.#places.pathOf(name))) return false;
    this.#whiteouts.reveal(this.#parent, name);
    return true;
  }

  #makeDirectory(entry: TarEntry, wasHidden: boolean): void {
    const made = tryCall("mkdirat", this.#parent, pathBytes(this.#name), 0o700);
    let fd = made === 0 || made === EEXIST ? tryOpenDirectory(this.#parent, this.#name) : made;
    if (fd < 0 && made === EEXIST) {
      this.#remove();
      call("mkdirat", this.#parent, pathBytes(this.#name), 0o700);
      fd = openDirectory(this.#parent, this.#name);
    }
    if (fd < 0) throw kernelError("mkdirat", -fd);
    this.#places.push(this.#name, fd);
    if (wasHidden) this.#whiteouts.makeOpaque(fd);
    this.#setDirectory(fd, entry, this.#places.path());
  }

  #setDirectory(fd: number, entry: TarEntry, path: Buffer[]): void {
    setAttributesOf(fd, { ...entry, xattrs: keptXattrs(entry.xattrs) });
    this.#rememberTime(path, entry);
  }

  #rememberTime(
    path: Buffer[],
    { mtimeSeconds, mtimeNanoseconds }: { mtimeSeconds: number; mtimeNanoseconds: number },
  ): void {
    this.#times.set(join(path).toString("latin1"), { path, seconds: mtimeSeconds, nanoseconds: mtimeNanoseconds });
  }

  #writeSmall(entry: TarEntry, bytes: Uint8Array): void {
    const write = () =>
      addon().writeFile(
        this.#parent,
        this.#name,
        bytes,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtimeSeconds,
        entry.mtimeNanoseconds,
        this.#xattrs,
      );
    this.#place("writeFile", () => {
      const result = write();
      if (result !== EOPNOTSUPP || this.#xattrs.length === 0) return result;
      // a file system without these attributes: as other engines do, the file goes without
      this.#xattrs = [];
      this.#remove();
      return write();
    });
    this.#entry = undefined;
  }

  #create(what: string): number {
    let fd = -1;
    this.#place(what, () => {
      const flags = O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW;
      fd = tryOpenIn(this.#parent, this.#name, flags, RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS, 0o600);
      return fd;
    });
    return fd;
  }

  #endLarge(entry: TarEntry): void {
    const fd = this.#file;
    this.#file = -1;
    try {
      if (entry.sparse) ftruncateSync(fd, entry.sizeBytes);
      setAttributesOf(fd, { ...entry, xattrs: this.#xattrs });
      call("utimensat", fd, null, timespecs(entry.mtimeSeconds, entry.mtimeNanoseconds), 0);
    } finally {
      closeSync(fd);
    }
  }

  #link(entry: TarEntry): void {
    const path = components(entry.link);
    const name = path.pop();
    if (name === undefined || startsWith(name, WHITEOUT)) throw refusal("its target is no file");
    const directory = this.#targets.enter(path);
    const targetPath = this.#targets.pathOf(name);
    if (targetPath === this.#places.pathOf(this.#name)) return; // a link to itself changes nothing
    const own = this.#hidden.has(targetPath) ? undefined : statIn(directory, name);
    if (own === undefined) {
      // the file is in a layer below: it moves up into this one under its old name too, so that both are one file
      const copied = this.#below(this.#targets, name, (found) => {
        refuseDirectory(found.stat);
        copyEntry(found.directory, found.name, directory, name);
        return true;
      });
      if (copied !== true) throw refusal(`its target ${entry.link} does not exist`);
    } else refuseDirectory(own);
    // without AT_SYMLINK_FOLLOW a link to a symbolic link is one to the symbolic link itself
    this.#place("linkat", () => tryCall("linkat", directory, pathBytes(name), this.#parent, pathBytes(this.#name), 0));
  }

  #setByName(entry: TarEntry): void {
    const name = pathBytes(this.#name);
    call("fchownat", this.#parent, name, entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW);
    // just made by us and no link, so that nothing is followed
    if (entry.type !== "symlink") call("fchmodat", this.#parent, name, entry.mode);
    call("utimensat", this.#parent, name, timespecs(entry.mtimeSeconds, entry.mtimeNanoseconds), AT_SYMLINK_NOFOLLOW);
  }

  /** Makes an entry; what an earlier member left under the name gives way. */
  #place(syscall: string, make: () => number): void {
    let result = make();
    if (result === EEXIST) {
      this.#remove();
      result = make();
    }
    if (result < 0) throw kernelError(syscall, -result);
  }

  #remove(): void {
    this.#targets.forget([...this.#places.path(), this.#name]);
    removeTree(this.#parent, this.#name);
  }

  /** Looks up, in the layers below, a name in the directory where a walker stands. */
  #below<T>(walker: Walker, name: Buffer, use: (found: Found) => T): T | undefined {
    if (this.#lower.length === 0 || this.#hidden.has(walker.pathOf(name))) return;
    if (walker.descriptors().some((fd) => this.#whiteouts.isOpaque(fd))) return;
    return findInUnion(this.#lower, [...walker.path(), name], this.#whiteouts, use);
  }

  /** The walk needs a directory that this layer does not have yet. @returns the link to follow, or the directory made */
  #missing(walker: Walker, name: Buffer): Buffer | number {
    const path = [...walker.path(), name];
    const parent = walker.descriptor();
    const wasHidden = this.#hidden.delete(walker.pathOf(name));
    let attributes: Attributes = { uid: 0, gid: 0, mode: 0o755, xattrs: [] };
    // not the time of day: the same layer gives the same tree
    this.#rememberTime(path, this.#current);
    if (wasHidden) this.#whiteouts.reveal(parent, name);
    else {
      const below = this.#below(walker, name, ({ directory, stat }): Buffer | Attributes | undefined => {
        const type = stat.mode & S.IFMT;
        if (type === S.IFLNK) return readLink(directory, name);
        if (type !== S.IFDIR) return;
        const fd = openDirectory(directory, name);
        const xattrs = keptXattrs(listXattrs(fd));
        closeSync(fd);
        this.#rememberTime(path, stat);
        return { ...stat, xattrs };
      });
      if (Buffer.isBuffer(below)) return below;
      if (below !== undefined) attributes = below;
    }
    call("mkdirat", parent, pathBytes(name), 0o700);
    const fd = openDirectory(parent, name);
    setAttributesOf(fd, attributes);
    if (wasHidden) this.#whiteouts.makeOpaque(fd);
    return fd;
  }

  #explain(entry: TarEntry, act: () => void): void {
    try {
      act();
    } catch (error) {
      const { code, errno, syscall } = error as NodeJS.ErrnoException; // whatever was thrown, these are read as data
      throw new ContainerError({
        message: `cannot unpack ${entry.path}: ${error instanceof Error ? error.message : error}`,
        code,
        errno: errno === undefined ? undefined : Math.abs(errno),
        syscall,
        path: entry.path.toString(),
        cause: error,
      });
    }
  }
}

/** Stands in a directory beneath the root, and holds the descriptors of the directories on the way there. */
class Walker {
  #root: number;
  #missing: (walker: Walker, name: Buffer) => Buffer | number;
  #levels: { name: Buffer; fd: number }[] = [];

  constructor(root: number, missing: (walker: Walker, name: Buffer) => Buffer | number) {
    this.#root = root;
    this.#missing = missing;
  }

  descriptor(): number {
    return this.#levels.at(-1)?.fd ?? this.#root;
  }

  descriptors(): number[] {
    return [this.#root, ...this.#levels.map(({ fd }) => fd)];
  }

  path(): Buffer[] {
    return this.#levels.map(({ name }) => name);
  }

  pathOf(name: Buffer): string {
    return join([...this.path(), name]).toString("latin1");
  }

  push(name: Buffer, fd: number): void {
    this.#levels.push({ name, fd });
  }

  /** Goes to the directory with this path. @returns its descriptor, which stays the walker's @throws ContainerError */
  enter(path: readonly Buffer[]): number {
    let same = 0;
    for (; same < path.length; same++) {
      const name = path[same];
      if (name === undefined || !this.#levels[same]?.name.equals(name)) break;
    }
    this.#leave(same);
    const rest = path.slice(same);
    let links = 0;
    for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
      if (name.length === 0 || (name.length === 1 && name[0] === 0x2e)) continue;
      if (name.equals(DOTDOT)) {
        if (this.#levels.length === 0) throw refusal("it leaves the tree through a symbolic link");
        this.#leave(this.#levels.length - 1);
        continue;
      }
      const parent = this.descriptor();
      let next: Buffer | number = tryOpenDirectory(parent, name);
      if (next < 0) {
        const stat = statIn(parent, name);
        const type = (stat?.mode ?? 0) & S.IFMT;
        const isWhiteout = type === S.IFCHR && stat?.deviceMajor === 0 && stat.deviceMinor === 0;
        if (type === S.IFLNK) next = readLink(parent, name);
        else if (stat === undefined || isWhiteout) next = this.#missing(this, name);
        else if (type === S.IFDIR) throw kernelError("openat2", -next, name.toString());
        else throw refusal(`${name} is not a directory`);
      }
      if (typeof next === "number") this.push(name, next);
      else {
        if (++links > MAX_LINKS) throw refusal("too many symbolic links lead to it");
        if (next[0] === 0x2f) this.#leave(0);
        rest.unshift(...splitPath(next));
      }
    }
    return this.descriptor();
  }

  /** The directory at this path is gone: nothing in it may be reached through what was kept. */
  forget(path: readonly Buffer[]): void {
    if (path.every((name, depth) => this.#levels[depth]?.name.equals(name))) this.#leave(path.length - 1);
  }

  close(): void {
    this.#leave(0);
  }

  #leave(depth: number): void {
    for (const { fd } of this.#levels.splice(depth)) closeSync(fd);
  }
}

function refusal(why: string): ContainerError {
  return new ContainerError({ message: why, code: "ERR_ARCHIVE" });
}

function refuseDirectory(stat: Stat): void {
  if ((stat.mode & S.IFMT) === S.IFDIR) throw refusal("its target is a directory");
}

function startsWith(name: Buffer, prefix: Buffer): boolean {
  return name.length >= prefix.length && name.compare(prefix, 0, prefix.length, 0, prefix.length) === 0;
}

function isAufsMetadata(name: Buffer): boolean {
  return startsWith(name, AUFS_METADATA);
}

function join(path: readonly Buffer[]): Buffer {
  return Buffer.from(path.map((name) => name.toString("latin1")).join("/"), "latin1");
}

function splitPath(path: Buffer): Buffer[] {
  const names: Buffer[] = [];
  for (let at = 0; at <= path.length; ) {
    const slash = path.indexOf(0x2f, at);
    const end = slash < 0 ? path.length : slash;
    if (end > at) names.push(path.subarray(at, end));
    at = end + 1;
  }
  return names;
}

/** The names of a member's path, read as text: "./a//b/../c" is a/c; one that climbs above the root is refused. */
function components(path: Buffer): Buffer[] {
  const names: Buffer[] = [];
  for (const name of splitPath(path)) {
    if (name.length === 1 && name[0] === 0x2e) continue;
    if (!name.equals(DOTDOT)) names.push(name);
    else if (names.pop() === undefined) throw refusal("it leaves the tree by '..'");
  }
  return names;
}
