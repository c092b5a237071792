import { BlockList, isIP } from "node:net";
import { describe, expect, test } from "vitest";
import * as address from "../../src/network/address.ts";
import { fc } from "../support/fuzz.ts";

const ipv6 = fc.oneof(
  fc.ipV6(),
  fc.array(fc.constantFrom("0", "1", "ff"), { minLength: 8, maxLength: 8 }).map((groups) => groups.join(":")),
);

test("whatever Node takes for an address is read, and nothing else", () => {
  const nearly = fc.stringMatching(/^[0-9a-f:.]{1,20}$/);
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), ipv6, nearly), (text) => {
      const read = () => address.parseAddress(text);
      if (isIP(text)) expect(read().family).toBe(isIP(text));
      else expect(read).toThrow(expect.objectContaining({ code: "ERR_ADDRESS" }));
    }),
    { numRuns: 2000 },
  );
});

test("an address is written as the URL standard writes it, and read back", () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), ipv6), (text) => {
      const parsed = address.parseAddress(text);
      const written = address.formatAddress(parsed);
      const host = isIP(text) === 6 ? new URL(`http://[${text}]`).hostname.slice(1, -1) : text;
      expect(written).toBe(host);
      expect(address.parseAddress(written)).toEqual(parsed);
      expect(address.addressOf(address.bytesOf(parsed))).toEqual(parsed);
    }),
  );
});

test.each([
  ["1:0:0:2:0:0:0:3", "1:0:0:2::3"],
  ["0:0:1:0:0:2:3:4", "::1:0:0:2:3:4"],
  ["1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"],
  ["0:0:0:0:0:0:0:0", "::"],
  ["1:0:0:0:0:0:0:0", "1::"],
  ["10:0:0:1::", "10:0:0:1::"],
  ["::ffff:1.2.3.4", "::ffff:102:304"],
])("%s is %s", (text, short) => {
  expect(address.formatAddress(address.parseAddress(text))).toBe(short);
});

describe("subnets", () => {
  test("host bits, bad lengths and bad addresses are refused", () => {
    expect(address.formatSubnet(address.parseSubnet("172.30.0.0/16"))).toBe("172.30.0.0/16");
    for (const text of ["172.30.0.1/16", "172.30.0.0/33", "172.30.0.0/016", "172.30.0.0", "/8", "::/129", "1.2.3/8"]) {
      expect(() => address.parseSubnet(text), text).toThrow(expect.objectContaining({ code: "ERR_ADDRESS" }));
    }
  });

  test("overlap is symmetric and agrees with a second opinion", () => {
    const subnet = fc.tuple(fc.ipV4(), fc.integer({ min: 1, max: 32 })).map(([text, prefixLength]) => {
      return address.subnetOf({ address: address.parseAddress(text), prefixLength });
    });
    const near = fc.integer({ min: 8, max: 32 }).map((prefixLength) => {
      return address.subnetOf({ address: address.parseAddress("10.1.2.3"), prefixLength });
    });
    fc.assert(
      fc.property(fc.oneof(subnet, near), fc.oneof(subnet, near), (a, b) => {
        const list = new BlockList();
        list.addSubnet(address.formatAddress(a.network), a.prefixLength, "ipv4");
        const inside = list.check(address.formatAddress(b.network), "ipv4");
        expect(address.contains(a, b.network)).toBe(inside);
        expect(address.overlaps(a, b)).toBe(address.overlaps(b, a));
        if (inside) expect(address.overlaps(a, b)).toBe(true);
      }),
    );
  });

  test("4 and 6 never overlap", () => {
    expect(address.overlaps(address.parseSubnet("0.0.0.0/0"), address.parseSubnet("::/0"))).toBe(false);
  });
});

describe("allocation", () => {
  const small = address.parseSubnet("10.0.0.0/29");

  test("gives every host address once, then says the subnet is full", () => {
    const taken = new Set(["10.0.0.1"]);
    let last = address.parseAddress("10.0.0.1");
    for (let count = 0; count < 5; count++) {
      last = address.allocate(small, taken, last);
      taken.add(address.formatAddress(last));
    }
    expect([...taken]).toEqual([1, 2, 3, 4, 5, 6].map((host) => `10.0.0.${host}`));
    expect(() => address.allocate(small, taken, last)).toThrow(
      expect.objectContaining({ code: "ENOSPC", message: "cannot find a free address in 10.0.0.0/29" }),
    );
  });

  test("goes on after the last one given, and around", () => {
    const next = (last: string) =>
      address.formatAddress(address.allocate(small, new Set(["10.0.0.1"]), address.parseAddress(last)));
    expect(next("10.0.0.3")).toBe("10.0.0.4");
    expect(next("10.0.0.6")).toBe("10.0.0.2");
    expect(next("192.0.2.1")).toBe("10.0.0.2");
  });
});

test("a MAC is Docker's: 02:42 and the address", () => {
  expect(address.formatMac(address.macOf(address.parseAddress("172.30.1.2")))).toBe("02:42:ac:1e:01:02");
  expect(address.formatAddress(address.broadcastOf(address.parseSubnet("172.30.0.0/16")))).toBe("172.30.255.255");
});
