import { describe, expect, test } from "vitest";
import { bytesOf, formatSubnet, parseAddress, parseSubnet } from "../../src/network/address.ts";
import * as bridge from "../../src/network/bridge.ts";
import { parsePublish } from "../../src/network/ports.ts";

const route = (text: string, index = 2) => {
  const [address = "", length] = text.split("/");
  return { destination: bytesOf(parseAddress(address)), prefixLength: Number(length), index };
};
const address = (text: string, index = 2) => {
  const { destination, prefixLength } = route(text);
  return { address: destination, prefixLength, index };
};

describe("the subnet", () => {
  test("is the first that no route and no address overlaps", () => {
    expect(formatSubnet(bridge.chooseSubnet([]))).toBe("172.30.0.0/16");
    const taken = bridge.takenBy([route("172.30.5.0/24"), route("172.29.0.0/16")], [address("172.28.0.9/24")]);
    expect(formatSubnet(bridge.chooseSubnet(taken))).toBe("172.27.0.0/16");
    expect(formatSubnet(bridge.chooseSubnet(bridge.takenBy([route("172.16.0.0/12")], [])))).toBe("10.213.0.0/16");
  });

  test("is not kept away by a default route, whole or in halves, nor by IPv6, nor by the bridge itself", () => {
    const whole = { prefixLength: 0, index: 2 };
    const taken = bridge.takenBy(
      [whole, route("0.0.0.0/1"), route("128.0.0.0/1"), route("fd00::/8"), route("172.30.0.0/16", 9)],
      [address("172.30.0.1/16", 9)],
      9,
    );
    expect(taken).toEqual([]);
  });

  test("that is already routed is refused, saying by what", () => {
    const taken = bridge.takenBy([route("10.1.2.0/24")], []);
    expect(() => bridge.checkSubnet(parseSubnet("10.0.0.0/8"), taken)).toThrow(
      "cannot use subnet 10.0.0.0/8: 10.1.2.0/24 is already routed",
    );
    bridge.checkSubnet(parseSubnet("10.1.3.0/24"), taken);
    const everything = ["172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16"].map((text) => route(text));
    expect(() => bridge.chooseSubnet(bridge.takenBy(everything, []))).toThrow("cannot find a subnet for caisson0");
  });
});

describe("the state", () => {
  const fresh = bridge.newBridge(parseSubnet("172.30.0.0/16"), "boot");

  test("gives each endpoint an address of its own, starting after the gateway, and does not reuse one at once", () => {
    const one = bridge.withEndpoint(fresh, "one", parsePublish("8080:80"));
    expect(one.endpoint).toEqual({
      hostName: expect.stringMatching(/^cv[0-9a-f]{11}$/),
      address: "172.30.0.2",
      mac: "02:42:ac:1e:00:02",
      ports: parsePublish("8080:80"),
    });
    const two = bridge.withEndpoint(one.state, "two", []);
    expect(two.endpoint.address).toBe("172.30.0.3");
    expect(two.endpoint.hostName).not.toBe(one.endpoint.hostName);
    const without = bridge.withoutEndpoint(two.state, "two");
    expect(bridge.withEndpoint(without, "three", []).endpoint.address).toBe("172.30.0.4");
    expect(bridge.withEndpoint(two.state, "one", []).endpoint.address).toBe("172.30.0.2");
    expect(bridge.isEmpty(without)).toBe(false);
    expect(bridge.isEmpty(bridge.withoutEndpoint(without, "one"))).toBe(true);
    expect(bridge.withoutEndpoint(fresh, "nobody")).toEqual(fresh);
    expect(bridge.isEmpty(fresh)).toBe(true);
  });

  test("takes ids that objects have by themselves", () => {
    for (const id of ["__proto__", "constructor"]) {
      const { state } = bridge.withEndpoint(fresh, id, []);
      expect(bridge.isEmpty(bridge.parseState(bridge.formatState(state)))).toBe(false);
    }
  });

  test("is read back as written, and a newer one or nonsense is refused", () => {
    const { state } = bridge.withEndpoint(fresh, "one", parsePublish("80"));
    expect(bridge.parseState(bridge.formatState(state))).toEqual(state);
    for (const text of ["", "null", "{}", '{"version":2}']) {
      expect(() => bridge.parseState(text)).toThrow(expect.objectContaining({ code: "ERR_STATE" }));
    }
  });
});
