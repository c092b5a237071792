import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { fixtures } from "../../rootfs-fixtures/build.mjs";
import { Namespace } from "../network/namespace.ts";
import { results, until } from "../support/bundle.ts";
import { expectFailure, lastLine, Machine } from "../support/engine.ts";

const WITNESS = join(import.meta.dirname, "../network/tcp_witness.py");
const PYTHON = "/usr/bin/python3";
const IMAGE = "caisson/quickstart";
const [HOST, OUTSIDE] = ["198.51.100.1", "198.51.100.2"];
/** Asks on UDP until there is an answer. */
const ASK_UDP = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.3)
for _ in range(10):
    s.sendto(b"echo", (sys.argv[1], int(sys.argv[2])))
    try:
        data, peer = s.recvfrom(100); print(data.decode(), *peer, end=""); break
    except OSError: pass
`;
const ECHO_UDP = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 53))
while True: s.sendto(*s.recvfrom(100))
`;
const BIND = `
import errno, socket, sys
try: socket.socket(socket.AF_INET, getattr(socket, sys.argv[2])).bind(("", int(sys.argv[1]))); print("free", end="")
except OSError as e: print(errno.errorcode[e.errno], end="")
`;

/** A host with a neighbour that knows no way to the containers. */
let machine: Machine;
let host: Namespace;
let outside: Namespace;
let before = "";
const started: (() => void)[] = [];

beforeAll(async () => {
  machine = await Machine.make();
  outside = await Namespace.make();
  if (machine.network === undefined) throw new Error("these tests need a network of their own");
  host = machine.network;
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
  host.run(["ip", "address", "add", `${HOST}/24`, "dev", "wan"]);
  host.run(["ip", "link", "set", "wan", "up"]);
  outside.run(["ip", "address", "add", `${OUTSIDE}/24`, "dev", "lan"]);
  outside.run(["ip", "link", "set", "lan", "up"]);
  host.run(["tee", "/proc/sys/net/ipv6/conf/wan/disable_ipv6"], "1");
  // iptables makes its tables with the first rule
  for (const table of ["filter", "nat"])
    host.run(["sh", "-c", `iptables -t ${table} -N X && iptables -t ${table} -X X`]);
  before = host.snapshot();
});
afterEach(() => {
  for (const stop of started.splice(0)) stop();
  machine.expectEmpty();
  expect(host.snapshot(), "the host's links, addresses, routes, rules and forwarding").toBe(before);
});
afterAll(() => {
  outside.close();
  machine.close();
});

function ask(from: Namespace, address: string, port: number): string {
  return from.run([PYTHON, WITNESS, "ask", address, String(port)]);
}

async function serve(where: Namespace, address: string, port: number, word: string): Promise<void> {
  started.push(await where.start([PYTHON, WITNESS, "serve", address, String(port), word]));
}

/** Starts a container that answers on port 80, with its host name and who calls. */
function listener(name: string, ...flags: string[]): string {
  machine.succeeds(["run", "-d", "--name", name, "-h", name, ...flags, IMAGE, "/bin/probe", "--listen", "80", "100"]);
  until("it listens", () => machine.caisson(["logs", name]).stdout.includes("listening"));
  return machine.inspect(name).NetworkSettings.IPAddress;
}

function connect(address: string, port: number, through = ["run", "--rm", IMAGE]): unknown {
  return results(lastLine(machine.succeeds([...through, "/bin/probe", "--connect", address, String(port)])).actions)[0];
}

test("inside are an address, a way out, names, and nothing else", () => {
  const seen = lastLine(machine.succeeds(["run", "--rm", "-h", "box", IMAGE, "/bin/probe"]));
  const eth0 = seen.network.find(({ name }) => name === "eth0");
  expect(seen.network.map(({ name, up }) => [name, up])).toEqual([
    ["lo", true],
    ["eth0", true],
  ]);
  expect(eth0?.addresses).toContain("172.30.0.2/16");
  expect(seen.routes).toEqual(
    expect.arrayContaining([expect.objectContaining({ interface: "eth0", gateway: "172.30.0.1" })]),
  );
  const named = (path: string) =>
    readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line.startsWith("nameserver") && !/\s(127\.|::1)/.test(line));
  if (named("/etc/resolv.conf").length > 0)
    expect(seen.files["/etc/resolv.conf"]).toContain(named("/etc/resolv.conf")[0]);
  expect(seen.files["/etc/hosts"]).toMatch(/^172\.30\.0\.2\s+box$/m);
  expect(seen).toMatchObject({ hostname: "box", files: { "/etc/hostname": "box\n" } });
});

test("a container reaches the outside with the host's address", async () => {
  await serve(outside, OUTSIDE, 9000, "outside");
  expect(connect(OUTSIDE, 9000)).toBe(`outside ${HOST}`);
});

