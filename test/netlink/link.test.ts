import { describe, expect, test } from "vitest";
import { concat, encodeAttributes, encodeStruct, nested, text, u32 } from "../../src/netlink/codec.ts";
import * as link from "../../src/netlink/link.ts";
import { fc } from "../support/fuzz.ts";

/** Requests of iproute2 6.1 as strace saw them, their sequence numbers (bytes 8 to 11) set to zero. */
function bytes(...lines: string[]): string {
  return lines.join("").replace(/\s/g, "");
}
const hex = (request: Uint8Array) => Buffer.from(request).toString("hex");
const mac = (last: number) => Uint8Array.of(0x02, 0x42, 0xac, 0x1e, 0x00, last);

describe("the requests are the ones that ip sends", () => {
  test("ip link add caisson0 address 02:42:ac:1e:00:01 mtu 1450 type bridge", () => {
    expect(hex(link.createBridge({ name: "caisson0", mac: mac(1), mtu: 1450 }))).toBe(
      bytes(
        "54 00 00 00 10 00 05 06  00 00 00 00 00 00 00 00",
        "00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00",
        "0a 00 01 00 02 42 ac 1e  00 01 00 00 08 00 04 00",
        "aa 05 00 00 0d 00 03 00  63 61 69 73 73 6f 6e 30",
        "00 00 00 00 10 00 12 00  0a 00 01 00 62 72 69 64",
        "67 65 00 00",
      ),
    );
  });

  test("ip link add cv0123 mtu 1400 type veth peer name eth0 address … mtu 1400 netns …, but made up", () => {
    const peer = { name: "eth0", netnsFd: 4, mac: mac(2), mtu: 1400 };
    expect(hex(link.createVeth({ name: "cv0123", mtu: 1400, peer }))).toBe(
      bytes(
        "80 00 00 00 10 00 05 06  00 00 00 00 00 00 00 00",
        "00 00 00 00 00 00 00 00  01 00 00 00 01 00 00 00",
        "08 00 04 00 78 05 00 00  0b 00 03 00 63 76 30 31",
        "32 33 00 00 4c 00 12 00  08 00 01 00 76 65 74 68",
        "40 00 02 00 3c 00 01 00  00 00 00 00 00 00 00 00",
        "00 00 00 00 00 00 00 00  0a 00 01 00 02 42 ac 1e",
        "00 02 00 00 08 00 04 00  78 05 00 00 08 00 1c 00",
        "04 00 00 00 09 00 03 00  65 74 68 30 00 00 00 00",
      ),
    );
  });

  test("ip link set … up, and its reverse", () => {
    expect(hex(link.setUp({ index: 3 }, true))).toBe(
      bytes("20 00 00 00 10 00 05 00  00 00 00 00 00 00 00 00", "00 00 00 00 03 00 00 00  01 00 00 00 01 00 00 00"),
    );
    expect(hex(link.setUp({ index: 3 }, false))).toBe(
      bytes("20 00 00 00 10 00 05 00  00 00 00 00 00 00 00 00", "00 00 00 00 03 00 00 00  00 00 00 00 01 00 00 00"),
    );
  });

  test("ip link set … netns … name …", () => {
    expect(hex(link.moveLink(3, "eth%d", 4))).toBe(
      bytes(
        "34 00 00 00 10 00 05 00  00 00 00 00 00 00 00 00",
        "00 00 00 00 03 00 00 00  00 00 00 00 00 00 00 00",
        "08 00 1c 00 04 00 00 00  0a 00 03 00 65 74 68 25",
        "64 00 00 00",
      ),
    );
  });

  test("ip link set … master …", () => {
    expect(hex(link.setMaster({ index: 3 }, 2))).toBe(
      bytes(
        "28 00 00 00 10 00 05 00  00 00 00 00 00 00 00 00",
        "00 00 00 00 03 00 00 00  00 00 00 00 00 00 00 00",
        "08 00 0a 00 02 00 00 00",
      ),
    );
  });

  test("ip link set … type bridge_slave hairpin on, without the kind, which says nothing", () => {
    expect(hex(link.setHairpin({ index: 3 }, true))).toBe(
      bytes(
        "30 00 00 00 10 00 05 00  00 00 00 00 00 00 00 00",
        "00 00 00 00 03 00 00 00  00 00 00 00 00 00 00 00",
        "10 00 12 00 0c 00 05 00  05 00 04 00 01 00 00 00",
      ),
    );
  });

  test("ip link delete group 77", () => {
    expect(hex(link.deleteGroup(77))).toBe(
      bytes(
        "28 00 00 00 11 00 05 00  00 00 00 00 00 00 00 00",
        "00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00",
        "08 00 1b 00 4d 00 00 00",
      ),
    );
  });

  test("ip link delete …, by index and by name", () => {
    expect(hex(link.deleteLink({ index: 3 }))).toBe(
      bytes("20 00 00 00 11 00 05 00  00 00 00 00 00 00 00 00", "00 00 00 00 03 00 00 00  00 00 00 00 00 00 00 00"),
    );
    expect(hex(link.deleteLink({ name: "cv0123" }))).toBe(
      bytes(
        "2c 00 00 00 11 00 05 00  00 00 00 00 00 00 00 00",
        "00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00",
        "0b 00 03 00 63 76 30 31  32 33 00 00",
      ),
    );
  });
});

test("a rename needs an index, since the name in the request is the new one", () => {
  expect(hex(link.renameLink(3, "eth0"))).toBe(
    bytes(
      "2c 00 00 00 10 00 05 00  00 00 00 00 00 00 00 00",
      "00 00 00 00 03 00 00 00  00 00 00 00 00 00 00 00",
      "09 00 03 00 65 74 68 30  00 00 00 00",
    ),
  );
});

const INFO = { family: 1, pad: 1, type: 2, index: 4, flags: 4, change: 4 } as const;
const ATTRIBUTES = {
  name: [3, text],
  mtu: [4, u32],
  peerIndex: [5, u32],
  unknown: [9999, text],
  master: [10, u32],
  info: [18, nested({ kind: [1, text] })],
} as const;
const number = fc.integer({ min: 0, max: 0xffff_ffff });
const word = fc.stringMatching(/^[a-z0-9]{1,15}$/);

test("a link is read back whatever its attributes, and those not known are passed over", () => {
  const optional = fc.record(
    { mtu: number, peerIndex: number, unknown: word, master: number, info: fc.record({ kind: word }) },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(number, fc.boolean(), word, optional, (index, up, name, attributes) => {
      const payload = concat(
        encodeStruct(INFO, { index, flags: up ? 0x1003 : 0x1002 }),
        encodeAttributes(ATTRIBUTES, { name, ...attributes }),
      );
      const { unknown: _, info, ...rest } = attributes;
      const read = link.decodeLinks([
        { type: 16, payload },
        { type: 17, payload },
      ]);
      expect(read).toEqual([{ index, up, name, mac: undefined, kind: info?.kind, ...absent(rest) }]);
    }),
  );
});

function absent(given: { mtu?: number; master?: number; peerIndex?: number }): object {
  return { mtu: undefined, master: undefined, peerIndex: undefined, ...given };
}
