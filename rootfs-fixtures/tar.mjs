/**
 * A tar writer that says every byte: what the archives of other programs hold, and what an attacker's would.
 * Layouts: POSIX.1-2008 pax, "Basic Tar Format" and "GNU tar extensions" of the GNU tar manual.
 *
 * A member is { path, type, mode, uid, gid, mtime, … } as the manifests write it (README.md), and for malicious
 * archives also: typeFlag (one character), rawSize (12 bytes of the size field), rawPax (bytes of a pax header
 * in place of ours), badChecksum.
 */

const BLOCK = 512;
const DEFAULT_MTIME = "1700000000";
const TYPE_FLAGS = {
  file: "0",
  sparse: "0",
  hardlink: "1",
  symlink: "2",
  character: "3",
  block: "4",
  directory: "5",
  fifo: "6",
};
const DEFAULT_MODES = { directory: 0o755, symlink: 0o777, character: 0o666, block: 0o660, fifo: 0o644 };

/** The archive of these members, with its two blocks of zeros at the end. */
export function writeTar(members) {
  return Buffer.concat([...members.flatMap(writeMember), Buffer.alloc(2 * BLOCK)]);
}

/** The blocks of one member: extended headers, header, content. */
export function writeMember(member) {
  const { type, format = "pax" } = member;
  const name = member.pathHex === undefined ? Buffer.from(member.path) : Buffer.from(member.pathHex, "hex");
  const path = type === "directory" && member.typeFlag === undefined ? Buffer.concat([name, Buffer.from("/")]) : name;
  const target = Buffer.from(type === "symlink" || type === "hardlink" ? member.target : "");
  const [seconds, fraction] = (member.mtime ?? DEFAULT_MTIME).split(".");
  const records = [];
  const blocks = [];
  const header = {
    path,
    target,
    mode: member.mode === undefined ? (DEFAULT_MODES[type] ?? 0o644) : Number.parseInt(member.mode, 8),
    uid: member.uid ?? 0,
    gid: member.gid ?? 0,
    mtime: Number(seconds),
    device: (member.device ?? "0:0").split(":").map(Number),
    typeFlag: member.typeFlag ?? TYPE_FLAGS[type],
    isGnu: format === "gnu",
    rawSize: member.rawSize,
    badChecksum: member.badChecksum,
  };
  let content = member.content ?? Buffer.alloc(0);

  if (type === "sparse") content = writeSparse(member, header, records);
  if (fraction !== undefined) records.push(["mtime", member.mtime]);
  for (const [attribute, hex] of Object.entries(member.xattrs ?? {}))
    records.push([`SCHILY.xattr.${attribute}`, Buffer.from(hex, "hex")]);
  if (header.path.length > 100 && format === "ustar") splitPath(header);
  else if (header.path.length > 100 && header.isGnu) blocks.push(...writeLong("L", header.path));
  else if (header.path.length > 100) records.push(["path", header.path]);
  if (target.length > 100 && header.isGnu) blocks.push(...writeLong("K", target));
  else if (target.length > 100) records.push(["linkpath", target]);
  if (!header.isGnu) {
    for (const field of ["uid", "gid"]) if (header[field] > 0o7777777) records.push([field, String(header[field])]);
  }

  const pax = member.rawPax ?? Buffer.concat(records.map(([key, value]) => writePaxRecord(key, value)));
  if (pax.length > 0) {
    const paxHeader = { ...header, path: Buffer.from("PaxHeaders/member"), target: Buffer.alloc(0), typeFlag: "x" };
    blocks.push(
      writeHeader({ ...paxHeader, rawSize: member.rawPaxSize, extension: undefined, prefix: undefined }, pax.length),
      pad(pax),
    );
  }
  blocks.push(writeHeader(header, content.length), ...(header.moreBlocks ?? []), pad(content));
  return blocks;
}

/** "LENGTH KEY=VALUE\n", where LENGTH counts itself. */
export function writePaxRecord(key, value) {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from("\n")]);
  let length = rest.length;
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

