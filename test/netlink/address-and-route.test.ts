import { describe, expect, test } from "vitest";
import { addAddress, decodeAddresses, deleteAddress } from "../../src/netlink/address.ts";
import { addDefaultRoute, decodeRoutes } from "../../src/netlink/route.ts";
import { fc } from "../support/fuzz.ts";

const hex = (request: Uint8Array) => Buffer.from(request).toString("hex");
const bytes = (...lines: string[]) => lines.join("").replace(/\s/g, "");
const ipv4 = (...parts: number[]) => Uint8Array.from(parts);

describe("the requests are the ones that ip sends", () => {
  test("ip address add 172.30.0.1/16 brd + dev …", () => {
    const address = { index: 2, address: ipv4(172, 30, 0, 1), prefixLength: 16, broadcast: ipv4(172, 30, 255, 255) };
    const sent = bytes(
      "30 00 00 00 14 00 05 06  00 00 00 00 00 00 00 00",
      "02 10 00 00 02 00 00 00  08 00 02 00 ac 1e 00 01",
      "08 00 01 00 ac 1e 00 01  08 00 04 00 ac 1e ff ff",
    );
    expect(hex(addAddress(address))).toBe(sent);
    expect(hex(deleteAddress(address))).toBe(sent.replace("14000506", "15000500"));
  });

  test("ip route add default via 172.30.0.9 dev …", () => {
    expect(hex(addDefaultRoute(ipv4(172, 30, 0, 9), 2))).toBe(
      bytes(
        "2c 00 00 00 18 00 05 06  00 00 00 00 00 00 00 00",
        "02 00 00 00 fe 03 00 01  00 00 00 00 08 00 05 00",
        "ac 1e 00 09 08 00 04 00  02 00 00 00",
      ),
    );
  });
});

test("an address is read back, of either family", () => {
  const address = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
  );
  fc.assert(
    fc.property(address, fc.nat(32), fc.nat(1000), (address, prefixLength, index) => {
      const payload = addAddress({ index, address, prefixLength }).subarray(16);
      expect(decodeAddresses([{ type: 20, payload }])).toEqual([
        { index, address, prefixLength, broadcast: undefined },
      ]);
    }),
  );
});

test("a default route is read back, and a table that outgrew its byte", () => {
  const payload = addDefaultRoute(ipv4(10, 0, 0, 1), 7).subarray(16);
  const gateway = ipv4(10, 0, 0, 1);
  expect(decodeRoutes([{ type: 24, payload }])).toEqual([{ prefixLength: 0, table: 254, gateway, index: 7 }]);
  const table = Buffer.concat([payload, Buffer.from("08000f00e8030000", "hex")]);
  expect(decodeRoutes([{ type: 24, payload: table }])[0]?.table).toBe(1000);
});
