import {
  BLOCK,
  decimal,
  fault,
  isZero,
  NUL,
  number,
  padded,
  paxRecords,
  text,
  time,
  verifyChecksum,
} from "./tar-fields.ts";

export type TarType = "file" | "hardlink" | "symlink" | "character" | "block" | "directory" | "fifo";

/** One member of an archive. Names and link targets are bytes as stored: file names need not be UTF-8. */
export interface TarEntry {
  type: TarType;
  path: Buffer;
  /** Target of a hard or symbolic link; otherwise empty. */
  link: Buffer;
  /** Permission bits with set-id and sticky: 0 to 0o7777. */
  mode: number;
  uid: number;
  gid: number;
  /** Length of the file's contents, holes included; 0 for all but files. */
  sizeBytes: number;
  mtimeSeconds: number;
  /** 0 to 999999999, counted forward from mtimeSeconds. */
  mtimeNanoseconds: number;
  deviceMajor: number;
  deviceMinor: number;
  /** Names and raw values of SCHILY.xattr records: [name, value, name, value, …]. */
  xattrs: (string | Uint8Array)[];
  /** It has holes: data() is called for the parts that are not. */
  sparse: boolean;
}

/** Who takes what the reader finds: begin, data as often as there is some, end, for each member. */
export interface TarSink {
  begin(entry: TarEntry): void;
  /** A piece of the contents and its place in the file. The bytes are only valid during the call. */
  data(bytes: Uint8Array, offsetBytes: number): void;
  end(): void;
}

export interface TarLimits {
  /** Of one extended header (PAX record set, GNU long name). */
  headerBytes: number;
  /** Of one name or link target, NUL not counted. */
  nameBytes: number;
  entries: number;
  /** Parts of one sparse file. */
  sparseParts: number;
}

export const TAR_LIMITS: TarLimits = {
  headerBytes: 1 << 20,
  nameBytes: 4095,
  entries: 1_000_000,
  sparseParts: 1 << 20,
};

const EMPTY = Buffer.alloc(0);
const TYPES: Record<string, TarType | undefined> = {
  "\0": "file",
  "0": "file",
  "7": "file", // contiguous
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  D: "directory", // GNU incremental: the contents are a list of names
  "6": "fifo",
  S: "file", // GNU sparse
};

interface Part {
  offset: number;
  length: number;
}

/** What PAX records and GNU long-name members say about the member that follows. */
interface Extension {
  path?: Buffer;
  link?: Buffer;
  size?: number;
  uid?: number;
  gid?: number;
  mtime?: [number, number];
  xattrs: Map<string, Buffer>;
  sparseName?: Buffer;
  sparseSize?: number;
  sparseMajor?: number;
  sparseMinor?: number;
  parts: Part[];
  partOffset?: number;
  isSparse: boolean;
}

/** What the next bytes are. */
type State = "header" | "extension" | "oldSparse" | "sparseMap" | "contents" | "padding" | "end";

/**
 * Reads a tar archive from pieces of any size: ustar, PAX (POSIX.1-2017 pax), GNU long names and base-256 numbers,
 * star prefixes, GNU sparse files in the old form and PAX 0.0, 0.1 and 1.0. Pure: bytes in, calls of the sink out.
 * Every fault of the archive is a ContainerError ERR_ARCHIVE; so are limits that it exceeds.
 */
export class TarReader {
  #sink: TarSink;
  #limits: TarLimits;
  #state: State = "header";
  /** Bytes taken so far: an offset into the archive. */
  #positionBytes = 0;
  /** A header or an extension that is not complete yet. */
  #held = Buffer.alloc(BLOCK);
  #heldLength = 0;
  #wanted = BLOCK;
  #extensionType = "";
  #global: [string, Buffer][] = [];
  #extension: Extension = emptyExtension();
  #entry: TarEntry | undefined;
  #parts: Part[] = [];
  #part = 0;
  #partDone = 0;
  /** Stored bytes left of this member, without padding. */
  #left = 0;
  #padding = 0;
  #ignoreData = false;
  #zeroBlocks = 0;
  #entries = 0;

