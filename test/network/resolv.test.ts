import { expect, test } from "vitest";
import { hostnameFile, hostsFile, resolvConf } from "../../src/network/resolv.ts";

test("the host's name servers, search list and options are kept, its comments are not", () => {
  const host =
    "# made by hand\nsearch old.example\nnameserver 192.0.2.53 # first\n; no\nnameserver 192.0.2.54\nsearch a.example b.example\noptions ndots:2\noptions edns0\n";
  expect(resolvConf([host])).toBe(
    "nameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch a.example b.example\noptions ndots:2 edns0\n",
  );
});

test("name servers that a container cannot reach give way to the real ones behind them", () => {
  const stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\ndomain home.example\n";
  const real = "nameserver fd00::53\nnameserver 192.0.2.53\nsearch ignored.example\n";
  expect(resolvConf([stub, real])).toBe("nameserver 192.0.2.53\nsearch home.example\noptions edns0 trust-ad\n");
});

test("without any, public ones are used, as Docker does", () => {
  const servers = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
  expect(resolvConf([])).toBe(servers);
  expect(resolvConf(["nameserver 127.0.0.1\nnameserver ::1\nnameserver\n"])).toBe(servers);
});

test("what was asked for wins", () => {
  const wanted = { nameServers: ["127.0.0.1"], search: [], options: ["rotate"] };
  expect(resolvConf(["nameserver 192.0.2.53\nsearch a.example\n"], wanted)).toBe(
    "nameserver 127.0.0.1\noptions rotate\n",
  );
});

test("hosts knows localhost and the container by its long and short name", () => {
  const lines = hostsFile("web.example.org", "172.30.0.2", [{ address: "192.0.2.1", name: "db" }]).split("\n");
  expect(lines.slice(0, 2)).toEqual(["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]);
  expect(lines.slice(-3)).toEqual(["192.0.2.1\tdb", "172.30.0.2\tweb.example.org web", ""]);
  expect(hostsFile("web", "172.30.0.2")).toContain("172.30.0.2\tweb\n");
  expect(hostsFile("web")).not.toContain("web");
  expect(hostnameFile("web")).toBe("web\n");
});
