import { execFileSync } from "node:child_process";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import { cleanUp, cleanUpFile, makeBundle, run, seenIn, type WholeSpec } from "../support/bundle.ts";

// OCI runtime-spec, config-linux.md "Network Devices". The host is a network namespace of each test's own.

afterEach(cleanUp);
afterAll(cleanUpFile);

const NAME = `caisson-test-${process.pid}`;

/** The runtime as it is called where these commands of ip have made devices; then `after` says what is left there. */
function through(setUp: string[], after = "true"): string[] {
  const script = `${setUp.map((words) => `ip ${words} &&`).join(" ")} { "$@"; status=$?; ${after} >&2; exit $status; }`;
  return ["unshare", "--net", "sh", "-c", script, "sh"];
}

const CARD = [
  "link add card7 type veth peer name peer7",
  "link set peer7 up",
  "address add 192.0.2.7/24 dev card7",
  "address add 2001:db8::7/64 dev card7 nodad",
  "address add 169.254.7.7/16 scope link dev card7",
  "address add 192.0.2.99/24 valid_lft 600 preferred_lft 600 dev card7",
  "link set card7 up",
];

function withDevices(spec: WholeSpec, netDevices: Record<string, { name?: string }>): void {
  spec.linux.netDevices = netDevices;
}

test("a device moves in under a new name, up, with its permanent global addresses and no others", () => {
  covers("linux.netDevices");
  const bundle = makeBundle((spec) => withDevices(spec, { card7: { name: "inside0" } }));
  const { network } = seenIn(run(bundle, { through: through(CARD, "ip -br link show card7 2>/dev/null; true") }));
  const device = network.find(({ name }) => name === "inside0");
  expect(network.map(({ name }) => name).sort()).toEqual(["inside0", "lo"]);
  expect(device?.up).toBe(true);
  const addresses = device?.addresses.filter((address) => !address.startsWith("fe80")).sort();
  expect(addresses).toEqual(["192.0.2.7/24", "2001:db8::7/64"]);
});

test("without a name it keeps its own, several move, and a pattern gets its number from the kernel", () => {
  covers("linux.netDevices");
  const bundle = makeBundle((spec) => withDevices(spec, { one: {}, two: { name: "eth%d" }, three: { name: "eth%d" } }));
  const setUp = ["one", "two", "three"].map((name) => `link add ${name} type veth peer name peer-${name}`);
  const { network } = seenIn(run(bundle, { through: through(setUp) }));
  expect(network.map(({ name }) => name).sort()).toEqual(["eth0", "eth1", "lo", "one"]);
});

test("one end of a pair moves into a container with a user namespace, and talks to the other", () => {
  covers("linux.netDevices");
  const bundle = makeBundle((spec) => {
    withDevices(spec, { inner: { name: "eth0" } });
    const ids = [{ containerID: 0, hostID: 100_000, size: 1000 }];
    spec.linux.namespaces?.push({ type: "user" });
    Object.assign(spec.linux, { uidMappings: ids, gidMappings: ids });
    spec.process.args = ["/bin/probe", "--connect", "192.0.2.1", "7007"];
  });
  const setUp = [
    "link add outer type veth peer name inner",
    "address add 192.0.2.1/24 dev outer",
    "address add 192.0.2.2/24 dev inner",
    "link set outer up",
    "link set lo up",
  ];
  const server =
    "import socket; s=socket.create_server(('192.0.2.1',7007)); print(flush=True); c,a=s.accept(); c.sendall(('you are '+a[0]+'\\n').encode())";
  const [, , , , script = "", sh = ""] = through(setUp);
  const listening = script.replace(
    '{ "$@"',
    `{ python3 -c "${server}" > /dev/null & n=0; until ss -ltn | grep -q 7007; do n=$((n+1)); test $n -lt 1000; sleep 0.01; done; "$@"`,
  );
  const seen = seenIn(run(bundle, { through: ["unshare", "--net", "sh", "-c", listening, sh] }));
  expect(seen.actions[0]?.result).toContain("you are 192.0.2.2");
});

describe("a namespace that is joined", () => {
  afterEach(() => {
    execFileSync("sh", ["-c", `ip netns del ${NAME} 2>/dev/null || true`]);
  });

  test("keeps the device after the container is gone: its life is not the runtime's business", () => {
    covers("linux.netDevices");
    execFileSync("ip", ["netns", "add", NAME]);
    const bundle = makeBundle((spec) => {
      withDevices(spec, { card7: {} });
      spec.linux.namespaces?.splice(1, 1, { type: "network", path: `/run/netns/${NAME}` });
    });
    // looked at before the other end goes with its namespace
    const { stderr } = run(bundle, { through: through(CARD, `ip -n ${NAME} -br address show card7`) });
    expect(stderr).toMatch(/^card7@.* UP .*192\.0\.2\.7\/24/);
  });

  test("that has a device of the name is an error, and the device stays where it was, as it was", () => {
    execFileSync("ip", ["netns", "add", NAME]);
    execFileSync("ip", ["-n", NAME, "link", "add", "taken", "type", "veth"]);
    const bundle = makeBundle((spec) => {
      withDevices(spec, { card7: { name: "taken" } });
      spec.linux.namespaces?.splice(1, 1, { type: "network", path: `/run/netns/${NAME}` });
    });
    const { status, stderr } = run(bundle, { through: through(CARD, "ip -br address show card7") });
    expect(status).toBe(1);
    expect(stderr).toContain("/linux/netDevices/card7");
    expect(stderr).toMatch(/card7@.*192\.0\.2\.7\/24/);
  });
});

test("when the creation fails later, the device is back, with its name and addresses", () => {
  const bundle = makeBundle((spec) => {
    withDevices(spec, { card7: { name: "eth%d" } });
    spec.process.args = ["/no/such/program"];
  });
  const { status, stderr } = run(bundle, { through: through(CARD, "ip -br address show card7") });
  expect(status).toBe(1);
  expect(stderr).toContain("no such file");
  expect(stderr).toMatch(/card7@.*192\.0\.2\.7\/24.*2001:db8::7\/64/);
});

test("a device that is not there, or would move to where it is, is an error", () => {
  const missing = makeBundle((spec) => withDevices(spec, { absent7: {} }));
  expect(run(missing, { through: through([]) })).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/cannot find network device absent7.*\/linux\/netDevices\/absent7/),
  });
  const nowhere = makeBundle((spec) => {
    withDevices(spec, { card7: {} });
    spec.linux.namespaces?.splice(1, 1, { type: "network", path: "/proc/self/ns/net" });
  });
  expect(run(nowhere, { through: through(CARD) })).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("/linux/netDevices/card7"),
  });
});
