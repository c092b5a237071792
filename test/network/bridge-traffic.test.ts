import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { macOf, parseAddress, parseInterfaceAddress } from "../../src/network/address.ts";
import {
  bringUpLoopback,
  configureInside,
  createBridge,
  createEndpoint,
  findLink,
  removeBridge,
  removeEndpoint,
  takenSubnets,
} from "../../src/network/endpoint.ts";
import * as firewall from "../../src/network/firewall.ts";
import { parsePublish } from "../../src/network/ports.ts";
import { Namespace, rules } from "./namespace.ts";

const WITNESS = fileURLToPath(new URL("tcp_witness.py", import.meta.url));
const NETNS_FD = 100;
const BRIDGE = { bridge: "caisson0", subnet: "172.30.0.0/16" };
const GATEWAY = parseInterfaceAddress("172.30.0.1/16");
const RESTORE = [...firewall.RESTORE_COMMAND];
const WEB = { id: "web", address: "172.30.0.2", ports: parsePublish("8080:80") };
const OTHER = { id: "other", address: "172.30.0.3", ports: parsePublish("127.0.0.1:8081:81") };

/** A host with a neighbour outside, and two containers on its bridge; all of them namespaces of this test. */
let host: Namespace;
let outside: Namespace;
let web: Namespace;
let other: Namespace;
let changed: Record<string, string>;
let before: string;
let rulesBefore: string;
const started: (() => void)[] = [];

function connect(container: Namespace, { id, address }: { id: string; address: string }): void {
  createEndpoint(host.socket({ [NETNS_FD]: container }), {
    bridge: "caisson0",
    hostName: `cv${id}`,
    containerName: "eth0",
    netnsFd: NETNS_FD,
    mac: macOf(parseAddress(address)),
  });
  configureInside(container.socket(), {
    name: "eth0",
    address: parseInterfaceAddress(`${address}/16`),
    gateway: GATEWAY.address,
  });
}

function ask(from: Namespace, address: string, port: number): string {
  return from.run(["/usr/bin/python3", WITNESS, "ask", address, String(port)]);
}

async function serve(where: Namespace, port: number, word: string, address = "0.0.0.0"): Promise<void> {
  started.push(await where.start(["/usr/bin/python3", WITNESS, "serve", address, String(port), word]));
}

beforeEach(async () => {
  [host, outside, web, other] = await Promise.all([
    Namespace.make(),
    Namespace.make(),
    Namespace.make(),
    Namespace.make(),
  ]);
  bringUpLoopback(host.socket());
  host.run([
    "ip",
    "link",
    "add",
    "wan",
    "type",
    "veth",
    "peer",
    "name",
    "lan",
    "netns",
    outside.path.split("/")[2] ?? "",
  ]);
  host.run(["ip", "address", "add", "198.51.100.1/24", "dev", "wan"]);
  // Its IPv6 address would turn up at some time or other, and spoil the comparison.
  host.run(["ip", "link", "set", "wan", "addrgenmode", "none", "up"]);
  outside.run(["ip", "address", "add", "198.51.100.2/24", "dev", "lan"]);
  outside.run(["ip", "link", "set", "lan", "up"]);
  // As dockerd leaves it.
  host.run(["iptables", "-P", "FORWARD", "DROP"]);
  host.run(["iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.9.8.0/24", "-j", "MASQUERADE"]);
  host.sysctls.write("net/ipv4/ip_forward", "0");
  before = host.snapshot();
  rulesBefore = rules(host.run(["iptables-save"]));
  changed = createBridge(host.socket(), host.sysctls, { name: "caisson0", gateway: GATEWAY });
  host.run(RESTORE, firewall.addBridge(BRIDGE));
  connect(web, WEB);
  connect(other, OTHER);
  for (const endpoint of [WEB, OTHER]) host.run(RESTORE, firewall.addEndpoint(endpoint));
  await Promise.all([serve(web, 80, "web"), serve(other, 81, "other"), serve(outside, 7, "outside")]);
});

