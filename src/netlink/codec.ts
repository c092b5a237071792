import { ContainerError } from "../error.ts";

/**
 * The two shapes that rtnetlink is made of: C structs of unsigned integers, and attributes
 * (u16 length, u16 type, payload, padding to 4 bytes). Each is described once, by a table, and the
 * table serves both directions. Numbers are in the machine's byte order (netlink(7)); lengths in bytes.
 */

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
const ATTRIBUTE_HEADER = 4;
/** Two flag bits lie on top of an attribute's type: NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
const ATTRIBUTE_TYPE_MASK = 0x3fff;

/** What is wrong with bytes that should be netlink. */
export function malformed(what: string): ContainerError {
  return new ContainerError({ message: `cannot read netlink message: ${what}`, code: "ERR_NETLINK" });
}

/** Netlink aligns everything to 4 bytes. */
export function align(length: number): number {
  return (length + 3) & ~3;
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A C struct: the fields in order, each with its width in bytes. Every one used here is free of padding. */
export type Layout = Readonly<Record<string, 1 | 2 | 4>>;
export type Fields<L extends Layout> = { [K in keyof L]: number };

export function sizeOf(layout: Layout): number {
  return Object.values(layout).reduce<number>((size, width) => size + width, 0);
}

/** Fields that are not given are zero. */
export function encodeStruct<L extends Layout>(layout: L, fields: Partial<Fields<L>>): Uint8Array {
  const bytes = new Uint8Array(sizeOf(layout));
  const view = viewOf(bytes);
  let offset = 0;
  for (const [name, width] of Object.entries(layout)) {
    const value = fields[name] ?? 0;
    if (width === 1) view.setUint8(offset, value);
    else if (width === 2) view.setUint16(offset, value, LITTLE_ENDIAN);
    else view.setUint32(offset, value, LITTLE_ENDIAN);
    offset += width;
  }
  return bytes;
}

/** @throws ERR_NETLINK when the bytes end before the struct does */
export function decodeStruct<L extends Layout>(layout: L, bytes: Uint8Array): Fields<L> {
  if (bytes.length < sizeOf(layout)) throw malformed(`${bytes.length} bytes where ${sizeOf(layout)} are needed`);
  const view = viewOf(bytes);
  const fields: Record<string, number> = {};
  let offset = 0;
  for (const [name, width] of Object.entries(layout)) {
    if (width === 1) fields[name] = view.getUint8(offset);
    else if (width === 2) fields[name] = view.getUint16(offset, LITTLE_ENDIAN);
    else fields[name] = view.getUint32(offset, LITTLE_ENDIAN);
    offset += width;
  }
  // The loop has set every key of the layout, which the compiler cannot follow.
  return fields as Fields<L>;
}

/** How the payload of one attribute is written and read. */
export interface Codec<T> {
  encode(value: T): Uint8Array;
  decode(payload: Uint8Array): T;
}

const U8 = { value: 1 } as const;
const U32 = { value: 4 } as const;

export const u8: Codec<number> = {
  encode: (value) => encodeStruct(U8, { value }),
  decode: (payload) => decodeStruct(U8, payload).value,
};

export const u32: Codec<number> = {
  encode: (value) => encodeStruct(U32, { value }),
  decode: (payload) => decodeStruct(U32, payload).value,
};

/** Addresses, in network byte order; decoding copies, so that a small value does not keep a large reply alive. */
export const bytes: Codec<Uint8Array> = { encode: (value) => value, decode: (payload) => payload.slice() };

/** NUL-terminated, as a link's name. The kernel's names are bytes; those that are not UTF-8 are read with U+FFFD. */
export const text: Codec<string> = {
  encode: (value) => new TextEncoder().encode(`${value}\0`),
  decode: (payload) => {
    const end = payload.indexOf(0);
    return new TextDecoder().decode(end < 0 ? payload : payload.subarray(0, end));
  },
};

/** Without the NUL, as iproute2 sends a link's kind; the kernel answers with one. */
export const bareText: Codec<string> = { ...text, encode: (value) => new TextEncoder().encode(value) };

/** Attributes within an attribute. The kernel's rtnetlink does not ask for NLA_F_NESTED here, nor does iproute2 set it. */
export function nested<S extends Schema>(schema: S): Codec<Values<S>> {
  return {
    encode: (values) => encodeAttributes(schema, values),
    decode: (payload) => decodeAttributes(schema, payload),
  };
}

/** A set of attributes: name → [type, codec]. */
// biome-ignore lint/suspicious/noExplicitAny: a codec is used in both directions, so no other type argument fits all
export type Schema = Readonly<Record<string, readonly [type: number, codec: Codec<any>]>>;
export type Values<S extends Schema> = {
  [K in keyof S]?: S[K] extends readonly [number, Codec<infer T>] ? T | undefined : never;
};

/** Writes the attributes that are given, in the order of the schema. */
export function encodeAttributes<S extends Schema>(schema: S, values: Values<S>): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const [name, [type, codec]] of Object.entries(schema)) {
    if (values[name] === undefined) continue;
    const payload = codec.encode(values[name]);
    const length = ATTRIBUTE_HEADER + payload.length;
    // The length is a u16: a longer payload would wrap and be read as something else (CVE-2021-43784).
    if (length > 0xffff) throw malformed(`attribute ${name} of ${payload.length} bytes is too long`);
    const attribute = new Uint8Array(align(length));
    attribute.set(encodeStruct({ length: 2, type: 2 }, { length, type }));
    attribute.set(payload, ATTRIBUTE_HEADER);
    parts.push(attribute);
  }
  return concat(...parts);
}

/** Reads the attributes that the schema names and passes over the others; of a repeated one the last counts. */
export function decodeAttributes<S extends Schema>(schema: S, payload: Uint8Array): Values<S> {
  const names = new Map(Object.entries(schema).map(([name, [type, codec]]) => [type, { name, codec }]));
  const values: Record<string, unknown> = {};
  let rest = payload;
  while (rest.length >= ATTRIBUTE_HEADER) {
    const { length, type } = decodeStruct({ length: 2, type: 2 }, rest);
    if (length < ATTRIBUTE_HEADER || length > rest.length) {
      throw malformed(`attribute ${type & ATTRIBUTE_TYPE_MASK} says ${length} bytes of ${rest.length}`);
    }
    const known = names.get(type & ATTRIBUTE_TYPE_MASK);
    if (known) values[known.name] = known.codec.decode(rest.subarray(ATTRIBUTE_HEADER, length));
    rest = rest.subarray(align(length));
  }
  // Names and codecs come from the schema, so the values have its types.
  return values as Values<S>;
}
