import { expect, test } from "vitest";
import { parseVariant } from "../../src/dbus/text.ts";
import type { Value } from "../../src/dbus/value.ts";

// GVariant Text Format, of which annotations org.systemd.property.* are written.

test.each<[string, string, Value]>([
  ["true", "b", true],
  ["5", "i", 5],
  ["-0x10", "i", -16],
  ["010", "i", 8],
  ["1.5", "d", 1.5],
  ["1e3", "d", 1000],
  ["double 2", "d", 2],
  ["uint64 18446744073709551615", "t", 2n ** 64n - 1n],
  ["int64 -5", "x", -5n],
  ["byte 0xff", "y", 255],
  ["'text'", "s", "text"],
  ['"it\\"s\\n\\u00e9"', "s", 'it"s\né'],
  ["objectpath '/a/b'", "o", "/a/b"],
  ["['a', 'b']", "as", ["a", "b"]],
  ["@as []", "as", []],
  ["[byte 1, 2]", "ay", Uint8Array.from([1, 2])],
  ["[uint32 1, 2]", "au", [1, 2]],
  ["('a', uint64 2)", "(st)", ["a", 2n]],
  ["[('a', 'b')]", "a(ss)", [["a", "b"]]],
  ["<uint32 1>", "v", { signature: "u", value: 1 }],
  ["b'ab'", "ay", Buffer.from("ab\0")],
])("%s", (text, signature, value) => {
  expect(parseVariant(text)).toEqual({ signature, value });
});

test.each([
  "",
  "word",
  "5 6",
  "[",
  "[]",
  "['a', 5]",
  "()",
  "uint64 -1",
  "byte 256",
  "2147483648",
  "uint64 true",
  "uint32 '5'",
  "'open",
  "@q [1]",
])("%j is refused", (text) => {
  expect(() => parseVariant(text)).toThrow(/cannot parse .* as a GVariant/);
});
