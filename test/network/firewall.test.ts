import { afterEach, beforeEach, expect, test } from "vitest";
import * as firewall from "../../src/network/firewall.ts";
import { parsePublish } from "../../src/network/ports.ts";
import { Namespace, rules } from "./namespace.ts";

const BRIDGE = { bridge: "caisson0", subnet: "172.30.0.0/16" };
const WEB = {
  id: "web",
  address: "172.30.0.2",
  ports: [...parsePublish("8080:80"), ...parsePublish("127.0.0.1:53:53/udp"), ...parsePublish("9:9/sctp")],
};

let host: Namespace;
beforeEach(async () => {
  host = await Namespace.make();
});
afterEach(() => host.close());

test("an endpoint's rules say what is published, to whom, and whose they are", () => {
  expect(firewall.addEndpoint(WEB)).toBe(
    [
      "*nat",
      '-A CAISSON -p tcp -m tcp --dport 8080 -m comment --comment "caisson:web" -j DNAT --to-destination 172.30.0.2:80',
      '-A CAISSON -d 127.0.0.1/32 -p udp -m udp --dport 53 -m comment --comment "caisson:web" -j DNAT --to-destination 172.30.0.2:53',
      '-A CAISSON -p sctp -m sctp --dport 9 -m comment --comment "caisson:web" -j DNAT --to-destination 172.30.0.2:9',
      "COMMIT",
      "",
    ].join("\n"),
  );
  expect(firewall.removeEndpoint(WEB)).toBe(firewall.addEndpoint(WEB).replaceAll("-A ", "-D "));
  expect(firewall.addEndpoint({ ...WEB, ports: [] })).toBe("");
});

test.each(["", "a b", 'a"', "a\n-j ACCEPT", "x".repeat(241)])("the id %j is kept out of iptables", (id) => {
  expect(() => firewall.addEndpoint({ ...WEB, id })).toThrow(expect.objectContaining({ code: "ERR_ID" }));
  expect(() => firewall.repair("", id)).toThrow(expect.objectContaining({ code: "ERR_ID" }));
});

// Debian has both; which of them is behind iptables-restore is the administrator's choice.
test.each(["nft", "legacy"])("both kinds of iptables take the rules, and give all of them back: %s", (kind) => {
  const [program, ...options] = firewall.RESTORE_COMMAND;
  const restore = (text: string) => host.run([program.replace("iptables", `iptables-${kind}`), ...options], text);
  const saved = () => rules(host.run([`iptables-${kind}-save`]));
  // Touch the tables, so that their built-in chains are listed before as after.
  restore("*nat\n-A OUTPUT -o eth7 -j ACCEPT\nCOMMIT\n*filter\n-A FORWARD -i eth7 -j DROP\nCOMMIT\n");
  const before = saved();
  // Both texts in one run, as for a first container.
  restore(firewall.addBridge(BRIDGE) + firewall.addEndpoint(WEB));
  const added = saved();
  expect(added.match(/-j DNAT/g)).toHaveLength(3);
  // Ahead of rules that were there.
  expect(added.indexOf("-A FORWARD -j CAISSON-FORWARD")).toBeLessThan(added.indexOf("-A FORWARD -i eth7"));
  for (const line of [firewall.addBridge(BRIDGE), firewall.addEndpoint(WEB)].flatMap((text) =>
    text.match(/^-A .*/gm),
  )) {
    expect(added).toContain(line);
  }
  restore(firewall.repair(added, "web"));
  expect(saved()).not.toContain("DNAT --to");
  restore(firewall.addEndpoint(WEB));
  restore(firewall.removeEndpoint(WEB));
  restore(firewall.removeBridge());
  expect(saved()).toBe(before);
  restore(firewall.addBridge(BRIDGE));
  restore(firewall.addBridge(BRIDGE));
  restore(firewall.addEndpoint(WEB));
  restore(firewall.repair(saved()));
  expect(saved()).toBe(before);
});

test("repair takes nobody else's rules for ours", () => {
  const saved = [
    "*mangle",
    "-A CAISSON -j X",
    "COMMIT",
    "*nat",
    ":PREROUTING ACCEPT [0:0]",
    ":CAISSONX - [0:0]",
    ":DOCKER - [0:0]",
    "-A DOCKER -p tcp -m comment --comment caisson:web -j DNAT --to-destination 172.17.0.2:80",
    "-A POSTROUTING -m comment --comment CAISSON -j MASQUERADE",
    "-A PREROUTING -j CAISSONX",
    "COMMIT",
    "",
  ].join("\n");
  expect(firewall.repair(saved)).toBe("");
  expect(firewall.repair(saved, "web")).toBe("");
  const id = saved.replace(":DOCKER - [0:0]", ":CAISSON - [0:0]\n-A CAISSON -m comment --comment caisson:web2 -j DNAT");
  expect(firewall.repair(id, "web")).toBe("");
  expect(firewall.repair(id, "web2")).toBe("*nat\n-D CAISSON -m comment --comment caisson:web2 -j DNAT\nCOMMIT\n");
});
