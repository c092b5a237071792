import { ContainerError } from "../error.ts";

/**
 * A value as D-Bus has it: integers up to 32 bits and doubles are numbers, longer ones bigints (numbers are taken, too),
 * an array of bytes is a Uint8Array, a structure an array of its fields, a dictionary an array of pairs.
 */
export type Value = number | bigint | boolean | string | Uint8Array | Variant | readonly Value[];

/** A value that carries its own type. */
export interface Variant {
  /** One complete type, such as "s" or "a(ss)". */
  signature: string;
  value: Value;
}

/** A type, parsed: its code, and what it is made of. */
interface Type {
  code: string;
  parts: Type[];
}

/** Bytes that a type's values start at a multiple of, and that those of fixed size take. */
const ALIGNMENTS: { [code: string]: number } = {
  y: 1,
  g: 1,
  v: 1,
  n: 2,
  q: 2,
  b: 4,
  i: 4,
  u: 4,
  h: 4,
  s: 4,
  o: 4,
  a: 4,
  x: 8,
  t: 8,
  d: 8,
  "(": 8,
  "{": 8,
};
/** D-Bus Specification, "Valid Signatures": 32 arrays and 32 structures within each other. */
const MAX_DEPTH = 64;
const MAX_ARRAY_BYTES = 1 << 26;

const FIXED: {
  [code: string]: [
    write: (view: DataView, at: number, value: bigint) => void,
    read: (view: DataView, at: number, little: boolean) => Value,
  ];
} = {
  y: [(view, at, value) => view.setUint8(at, Number(value)), (view, at) => view.getUint8(at)],
  n: [(view, at, value) => view.setInt16(at, Number(value), true), (view, at, little) => view.getInt16(at, little)],
  q: [(view, at, value) => view.setUint16(at, Number(value), true), (view, at, little) => view.getUint16(at, little)],
  b: [
    (view, at, value) => view.setUint32(at, Number(value), true),
    (view, at, little) => view.getUint32(at, little) !== 0,
  ],
  i: [(view, at, value) => view.setInt32(at, Number(value), true), (view, at, little) => view.getInt32(at, little)],
  u: [(view, at, value) => view.setUint32(at, Number(value), true), (view, at, little) => view.getUint32(at, little)],
  h: [(view, at, value) => view.setUint32(at, Number(value), true), (view, at, little) => view.getUint32(at, little)],
  x: [(view, at, value) => view.setBigInt64(at, value, true), (view, at, little) => view.getBigInt64(at, little)],
  t: [(view, at, value) => view.setBigUint64(at, value, true), (view, at, little) => view.getBigUint64(at, little)],
};

/** The complete types of a signature. @throws ContainerError EINVAL */
function parseTypes(signature: string): Type[] {
  let at = 0;
  const one = (depth: number): Type => {
    const code = signature[at++] ?? "";
    if (depth > MAX_DEPTH) throw invalid(`signature ${signature} nests too deep`);
    if (code === "a") {
      if (signature[at] !== "{") return { code, parts: [one(depth + 1)] };
      at++;
      const parts = [one(depth + 2), one(depth + 2)];
      if (signature[at++] !== "}") throw invalid(`signature ${signature} has a dictionary without its end`);
      return { code, parts: [{ code: "{", parts }] };
    }
    if (code === "(") {
      const parts: Type[] = [];
      while (signature[at] !== ")") parts.push(one(depth + 1));
      at++;
      if (parts.length === 0) throw invalid(`signature ${signature} has a structure without fields`);
      return { code, parts };
    }
    if (ALIGNMENTS[code] === undefined || code === "{") throw invalid(`signature ${signature} is none of D-Bus`);
    return { code, parts: [] };
  };
  const types: Type[] = [];
  while (at < signature.length) types.push(one(0));
  return types;
}

/** Values in little endian, as many as the signature has complete types. @throws ContainerError EINVAL */
export function marshal(signature: string, values: readonly Value[]): Uint8Array {
  const types = parseTypes(signature);
  if (types.length !== values.length) throw invalid(`signature ${signature} is not that of ${values.length} values`);
  const writer = new Writer();
  for (const [i, type] of types.entries()) writer.value(type, values[i] ?? 0);
  return writer.finish();
}