afterEach(() => {
  for (const stop of started.splice(0)) stop();
  for (const namespace of [host, outside, web, other]) namespace.close();
});

// Whether packets that stay on the bridge pass through iptables: on where br_netfilter is loaded, else off.
test.each(["1", "0"])("packets go where they should and nowhere else, bridge-nf-call-iptables=%s", async (value) => {
  const bridgeNetfilter = "net/bridge/bridge-nf-call-iptables";
  if (host.sysctls.read(bridgeNetfilter) !== undefined) host.sysctls.write(bridgeNetfilter, value);
  // Between containers, each seen as itself.
  expect(ask(other, "172.30.0.2", 80)).toBe("web 172.30.0.3");
  // Out, with the host's address.
  expect(ask(web, "198.51.100.2", 7)).toBe("outside 198.51.100.1");
  // In by the published port: from outside with the true source, from the host by each of its addresses.
  expect(ask(outside, "198.51.100.1", 8080)).toBe("web 198.51.100.2");
  expect(ask(host, "127.0.0.1", 8080)).toBe("web 172.30.0.1");
  expect(ask(host, "198.51.100.1", 8080)).toMatch(/^web /);
  // From another container, and from the very one.
  expect(ask(other, "198.51.100.1", 8080)).toMatch(/^web /);
  expect(ask(web, "198.51.100.1", 8080)).toMatch(/^web /);
  expect(ask(web, "172.30.0.1", 8080)).toMatch(/^web /);
  // A port published on one address is not on another.
  expect(ask(host, "127.0.0.1", 8081)).toBe("other 172.30.0.1");
  expect(ask(outside, "198.51.100.1", 8081)).toBe("refused");
  // A neighbour with a route to the subnet reaches no container.
  outside.run(["ip", "route", "add", "172.30.0.0/16", "via", "198.51.100.1"]);
  expect(ask(outside, "172.30.0.2", 80)).toBe("silence");
  // The host's loopback is not the containers', though route_localnet would let them.
  await serve(host, 9, "secret", "127.0.0.1");
  expect(ask(host, "127.0.0.1", 9)).toBe("secret 127.0.0.1");
  web.sysctls.write("net/ipv4/conf/eth0/route_localnet", "1");
  web.run(["ip", "route", "add", "127.0.0.1", "via", "172.30.0.1", "dev", "eth0", "table", "7"]);
  web.run(["ip", "rule", "add", "to", "127.0.0.1", "lookup", "7", "pref", "0"]);
  web.run(["ip", "rule", "add", "from", "all", "lookup", "local", "pref", "10"]);
  web.run(["ip", "rule", "delete", "pref", "0", "lookup", "local"]);
  const attempt = () => web.run(["/usr/bin/python3", "-c", bindAndAsk("172.30.0.2", "127.0.0.1", 9)]);
  expect(attempt()).toBe("silence");
  // The rule is what stops it: without it the attempt succeeds.
  host.run(["iptables", "-F", "CAISSON-INPUT"]);
  expect(attempt()).toBe("secret 172.30.0.2");
});

function bindAndAsk(from: string, to: string, port: number): string {
  return `
import socket
try:
    with socket.create_connection(("${to}", ${port}), 1, ("${from}", 0)) as c: print(c.recv(100).decode(), end="")
except OSError: print("silence", end="")
`;
}

test("removal one by one leaves the host as it was, also when repeated", () => {
  expect(host.snapshot()).toContain("caisson0");
  host.run(RESTORE, firewall.removeEndpoint(WEB));
  for (let time = 0; time < 2; time++) removeEndpoint(host.socket(), "cvweb");
  expect(findLink(web.socket(), "eth0")).toBeUndefined();
  expect(ask(host, "127.0.0.1", 8081)).toBe("other 172.30.0.1");
  host.run(RESTORE, firewall.removeEndpoint(OTHER));
  removeEndpoint(host.socket(), "cvother");
  host.run(RESTORE, firewall.removeBridge());
  const bridge = { name: "caisson0", hostNames: [], changed };
  for (let time = 0; time < 2; time++) removeBridge(host.socket(), host.sysctls, bridge);
  expect(host.snapshot()).toBe(before);
});

