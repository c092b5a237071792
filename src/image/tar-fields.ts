import { ContainerError } from "../error.ts";

/** What the fields of a tar header, and the records of PAX, say: tar(5), pax(1). Bytes in, values out. */

export const BLOCK = 512;
export const NUL = 0;

/** What is wrong with an archive. */
export function fault(why: string): ContainerError {
  return new ContainerError({ message: `cannot read the tar archive: ${why}`, code: "ERR_ARCHIVE" });
}

/** How much room contents take, in whole blocks. */
export function padded(length: number): number {
  return Math.ceil(length / BLOCK) * BLOCK;
}

/** A block of zeros ends an archive. */
export function isZero(block: Buffer): boolean {
  if (block[0] !== 0) return false;
  for (const byte of block) if (byte !== 0) return false;
  return true;
}

/** The sum of the header's bytes, its own field read as blanks; some old programs summed signed bytes. */
export function verifyChecksum(block: Buffer): void {
  let unsigned = 8 * 0x20;
  let negative = 0;
  for (let i = 0; i < BLOCK; i++) {
    if (i === 148) i = 156;
    const byte = block[i] ?? 0;
    unsigned += byte;
    if (byte > 127) negative += 256;
  }
  const stored = number(block, 148, 8, "checksum");
  if (stored !== unsigned && stored !== unsigned - negative) throw fault("the checksum of a header is wrong");
}

/** The bytes up to the first NUL. */
export function text(block: Buffer, from: number, length: number): Buffer {
  const field = block.subarray(from, from + length);
  const end = field.indexOf(NUL);
  return end < 0 ? field : field.subarray(0, end);
}

/** A number field: octal digits between blanks, or (first bit set) a big-endian two's complement number. */
export function number(block: Buffer, from: number, length: number, what: string): number {
  const first = block[from] ?? 0;
  if (first & 0x80) {
    let value = first & 0x40 ? -1n : 0n;
    for (let i = 0; i < length; i++) {
      const byte = block[from + i] ?? 0;
      value = (value << 8n) | BigInt(i === 0 ? (first & 0x40 ? byte : byte & 0x7f) : byte);
    }
    const result = Number(value);
    if (!Number.isSafeInteger(result)) throw fault(`a ${what} is out of range`);
    return result;
  }
  let at = from;
  let end = from + length;
  while (at < end && (block[at] === 0x20 || block[at] === NUL)) at++;
  while (end > at && (block[end - 1] === 0x20 || block[end - 1] === NUL)) end--;
  let value = 0;
  for (; at < end; at++) {
    const digit = (block[at] ?? 0) - 0x30;
    // some programs leave garbage behind the NUL that ends the digits
    if (block[at] === NUL) break;
    if (digit < 0 || digit > 7) throw fault(`a ${what} is not an octal number`);
    value = value * 8 + digit;
  }
  return value;
}

/** A number in a PAX record. */
export function decimal(digits: string, what: string): number {
  const value = /^[0-9]{1,16}$/.test(digits) ? Number(digits) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw fault(`${what} is not a number`);
  return value;
}

/** "-1.25" → [-2, 750000000]: digits beyond nanoseconds are cut off. */
export function time(digits: string): [number, number] {
  const parts = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(digits);
  if (parts === null) throw fault("mtime is not a number");
  const [, sign, whole = "0", fraction = ""] = parts;
  const seconds = Number(whole);
  const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, "0"));
  if (sign !== "-") return [seconds, nanoseconds];
  return nanoseconds === 0 ? [-seconds || 0, 0] : [-seconds - 1, 1_000_000_000 - nanoseconds];
}

/** Records are "LENGTH KEY=VALUE\n"; the length counts itself, and values are raw bytes that may hold anything. */
export function paxRecords(bytes: Buffer): [string, Buffer][] {
  const records: [string, Buffer][] = [];
  for (let at = 0; at < bytes.length; ) {
    // some programs pad with NULs
    if (bytes[at] === NUL && isZeroFrom(bytes, at)) break;
    const blank = bytes.indexOf(0x20, at);
    const length = blank < 0 || blank - at > 10 ? 0 : decimal(bytes.toString("latin1", at, blank), "record length");
    const end = at + length;
    const equals = bytes.indexOf(0x3d, blank);
    if (length < 5 || end > bytes.length || equals < 0 || equals >= end || bytes[end - 1] !== 0x0a)
      throw fault("a PAX record is malformed");
    records.push([bytes.toString("utf8", blank + 1, equals), bytes.subarray(equals + 1, end - 1)]);
    at = end;
  }
  return records;
}

function isZeroFrom(bytes: Buffer, from: number): boolean {
  for (let i = from; i < bytes.length; i++) if (bytes[i] !== 0) return false;
  return true;
}
