import { broken, isVariant, marshal, unmarshal, type Value } from "./value.ts";

/** D-Bus Specification, "Message Types". */
export const MESSAGE = { call: 1, reply: 2, error: 3, signal: 4 } as const;

/** What travels on a bus: D-Bus Specification, "Message Protocol". */
export interface Message {
  type: number;
  serial: number;
  path?: string;
  interface?: string;
  member?: string;
  errorName?: string;
  /** The call that this answers. */
  replySerial?: number;
  destination?: string;
  sender?: string;
  /** Of the body; "" for none. */
  signature: string;
  body: readonly Value[];
}

/** Header fields by their codes, [name, type]. */
const FIELDS = {
  1: ["path", "o"],
  2: ["interface", "s"],
  3: ["member", "s"],
  4: ["errorName", "s"],
  5: ["replySerial", "u"],
  6: ["destination", "s"],
  7: ["sender", "s"],
  8: ["signature", "g"],
} as const;
const HEADER = "yyyyuua(yv)";
/** Up to and with the length of the header fields. */
export const START_BYTES = 16;
const MAX_BYTES = 1 << 27;
const VERSION = 1;

/** The whole message in little endian. @throws ContainerError EINVAL */
export function encodeMessage(message: Message): Uint8Array {
  const body = marshal(message.signature, message.body);
  const fields = Object.entries(FIELDS).flatMap(([code, [name, signature]]): Value[] => {
    const value = message[name];
    return value === undefined || value === "" ? [] : [[Number(code), { signature, value }]];
  });
  const header = marshal(HEADER, [0x6c, message.type, 0, VERSION, body.length, message.serial, fields]);
  const padding = (8 - (header.length % 8)) % 8;
  return Buffer.concat([header, Buffer.alloc(padding), body]);
}

/** How many bytes the message has that starts with these START_BYTES. @throws ContainerError EPROTO */
export function messageLength(start: Uint8Array): number {
  const little = isLittle(start);
  const view = new DataView(start.buffer, start.byteOffset, start.length);
  const header = START_BYTES + view.getUint32(12, little);
  const length = Math.ceil(header / 8) * 8 + view.getUint32(4, little);
  if (length > MAX_BYTES) throw broken(`it has ${length} bytes`);
  return length;
}

/** A whole message. Fields of a kind that is not known are skipped, as the specification wants. @throws ContainerError EPROTO */
export function decodeMessage(bytes: Uint8Array): Message {
  const little = isLittle(bytes);
  const [, type, , version, bodyBytes, serial, fields] = unmarshal(HEADER, bytes, little);
  if (typeof type !== "number" || typeof serial !== "number" || typeof bodyBytes !== "number" || !Array.isArray(fields))
    throw broken("its header is not one");
  if (version !== VERSION) throw broken(`it is of version ${version}`);
  const message: Message = { type, serial, signature: "", body: [] };
  for (const field of fields) {
    const [code, variant] = Array.isArray(field) ? field : [];
    const known = Object.entries(FIELDS).find(([each]) => Number(each) === code);
    if (known === undefined || !isVariant(variant)) continue;
    const [, [name, signature]] = known;
    if (variant.signature !== signature) throw broken(`its ${name} has the type ${variant.signature}`);
    Object.assign(message, { [name]: variant.value });
  }
  const body = bytes.subarray(bytes.length - bodyBytes);
  return { ...message, body: unmarshal(message.signature, body, little) };
}

function isLittle(bytes: Uint8Array): boolean {
  if (bytes[0] !== 0x6c && bytes[0] !== 0x42) throw broken("it is neither little nor big endian");
  return bytes[0] === 0x6c;
}
