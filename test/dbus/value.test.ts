import { expect, test } from "vitest";
import { marshal, unmarshal, type Value } from "../../src/dbus/value.ts";
import { fc } from "../support/fuzz.ts";

// D-Bus Specification, "Marshaling (Wire Format)".

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const bytes = (text: string) => Buffer.from(text.replaceAll(/\s/g, ""), "hex");

test.each<[string, Value[], string]>([
  ["y", [255], "ff"],
  ["b", [true], "01000000"],
  ["n", [-2], "feff"],
  ["q", [65_535], "ffff"],
  ["i", [-1], "ffffffff"],
  ["u", [1], "01000000"],
  ["x", [-2n], "feffffffffffffff"],
  ["t", [2n ** 64n - 1n], "ffffffffffffffff"],
  ["d", [1], "000000000000f03f"],
  // the specification's own examples
  ["s", ["foo"], "03000000 666f6f00"],
  ["sss", ["foo", "+", "bar"], "03000000 666f6f00 01000000 2b00 0000 03000000 62617200"],
  ["ax", [[5n]], "08000000 00000000 0500000000000000"],
  // the padding of an empty array
  ["ax", [[]], "00000000 00000000"],
  ["g", ["a(ss)"], "05 612873732900"],
  ["v", [{ signature: "u", value: 7 }], "01 7500 00 07000000"],
  ["(yu)", [[1, 2]], "01 000000 02000000"],
  ["yay", [9, Uint8Array.from([1, 2])], "09 000000 02000000 0102"],
  ["a{sv}", [[["k", { signature: "b", value: true }]]], "10000000 00000000 01000000 6b00 01 6200 000000 01000000"],
])("%s as %#", (signature, values, expected) => {
  const wire = marshal(signature, values);
  expect(hex(wire)).toBe(hex(bytes(expected)));
  expect(unmarshal(signature, wire)).toEqual(values);
});

test("big endian is read, too", () => {
  expect(unmarshal("usat", bytes("00000001 00000001 6100 0000 00000008 0000000000000002"), false)).toEqual([
    1,
    "a",
    [2n],
  ]);
});

test.each<[string, string, Value[]]>([
  ["a signature that is none", "z", [1]],
  ["a structure without fields", "()", [[]]],
  ["an array of nothing", "a", [[]]],
  ["a dictionary entry by itself", "{sv}", [[]]],
  ["a string for a number", "u", ["1"]],
  ["a number for a string", "s", [1]],
  ["too few fields", "(uu)", [[1]]],
  ["too few values", "uu", [1]],
  ["a NUL in a string", "s", ["a\0b"]],
  ["a variant of two types", "v", [{ signature: "uu", value: 1 }]],
  ["endless nesting", `${"a".repeat(100)}y`, [[]]],
])("cannot write %s", (_, signature, values) => {
  expect(() => marshal(signature, values)).toThrow(/cannot make a D-Bus message/);
});

test.each<[string, string, string]>([
  ["what is cut short", "u", "0100"],
  ["a string without its end", "s", "01000000 6161"],
  ["a string longer than the message", "s", "ffffffff 61"],
  ["an array longer than the message", "ay", "05000000 01"],
  ["an array that ends within an element", "au", "05000000 01000000 02000000"],
  ["a variant of no type", "v", "00 00"],
  ["a variant within variants without end", "v", "01 7600".repeat(200)],
])("cannot read %s", (_, signature, wire) => {
  expect(() => unmarshal(signature, bytes(wire))).toThrow(/cannot (understand|make) a D-Bus message/);
});

test("whatever bytes come, they are values or refused", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 64 }),
      fc.constantFrom("a(yv)", "sv", "a{sv}u", "aas"),
      (wire, signature) => {
        try {
          unmarshal(signature, wire);
        } catch (error) {
          expect(String(error)).toMatch(/D-Bus message/);
        }
      },
    ),
  );
});