test("a published port answers on 127.0.0.1, the host's address, from outside, another container and the container itself", () => {
  const address = listener("web", "-p", "8080:80", "-p", "127.0.0.1:8081:80");
  // on the way in by 127.0.0.1 the caller's address has to change
  expect(ask(host, "127.0.0.1", 8080)).toBe("probe web 172.30.0.1\n");
  expect(ask(host, HOST, 8080)).toMatch(/^probe web \S+\n$/);
  // whoever comes from outside is seen as himself
  expect(ask(outside, HOST, 8080)).toBe(`probe web ${OUTSIDE}\n`);
  expect(connect(HOST, 8080)).toMatch(/^probe web /);
  expect(connect("172.30.0.1", 8080)).toMatch(/^probe web /);
  expect(connect(HOST, 8080, ["exec", "web"])).toMatch(/^probe web /);
  // containers reach each other, and nobody else reaches a port that is not published
  expect(connect(address, 80)).toMatch(/^probe web 172\.30\.0\.\d+/);
  outside.run(["ip", "route", "add", "172.30.0.0/16", "via", HOST]);
  expect(ask(outside, address, 80)).toBe("silence");
  outside.run(["ip", "route", "del", "172.30.0.0/16"]);
  expect(ask(host, "127.0.0.1", 8081)).toMatch(/^probe web /);
  expect(ask(outside, HOST, 8081)).toBe("refused");
  machine.succeeds(["rm", "-f", "web"]);
  expect(ask(host, "127.0.0.1", 8080)).toBe("refused");
});

test("UDP is published too", () => {
  machine.succeeds(["run", "-d", "--name", "dns", "-p", "5353:53/udp", IMAGE, "/bin/probe", "--sleep", "60"]);
  const echo = spawn("nsenter", [`--net=/proc/${machine.inspect("dns").State.Pid}/ns/net`, PYTHON, "-c", ECHO_UDP], {
    stdio: "ignore",
  });
  started.push(() => echo.kill("SIGKILL"));
  expect(host.run([PYTHON, "-c", ASK_UDP, "127.0.0.1", "5353"])).toBe("echo 127.0.0.1 5353");
  expect(outside.run([PYTHON, "-c", ASK_UDP, HOST, "5353"])).toBe(`echo ${HOST} 5353`);
  expect(host.run([PYTHON, "-c", BIND, "5353", "SOCK_DGRAM"])).toBe("EADDRINUSE");
  machine.succeeds(["rm", "-f", "dns"]);
});

test("a published port is the container's while it lives: nobody else can bind it, and a second container is refused", () => {
  listener("first", "-p", "8080:80");
  expect(host.run(["cat", "/proc/self/net/tcp"])).toMatch(/ 00000000:1F90 00000000:0000 0A /);
  expect(host.run([PYTHON, "-c", BIND, "8080", "SOCK_STREAM"])).toBe("EADDRINUSE");
  const during = host.snapshot();
  expectFailure(
    machine.caisson(["run", "--rm", "--name", "second", "-p", "7777:80", "-p", "8080:81", IMAGE, "/bin/true"]),
    /8080.*port is in use[\s\S]*hint +stop container first, which listens there/,
  );
  expect(machine.containers()).toHaveLength(1);
  expect(host.snapshot()).toBe(during);
  expect(host.run([PYTHON, "-c", BIND, "7777", "SOCK_STREAM"])).toBe("free");
  machine.succeeds(["rm", "-f", "first"]);
  expect(host.run([PYTHON, "-c", BIND, "8080", "SOCK_STREAM"])).toBe("free");
});

test("a port that another program has is said, and nothing is left", async () => {
  await serve(host, "0.0.0.0", 8080, "other");
  expectFailure(
    machine.caisson(["run", "--rm", "-p", "8080:80", IMAGE, "/bin/true"]),
    /8080.*port is in use[\s\S]*hint +stop python\S* \(pid \d+\), which listens there/,
  );
  expect(machine.containers()).toEqual([]);
});

test("where init fails while the network is made, its failure is told, and not that its namespaces are gone", () => {
  const delay = ["-e", "trace=flock", "-e", "inject=flock:delay_enter=300000"];
  const outcome = machine.caisson(["run", "--rm", "-p", "8080:80", "-v", "/etc/hostname:/tmp", IMAGE, "true"], {
    through: ["strace", "-f", "-qq", "-o", "/dev/null", ...delay],
  });
  expectFailure(outcome, /mounts it on \/tmp\n +kernel +ENOTDIR \(step \d+, attachMount\)/);
  expect(machine.containers()).toEqual([]);
});

test("without a host port a free one is taken, and ps and inspect say which", () => {
  listener("any", "-p", "80");
  const port = Number(/0\.0\.0\.0:(\d+)->80\/tcp/.exec(machine.succeeds(["ps"]))?.[1]);
  expect(ask(outside, HOST, port)).toMatch(/^probe any /);
  expect(machine.inspect("any").NetworkSettings).toMatchObject({
    Ports: { "80/tcp": [{ HostIp: "0.0.0.0", HostPort: String(port) }] },
  });
  machine.succeeds(["rm", "-f", "any"]);
});