  constructor(sink: TarSink, limits: Partial<TarLimits> = {}) {
    this.#sink = sink;
    this.#limits = { ...TAR_LIMITS, ...limits };
  }

  /** Offset in the archive of the next byte the reader wants; within begin(): where the contents are stored. */
  get positionBytes(): number {
    return this.#positionBytes;
  }

  /** How many bytes of contents and padding come next, which a caller that needs no contents may skip() over. */
  get skippableBytes(): number {
    return this.#state === "contents" && !this.#entry?.sparse
      ? this.#left + this.#padding
      : this.#state === "padding"
        ? this.#padding
        : 0;
  }

  /** Goes over contents without seeing them; at most skippableBytes. */
  skip(length: number): void {
    if (length > this.skippableBytes) throw new RangeError("skip beyond the contents");
    this.#positionBytes += length;
    const contents = Math.min(length, this.#state === "contents" ? this.#left : 0);
    this.#left -= contents;
    this.#partDone += contents;
    this.#padding -= length - contents;
    this.#afterContents();
  }

  push(bytes: Uint8Array): void {
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    while (at < chunk.length) {
      const before = at;
      switch (this.#state) {
        case "contents":
          at += this.#takeContents(chunk, at);
          break;
        case "padding": {
          const length = Math.min(this.#padding, chunk.length - at);
          this.#padding -= length;
          at += length;
          this.#positionBytes += length;
          this.#afterContents();
          break;
        }
        case "end":
          // what follows the end mark is no part of the archive; tar programs pad to 10 KiB
          this.#positionBytes += chunk.length - at;
          return;
        default: {
          // a whole block within the chunk needs no copy
          if (this.#heldLength === 0 && this.#wanted <= chunk.length - at) {
            const block = chunk.subarray(at, at + this.#wanted);
            at += this.#wanted;
            this.#positionBytes += block.length;
            this.#takeBlock(block);
            break;
          }
          const length = Math.min(this.#wanted - this.#heldLength, chunk.length - at);
          if (this.#held.length < this.#wanted) {
            const grown = Buffer.alloc(
              Math.min(this.#wanted, Math.max(2 * this.#held.length, this.#heldLength + length)),
            );
            this.#held.copy(grown, 0, 0, this.#heldLength);
            this.#held = grown;
          }
          const fits = Math.min(length, this.#held.length - this.#heldLength);
          chunk.copy(this.#held, this.#heldLength, at, at + fits);
          this.#heldLength += fits;
          at += fits;
          this.#positionBytes += fits;
          if (this.#heldLength === this.#wanted) {
            const block = this.#held.subarray(0, this.#wanted);
            this.#heldLength = 0;
            this.#takeBlock(block);
          }
        }
      }
      if (at === before && this.#state !== "contents" && this.#state !== "padding") throw fault("no progress");
    }
  }

  /**
   * The archive ends here. Behind a member's contents that is accepted without padding and end mark: umoci writes
   * layers so.
   * @throws ContainerError ERR_ARCHIVE when it was cut short
   */
  finish(): void {
    const between = this.#state === "header" && this.#heldLength === 0 && !this.#extensionPending();
    if (this.#state !== "end" && this.#state !== "padding" && !between) throw fault("it is cut short");
  }

  #extensionPending(): boolean {
    const { path, link, size, uid, gid, mtime, xattrs, isSparse } = this.#extension;
    const set = path ?? link ?? size ?? uid ?? gid ?? mtime;
    return (
      this.#extensionType !== "" && this.#extensionType !== "g" && (set !== undefined || xattrs.size > 0 || isSparse)
    );
  }

  #takeBlock(block: Buffer): void {
    switch (this.#state) {
      case "header":
        this.#takeHeader(block);
        break;
      case "extension":
        this.#takeExtension(block);
        break;
      case "oldSparse":
        this.#takeOldSparse(block);
        break;
      default:
        this.#takeSparseMap(block);
    }
  }

  #takeHeader(block: Buffer): void {
    if (isZero(block)) {
      this.#zeroBlocks++;
      if (this.#extensionPending()) throw fault("an extended header has no member");
      if (this.#zeroBlocks === 2) this.#state = "end";
      return;
    }
    if (this.#zeroBlocks > 0) throw fault("a block of zeros is followed by a member");
    verifyChecksum(block);
    const typeflag = String.fromCharCode(block[156] ?? 0);
    const size = number(block, 124, 12, "size");
    if (size < 0) throw fault("a size is negative");
    if (typeflag === "x" || typeflag === "g" || typeflag === "L" || typeflag === "K" || typeflag === "X") {
      if (size > this.#limits.headerBytes) throw fault(`an extended header has ${size} bytes`);
      this.#extensionType = typeflag === "X" ? "x" : typeflag;
      this.#left = size;
      this.#state = "extension";
      this.#want(padded(size));
      if (size === 0) this.#takeExtension(EMPTY);
      return;
    }
    if (typeflag === "V") {
      // a volume's label; it has no contents
      this.#resetExtension();
      return;
    }
    this.#begin(block, typeflag, size);
  }

  #begin(block: Buffer, typeflag: string, headerSize: number): void {
    if (++this.#entries > this.#limits.entries) throw fault(`it has more than ${this.#limits.entries} members`);
    const extension = this.#extension;
    const magic = block.toString("latin1", 257, 265);
    const isUstar = magic.startsWith("ustar\0");
    let path = extension.sparseName ?? extension.path;
    if (path === undefined) {
      path = Buffer.from(text(block, 0, 100));
      const prefixLength = block.toString("latin1", 508, 512) === "tar\0" ? 131 : 155;
      const prefix = isUstar ? text(block, 345, prefixLength) : EMPTY;
      if (prefix.length > 0) path = Buffer.concat([prefix, Buffer.from("/"), path]);
    }
    let type = TYPES[typeflag];
    if (type === undefined) throw fault(`type ${JSON.stringify(typeflag)} of a member is unknown`);
    const stored = extension.size ?? headerSize;
    // links may repeat the size of what they point to, but nothing is stored
    const hasContents = type === "file" || typeflag === "D";
    // tar before POSIX had no type for directories
    if (type === "file" && path[path.length - 1] === 0x2f) type = "directory";
    const isDevice = type === "character" || type === "block";
    const [mtimeSeconds, mtimeNanoseconds] = extension.mtime ?? [number(block, 136, 12, "mtime"), 0];
    const xattrs: (string | Uint8Array)[] = [];
    for (const [key, value] of extension.xattrs) xattrs.push(key, value);
    const entry: TarEntry = {
      type,
      path: this.#name(path),
      link:
        type === "hardlink" || type === "symlink"
          ? this.#name(extension.link ?? Buffer.from(text(block, 157, 100)))
          : EMPTY,
      mode: number(block, 100, 8, "mode") & 0o7777,
      uid: extension.uid ?? number(block, 108, 8, "uid"),
      gid: extension.gid ?? number(block, 116, 8, "gid"),
      sizeBytes: type === "file" ? stored : 0,
      mtimeSeconds,
      mtimeNanoseconds,
      deviceMajor: isDevice ? number(block, 329, 8, "device") : 0,
      deviceMinor: isDevice ? number(block, 337, 8, "device") : 0,
      xattrs,
      sparse: false,
    };
    // -1 as an id means "leave unchanged" to chown(2)
    for (const id of [entry.uid, entry.gid]) if (id < 0 || id >= 0xffffffff) throw fault(`id ${id} is out of range`);
    this.#entry = entry;
    this.#ignoreData = type !== "file";
    this.#left = hasContents ? stored : 0;
    this.#padding = padded(this.#left) - this.#left;
    this.#parts = [{ offset: 0, length: this.#left }];
    if (typeflag === "S") {
      entry.sparse = true;
      entry.sizeBytes = number(block, 483, 12, "size");
      this.#parts = [];
      this.#addOldParts(block, 386, 4);
      if (block[482] !== NUL) this.#state = "oldSparse";
      else this.#beginSparse();
    } else if (type === "file" && extension.isSparse) {
      entry.sparse = true;
      entry.sizeBytes = extension.sparseSize ?? stored;
      this.#parts = extension.parts;
      if (extension.sparseMajor === 1 && (extension.sparseMinor ?? 0) === 0) {
        this.#parts = [];
        this.#mapNumbers = [];
        this.#mapPartial = "";
        this.#state = "sparseMap";
      } else if ((extension.sparseMajor ?? 0) === 0) this.#beginSparse();
      else throw fault(`sparse format ${extension.sparseMajor}.${extension.sparseMinor ?? 0} is unknown`);
    } else this.#beginContents();
  }

  #beginContents(): void {
    if (this.#entry === undefined) return;
    this.#resetExtension();
    this.#part = 0;
    this.#partDone = 0;
    this.#state = "contents";
    this.#sink.begin(this.#entry);
    this.#afterContents();
  }

  #beginSparse(): void {
    const size = this.#entry?.sizeBytes ?? 0;
    let end = 0;
    let stored = 0;
    for (const { offset, length } of this.#parts) {
      if (offset < end || length < 0 || !Number.isSafeInteger(offset + length) || offset + length > size)
        throw fault("the map of a sparse file is not in order");
      end = offset + length;
      stored += length;
    }
    if (stored !== this.#left) throw fault("the map of a sparse file does not fit its contents");
    this.#beginContents();
  }

  /** The old GNU form: pairs of 12-byte numbers, a flag behind the last that says whether a block of more follows. */
  #addOldParts(block: Buffer, from: number, count: number): void {
    for (let i = 0; i < count; i++) {
      const at = from + 24 * i;
      if (block[at] === NUL) break;
      this.#addPart(number(block, at, 12, "offset"), number(block, at + 12, 12, "length"));
    }
  }

  #addPart(offset: number, length: number): void {
    if (this.#parts.length >= this.#limits.sparseParts) throw fault("a sparse file has too many parts");
    this.#parts.push({ offset, length });
  }

  #takeOldSparse(block: Buffer): void {
    this.#addOldParts(block, 0, 21);
    if (block[504] === NUL) this.#beginSparse();
  }

  #mapNumbers: number[] = [];
  #mapPartial = "";

  /** PAX 1.0: the map stands before the contents, in decimal numbers ended by newlines, padded to a block. */
  #takeSparseMap(block: Buffer): void {
    if (this.#left < BLOCK) throw fault("the map of a sparse file is cut short");
    this.#left -= BLOCK;
    this.#mapPartial += block.toString("latin1");
    const numbers = this.#mapNumbers;
    for (;;) {
      const wanted = numbers[0] === undefined ? 1 : 1 + 2 * numbers[0];
      if (numbers.length === wanted) break;
      const newline = this.#mapPartial.indexOf("\n");
      if (newline < 0) {
        if (this.#mapPartial.length > BLOCK) throw fault("the map of a sparse file has no numbers");
        return;
      }
      numbers.push(decimal(this.#mapPartial.slice(0, newline), "sparse map"));
      this.#mapPartial = this.#mapPartial.slice(newline + 1);
      if (numbers.length === 1 && (numbers[0] ?? 0) > this.#limits.sparseParts)
        throw fault("a sparse file has too many parts");
    }
    for (let i = 1; i < numbers.length; i += 2) this.#addPart(numbers[i] ?? 0, numbers[i + 1] ?? 0);
    this.#beginSparse();
  }

  #takeContents(chunk: Buffer, at: number): number {
    const part = this.#parts[this.#part];
    if (part === undefined || this.#left === 0) {
      this.#afterContents();
      return 0;
    }
    const length = Math.min(part.length - this.#partDone, chunk.length - at);
    if (length > 0 && !this.#ignoreData) this.#sink.data(chunk.subarray(at, at + length), part.offset + this.#partDone);
    this.#partDone += length;
    this.#left -= length;
    this.#positionBytes += length;
    if (this.#partDone === part.length) {
      this.#part++;
      this.#partDone = 0;
    }
    this.#afterContents();
    return length;
  }

  #afterContents(): void {
    if (this.#state === "contents" && this.#left === 0) {
      this.#sink.end();
      this.#entry = undefined;
      this.#state = "padding";
    }
    if (this.#state === "padding" && this.#padding === 0) {
      this.#state = "header";
      this.#want(BLOCK);
    }
  }

  #want(length: number): void {
    this.#wanted = length;
    this.#heldLength = 0;
  }

  #resetExtension(): void {
    this.#extension = emptyExtension();
    this.#extensionType = "";
    if (this.#global.length > 0) this.#apply(this.#global);
  }

  #takeExtension(block: Buffer): void {
    const contents = Buffer.from(block.subarray(0, this.#left));
    if (this.#extensionType === "L") this.#extension.path = text(contents, 0, contents.length);
    else if (this.#extensionType === "K") this.#extension.link = text(contents, 0, contents.length);
    else {
      const records = paxRecords(contents);
      if (this.#extensionType === "x") this.#apply(records);
      else {
        // only what applies to every file has a sense in a global header
        this.#global = records.filter(([key]) => key === "mtime" || key === "uid" || key === "gid");
        this.#resetExtension();
      }
    }
    this.#left = 0;
    this.#state = "header";
    this.#want(BLOCK);
  }

  #apply(records: [string, Buffer][]): void {
    const extension = this.#extension;
    for (const [key, value] of records) {
      const string = () => value.toString("latin1");
      // an empty value takes back what a global header said
      const empty = value.length === 0;
      switch (key) {
        case "path":
          if (!empty) extension.path = value;
          break;
        case "linkpath":
          if (!empty) extension.link = value;
          break;
        case "size":
        case "uid":
        case "gid":
          if (empty) delete extension[key];
          else extension[key] = decimal(string(), key);
          break;
        case "mtime":
          if (empty) delete extension.mtime;
          else extension.mtime = time(string());
          break;
        case "GNU.sparse.name":
          extension.sparseName = value;
          break;
        case "GNU.sparse.size":
        case "GNU.sparse.realsize":
          extension.sparseSize = decimal(string(), key);
          extension.isSparse = true;
          break;
        case "GNU.sparse.major":
          extension.sparseMajor = decimal(string(), key);
          extension.isSparse = true;
          break;
        case "GNU.sparse.minor":
          extension.sparseMinor = decimal(string(), key);
          break;
        case "GNU.sparse.offset":
          extension.partOffset = decimal(string(), key);
          break;
        case "GNU.sparse.numbytes":
          if (extension.partOffset === undefined) throw fault("the map of a sparse file is not in order");
          extension.parts.push({ offset: extension.partOffset, length: decimal(string(), key) });
          delete extension.partOffset;
          break;
        case "GNU.sparse.map": {
          const numbers = empty ? [] : string().split(",");
          if (numbers.length % 2 === 1) throw fault("the map of a sparse file is not in order");
          for (let i = 0; i < numbers.length; i += 2)
            extension.parts.push({
              offset: decimal(numbers[i] ?? "", key),
              length: decimal(numbers[i + 1] ?? "", key),
            });
          break;
        }
        default:
          if (key.startsWith("SCHILY.xattr.")) extension.xattrs.set(key.slice("SCHILY.xattr.".length), value);
      }
    }
  }

  #name(name: Buffer): Buffer {
    if (name.length > this.#limits.nameBytes) throw fault(`a name has ${name.length} bytes`);
    if (name.includes(NUL)) throw fault("a name contains a NUL byte");
    return name;
  }
}

function emptyExtension(): Extension {
  return { xattrs: new Map(), parts: [], isSparse: false };
}
