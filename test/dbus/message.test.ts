import { expect, test } from "vitest";
import { decodeMessage, encodeMessage, MESSAGE, type Message, messageLength } from "../../src/dbus/message.ts";

// D-Bus Specification, "Message Format".

/** What every client of a bus says first, as libdbus writes it, but for the order of the fields. */
const HELLO: Message = {
  type: MESSAGE.call,
  serial: 1,
  path: "/org/freedesktop/DBus",
  interface: "org.freedesktop.DBus",
  member: "Hello",
  destination: "org.freedesktop.DBus",
  signature: "",
  body: [],
};

test("a call is written byte for byte", () => {
  const text = (words: string) => Buffer.from(`${words}\0`);
  expect(Buffer.from(encodeMessage(HELLO))).toEqual(
    Buffer.concat([
      Buffer.from("6c010001 00000000 01000000 6d000000".replaceAll(" ", ""), "hex"),
      Buffer.from("01016f00 15000000".replaceAll(" ", ""), "hex"),
      text("/org/freedesktop/DBus"),
      Buffer.alloc(2),
      Buffer.from("02017300 14000000".replaceAll(" ", ""), "hex"),
      text("org.freedesktop.DBus"),
      Buffer.alloc(3),
      Buffer.from("03017300 05000000".replaceAll(" ", ""), "hex"),
      text("Hello"),
      Buffer.alloc(2),
      Buffer.from("06017300 14000000".replaceAll(" ", ""), "hex"),
      text("org.freedesktop.DBus"),
      // the header ends at a multiple of eight
      Buffer.alloc(3),
    ]),
  );
});

test("messages come back as they were written", () => {
  const signal: Message = {
    type: MESSAGE.signal,
    serial: 9,
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "JobRemoved",
    sender: ":1.3",
    signature: "uoss",
    body: [7, "/org/freedesktop/systemd1/job/7", "a.scope", "done"],
  };
  for (const message of [HELLO, signal]) {
    const bytes = encodeMessage(message);
    expect(messageLength(bytes.subarray(0, 16))).toBe(bytes.length);
    expect(decodeMessage(bytes)).toEqual(message);
  }
});

test("what is no message, or too long to be one, is refused", () => {
  const bytes = encodeMessage(HELLO);
  const changed = (at: number, ...values: number[]) => {
    const copy = Uint8Array.from(bytes);
    copy.set(values, at);
    return copy;
  };
  expect(() => decodeMessage(changed(0, 0x78))).toThrow(/neither little nor big endian/);
  expect(() => decodeMessage(changed(3, 2))).toThrow(/version 2/);
  expect(() => messageLength(changed(4, 0, 0, 0, 0xff))).toThrow(/has \d+ bytes/);
  // a path that says it is a string
  expect(() => decodeMessage(changed(18, 0x73))).toThrow(/path has the type s/);
});

test("header fields of a later version are skipped", () => {
  const bytes = Uint8Array.from(encodeMessage(HELLO));
  bytes[16] = 200;
  const { path, ...rest } = HELLO;
  expect(decodeMessage(bytes)).toEqual(rest);
});