test("a subnet that the host routes already is not taken; when all are, that is said", () => {
  host.run(["ip", "route", "add", "172.30.7.0/24", "via", OUTSIDE]);
  expect(
    lastLine(machine.succeeds(["run", "--rm", IMAGE, "/bin/probe"])).network.find(({ name }) => name === "eth0")
      ?.addresses,
  ).toContain("172.29.0.2/16");
  machine.settle();
  const routes = ["172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16"];
  for (const route of routes) host.run(["ip", "route", "add", route, "via", OUTSIDE]);
  expectFailure(machine.caisson(["run", "--rm", IMAGE, "/bin/true"]), /cannot find a subnet/);
  for (const route of [...routes, "172.30.7.0/24"]) host.run(["ip", "route", "del", route]);
});

test("a bridge that another data directory's containers are on is left to them", () => {
  listener("first", "-p", "8080:80");
  const elsewhere = ["--data", join(machine.directory, "data2"), "--root", join(machine.directory, "run2")];
  const other = (...words: string[]) => machine.caisson([...elsewhere, ...words]);
  expect(other("load", fixtures.images.quickstart.docker).status).toBe(0);
  expectFailure(
    other("run", "--rm", IMAGE, "/bin/true"),
    /cannot use bridge caisson0: cv\w+ is connected to it.*another data directory/s,
  );
  expect(ask(outside, HOST, 8080)).toMatch(/^probe first /);
  machine.succeeds(["rm", "-f", "first"]);
  machine.settle();
  expect(other("run", "--rm", IMAGE, "/bin/true").status).toBe(0);
  until("its bridge is gone", () => !host.run(["ip", "-brief", "link"]).includes("caisson0"));
});

test("the host's loopback is closed to containers (CVE-2020-8558), and rules that somebody changed are cleaned up all the same", async () => {
  await serve(host, "127.0.0.1", 7000, "private");
  listener("attacker", "-p", "8080:80");
  const { Pid } = machine.inspect("attacker").State;
  // as CAP_NET_ADMIN inside could: loopback addresses go out by eth0
  const inside = (script: string) => machine.shell(`nsenter --net=/proc/${Pid}/ns/net sh -ec '${script}'`).stdout;
  inside(
    "ip address flush dev lo; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip route add 127.0.0.0/8 via 172.30.0.1",
  );
  const attempt = () => inside(`${PYTHON} ${WITNESS} ask 127.0.0.1 7000`);
  expect(attempt()).toBe("silence");
  // without the rule it is open: the attempt is a real one
  host.run(["iptables", "-F", "CAISSON-INPUT"]);
  expect(attempt()).toMatch(/^private /);
  machine.succeeds(["rm", "-f", "attacker"]);
});

test("the last of several containers takes bridge, rules and forwarding with it", () => {
  const addresses = ["a", "b", "c"].map((name, i) => listener(name, "-p", `${8080 + i}:80`));
  expect(new Set(addresses).size).toBe(3);
  expect(host.run(["cat", "/proc/sys/net/ipv4/ip_forward"])).toBe("1\n");
  expect(host.run(["ip", "-brief", "link", "show", "type", "veth"]).match(/^cv/gm)).toHaveLength(3);
  machine.succeeds(["rm", "-f", "a"]);
  expect(ask(outside, HOST, 8081)).toMatch(/^probe b /);
  expect(ask(outside, HOST, 8080)).toBe("refused");
  machine.succeeds(["rm", "-f", "b"]);
  expect(ask(outside, HOST, 8082)).toMatch(/^probe c /);
  machine.succeeds(["rm", "-f", "c"]);
  expect(host.run(["cat", "/proc/sys/net/ipv4/ip_forward"])).toBe("0\n");
});

test("a record of the network that a loss of power has left empty is none", () => {
  listener("before", "-p", "8080:80");
  machine.succeeds(["rm", "-f", "before"]);
  writeFileSync(join(machine.data, "networks/bridge.json"), "");
  listener("after", "-p", "8080:80");
  expect(ask(outside, HOST, 8080)).toMatch(/^probe after /);
  machine.succeeds(["rm", "-f", "after"]);
});

test("forwarding that was on stays on", () => {
  host.run(["tee", "/proc/sys/net/ipv4/ip_forward"], "1");
  try {
    machine.succeeds(["run", "--rm", IMAGE, "/bin/true"]);
    machine.settle();
    expect(host.run(["cat", "/proc/sys/net/ipv4/ip_forward"])).toBe("1\n");
  } finally {
    host.run(["tee", "/proc/sys/net/ipv4/ip_forward"], "0");
  }
});