/** Twelve bytes of a big-endian two's complement number with the first bit set: GNU's way out of octal. */
export function base256(value, width) {
  const bytes = Buffer.alloc(width);
  let rest = BigInt.asUintN(width * 8 - 1, BigInt(value));
  for (let i = width - 1; i >= 0; i--) {
    bytes[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  bytes[0] |= 0x80;
  return bytes;
}

function writeHeader(header, size) {
  const block = Buffer.alloc(BLOCK);
  header.path.copy(block, 0, 0, 100);
  writeNumber(block, 100, 8, header.mode);
  writeNumber(block, 108, 8, header.uid);
  writeNumber(block, 116, 8, header.gid);
  writeNumber(block, 124, 12, size);
  header.rawSize?.copy(block, 124);
  writeNumber(block, 136, 12, header.mtime);
  block.write(header.typeFlag, 156, "latin1");
  header.target.copy(block, 157, 0, 100);
  block.write(header.isGnu ? "ustar  \0" : "ustar\x0000", 257, "latin1");
  writeNumber(block, 329, 8, header.device[0]);
  writeNumber(block, 337, 8, header.device[1]);
  if (header.extension === undefined) header.prefix?.copy(block, 345);
  else header.extension.copy(block, 386);
  block.fill(" ", 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0) + (header.badChecksum === true ? 1 : 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

function writeNumber(block, offset, width, value) {
  const octal = value.toString(8).padStart(width - 1, "0");
  if (value >= 0 && octal.length < width) block.write(octal, offset, "latin1");
  else base256(value, width).copy(block, offset);
}

/** A member that holds the name of the next one. */
function writeLong(typeFlag, name) {
  const content = Buffer.concat([name, Buffer.alloc(1)]);
  const empty = Buffer.alloc(0);
  const zeros = { mode: 0, uid: 0, gid: 0, mtime: 0, device: [0, 0], isGnu: true };
  return [
    writeHeader({ ...zeros, path: Buffer.from("././@LongLink"), target: empty, typeFlag }, content.length),
    pad(content),
  ];
}

/** ustar keeps up to 155 bytes of leading directories in a field of their own. */
function splitPath(header) {
  const slash = header.path.indexOf("/", header.path.length - 101);
  if (slash < 0 || slash > 155) throw new Error(`cannot split ${header.path} for ustar`);
  header.prefix = header.path.subarray(0, slash);
  header.path = header.path.subarray(slash + 1);
}

/**
 * The content of a sparse file, { sizeBytes, segments: [{ offset, text }] }, its map being in the content
 * (sparse "1.0"), in a pax record ("0.1") or in the header and extension blocks ("old").
 */
function writeSparse({ sparse, sizeBytes, segments }, header, records) {
  // GNU tar reads each segment from a new block, Go's archive/tar where the last one ended: as GNU tar writes
  // them, whole blocks up to the end of the file, both read the same.
  const pieces = segments.map(({ offset, text }) => {
    const bytes = Buffer.from(text);
    const length = Math.max(bytes.length, Math.min(pad(bytes).length, sizeBytes - offset));
    return pad(bytes).subarray(0, length);
  });
  const lengths = segments.map(({ lengthBytes }, i) => lengthBytes ?? pieces[i].length);
  const data = Buffer.concat(pieces);
  if (sparse === "old") {
    const map = segments.map(({ offset }, i) => [offset, lengths[i]]);
    const table = (entries, count, isMore, tail) => {
      const bytes = Buffer.alloc(count * 24 + 1 + tail);
      for (const [i, [offset, length]] of entries.entries()) {
        writeNumber(bytes, i * 24, 12, offset);
        writeNumber(bytes, i * 24 + 12, 12, length);
      }
      bytes[count * 24] = isMore ? 1 : 0;
      return bytes;
    };
    header.typeFlag = "S";
    header.isGnu = true;
    header.extension = table(map.slice(0, 4), 4, map.length > 4, 12);
    writeNumber(header.extension, 97, 12, sizeBytes);
    header.moreBlocks = [];
    for (let i = 4; i < map.length; i += 21)
      header.moreBlocks.push(pad(table(map.slice(i, i + 21), 21, i + 21 < map.length, 0)));
    return data;
  }
  const numbers = segments.flatMap(({ offset }, i) => [offset, lengths[i]]);
  const slash = header.path.lastIndexOf("/") + 1;
  if (sparse === "0.1") {
    records.push(["GNU.sparse.size", String(sizeBytes)], ["GNU.sparse.numblocks", String(segments.length)]);
    records.push(["GNU.sparse.name", header.path], ["GNU.sparse.map", numbers.join(",")]);
  } else {
    records.push(["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"]);
    records.push(["GNU.sparse.name", header.path], ["GNU.sparse.realsize", String(sizeBytes)]);
  }
  header.path = Buffer.concat([
    header.path.subarray(0, slash),
    Buffer.from("GNUSparseFile.0/"),
    header.path.subarray(slash),
  ]);
  if (sparse === "0.1") return data;
  return Buffer.concat([pad(Buffer.from(`${[segments.length, ...numbers].join("\n")}\n`)), data]);
}

function pad(content) {
  return Buffer.concat([content, Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK)]);
}