class Writer {
  #bytes = Buffer.alloc(256);
  #end = 0;

  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#end);
  }

  value(type: Type, value: Value): void {
    const { code, parts } = type;
    this.#align(ALIGNMENTS[code] ?? 1);
    const [write] = FIXED[code] ?? [];
    if (write !== undefined) {
      if (typeof value !== "number" && typeof value !== "bigint" && typeof value !== "boolean")
        throw mismatch(code, value);
      this.#fixed(write, BigInt(value), ALIGNMENTS[code] ?? 1);
    } else if (code === "d") {
      if (typeof value !== "number") throw mismatch(code, value);
      const at = this.#reserve(8);
      this.#bytes.writeDoubleLE(value, at);
    } else if (code === "s" || code === "o" || code === "g") {
      if (typeof value !== "string") throw mismatch(code, value);
      this.#text(value, code === "g" ? 1 : 4);
    } else if (code === "v") {
      if (!isVariant(value)) throw mismatch(code, value);
      const [inner, ...more] = parseTypes(value.signature);
      if (inner === undefined || more.length > 0) throw invalid(`a variant has one type, not ${value.signature}`);
      this.#text(value.signature, 1);
      this.value(inner, value.value);
    } else if (code === "a") {
      this.#array(parts[0] ?? type, value);
    } else {
      if (!isList(value) || value.length !== parts.length) throw mismatch(code, value);
      for (const [i, part] of parts.entries()) this.value(part, value[i] ?? 0);
    }
  }

  #array(element: Type, value: Value): void {
    const items = value instanceof Uint8Array && element.code === "y" ? [...value] : value;
    if (!isList(items)) throw mismatch("a", value);
    const lengthAt = this.#reserve(4);
    // the padding before the first element is there in an empty array, too, and does not count
    this.#align(ALIGNMENTS[element.code] ?? 1);
    const start = this.#end;
    for (const item of items) this.value(element, item);
    if (this.#end - start > MAX_ARRAY_BYTES) throw invalid("an array is longer than 64 MiB");
    this.#bytes.writeUInt32LE(this.#end - start, lengthAt);
  }

  #fixed(write: (view: DataView, at: number, value: bigint) => void, value: bigint, size: number): void {
    const at = this.#reserve(size);
    write(new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length), at, value);
  }

  #text(text: string, lengthBytes: 1 | 4): void {
    if (text.includes("\0")) throw invalid("a string contains a NUL");
    const bytes = Buffer.from(text);
    if (lengthBytes === 1 && bytes.length > 255) throw invalid("a signature is longer than 255 bytes");
    const at = this.#reserve(lengthBytes + bytes.length + 1);
    if (lengthBytes === 1) this.#bytes.writeUInt8(bytes.length, at);
    else this.#bytes.writeUInt32LE(bytes.length, at);
    bytes.copy(this.#bytes, at + lengthBytes);
  }

  #align(alignment: number): void {
    this.#reserve((alignment - (this.#end % alignment)) % alignment);
  }

  /** New bytes are zero, as padding must be. */
  #reserve(length: number): number {
    const at = this.#end;
    if (at + length > this.#bytes.length) {
      const larger = Buffer.alloc(2 * (at + length));
      this.#bytes.copy(larger, 0, 0, at);
      this.#bytes = larger;
    }
    this.#end = at + length;
    return at;
  }
}

/** The values that bytes hold. @throws ContainerError EPROTO where they are not what the signature says */
export function unmarshal(signature: string, bytes: Uint8Array, little = true, offset = 0): Value[] {
  const reader = new Reader(bytes, little, offset);
  return parseTypes(signature).map((type) => reader.value(type, 0));
}

class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #little: boolean;
  #at: number;

  constructor(bytes: Uint8Array, little: boolean, offset: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#little = little;
    this.#at = offset;
  }

  value({ code, parts }: Type, depth: number): Value {
    if (depth > MAX_DEPTH) throw broken("values nest too deep");
    this.#align(ALIGNMENTS[code] ?? 1);
    const [, read] = FIXED[code] ?? [];
    if (read !== undefined) return read(this.#view, this.#take(ALIGNMENTS[code] ?? 1), this.#little);
    if (code === "d") return this.#view.getFloat64(this.#take(8), this.#little);
    if (code === "s" || code === "o") return this.#text(this.#length());
    if (code === "g") return this.#text(this.#view.getUint8(this.#take(1)));
    if (code === "v") {
      const signature = this.#text(this.#view.getUint8(this.#take(1)));
      const [inner, ...more] = parseTypes(signature);
      if (inner === undefined || more.length > 0) throw broken(`a variant has the type ${signature}`);
      return { signature, value: this.value(inner, depth + 1) };
    }
    const [element] = parts;
    if (code !== "a" || element === undefined) return parts.map((part) => this.value(part, depth + 1));
    const length = this.#length();
    this.#align(ALIGNMENTS[element.code] ?? 1);
    const end = this.#at + length;
    if (length > MAX_ARRAY_BYTES || end > this.#bytes.length) throw broken("an array is longer than its message");
    if (element.code === "y") return Uint8Array.from(this.#bytes.subarray(this.#take(length), end));
    const items: Value[] = [];
    while (this.#at < end) items.push(this.value(element, depth + 1));
    if (this.#at !== end) throw broken("an array does not end where it says");
    return items;
  }

  #length(): number {
    return this.#view.getUint32(this.#take(4), this.#little);
  }

  #text(length: number): string {
    const at = this.#take(length + 1);
    if (this.#bytes[at + length] !== 0) throw broken("a string has no end");
    return Buffer.from(this.#bytes.subarray(at, at + length)).toString();
  }

  #align(alignment: number): void {
    this.#take((alignment - (this.#at % alignment)) % alignment);
  }

  #take(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) throw broken("it is cut short");
    this.#at = at + length;
    return at;
  }
}

export function isVariant(value: Value | undefined): value is Variant {
  return typeof value === "object" && "signature" in value;
}

function isList(value: Value): value is readonly Value[] {
  return Array.isArray(value);
}

function mismatch(code: string, value: Value): ContainerError {
  return invalid(`${JSON.stringify(String(value))} is no value of D-Bus's type ${code}`);
}

function invalid(what: string): ContainerError {
  return new ContainerError({ message: `cannot make a D-Bus message: ${what}`, code: "EINVAL" });
}

export function broken(what: string): ContainerError {
  return new ContainerError({ message: `cannot understand a D-Bus message: ${what}`, code: "EPROTO" });
}