test("the bridge can go with its endpoints at once, and takes nothing else with it", () => {
  host.run(RESTORE, firewall.removeBridge());
  removeBridge(host.socket(), host.sysctls, { name: "caisson0", hostNames: ["cvweb", "cvother", "cvgone"], changed });
  expect(findLink(other.socket(), "eth0")).toBeUndefined();
  expect(host.snapshot()).toBe(before);
});

describe("repair", () => {
  test("takes away one endpoint's rules and leaves the other's", () => {
    const text = firewall.repair(host.run(["iptables-save"]), "web");
    host.run(RESTORE, text);
    const saved = host.run(["iptables-save"]);
    expect(saved).not.toContain("caisson:web");
    expect(saved).toContain("caisson:other");
    expect(firewall.repair(saved, "web")).toBe("");
  });

  test("takes away everything of ours, doubled jumps too, and nothing else", () => {
    host.run(RESTORE, firewall.addBridge(BRIDGE));
    host.run(RESTORE, firewall.addEndpoint(WEB));
    host.run(RESTORE, firewall.repair(host.run(["iptables-save"])));
    const saved = host.run(["iptables-save"]);
    expect(rules(saved)).toBe(rulesBefore);
    expect(firewall.repair(saved)).toBe("");
  });
});

test("the bridge has a MAC of its own and no IPv6, for no router advertisement of a container to reach", () => {
  expect(findLink(host.socket(), "caisson0")).toMatchObject({ kind: "bridge", up: true, mac: macOf(GATEWAY.address) });
  expect(host.sysctls.read("net/ipv6/conf/caisson0/disable_ipv6")?.trim()).toBe("1");
  expect(host.run(["ip", "-6", "address", "show", "dev", "caisson0"])).toBe("");
});

test("a repeated connection keeps one pair, and another's bridge is refused", () => {
  connect(web, WEB);
  expect(ask(host, "172.30.0.2", 80)).toBe("web 172.30.0.1");
  expect(host.run(["ip", "-brief", "link", "show", "master", "caisson0"]).trim().split("\n")).toHaveLength(2);
  expect(host.run(["ip", "-d", "link", "show", "cvweb"])).toContain("hairpin on");
  expect(createBridge(host.socket(), host.sysctls, { name: "caisson0", gateway: GATEWAY })).toEqual({});
  expect(() => createBridge(host.socket(), host.sysctls, { name: "wan", gateway: GATEWAY })).toThrow("not a bridge");
});

test("an endpoint without its bridge says so, and a refusal carries errno and the kernel's words", () => {
  const endpoint = {
    bridge: "nosuch0",
    hostName: "cvx",
    containerName: "eth1",
    netnsFd: 99,
    mac: macOf(parseAddress("172.30.0.9")),
  };
  expect(() => createEndpoint(host.socket(), endpoint)).toThrow("there is no bridge nosuch0");
  expect(() => createEndpoint(host.socket(), { ...endpoint, bridge: "caisson0" })).toThrow(
    expect.objectContaining({ code: "EBADF", errno: 9, message: "cannot create veth pair cvx and eth1" }),
  );
  expect(() =>
    createEndpoint(host.socket(), { ...endpoint, bridge: "caisson0", hostName: "longer-than-15-bytes" }),
  ).toThrow(
    expect.objectContaining({
      code: "ERANGE",
      message: expect.stringMatching(/: Attribute failed policy validation$/),
    }),
  );
});

test("the host's own networks are taken, the bridge's are not", () => {
  const networks = takenSubnets(host.socket(), "caisson0").map(({ subnet }) => subnet);
  expect(networks).toContainEqual({ network: parseAddress("198.51.100.0"), prefixLength: 24 });
  expect(networks).not.toContainEqual(expect.objectContaining({ network: parseAddress("172.30.0.0") }));
});
