import { describe, expect, test } from "vitest";
import { formatPort, parsePublish } from "../../src/network/ports.ts";

const tcp = (hostPort: number, containerPort: number, hostAddress = "0.0.0.0") => {
  return { protocol: "tcp", hostAddress, hostPort, containerPort };
};

test.each([
  ["80", [tcp(0, 80)]],
  ["8080:80", [tcp(8080, 80)]],
  ["8080:80/udp", [{ ...tcp(8080, 80), protocol: "udp" }]],
  ["8080:80/SCTP", [{ ...tcp(8080, 80), protocol: "sctp" }]],
  ["127.0.0.1:8080:80", [tcp(8080, 80, "127.0.0.1")]],
  ["127.0.0.1::80", [tcp(0, 80, "127.0.0.1")]],
  ["0:80", [tcp(0, 80)]],
  ["8000-8002:90-92", [tcp(8000, 90), tcp(8001, 91), tcp(8002, 92)]],
  ["90-91", [tcp(0, 90), tcp(0, 91)]],
  ["8000-8010:80", [{ ...tcp(8000, 80), lastHostPort: 8010 }]],
  ["65535:65535", [tcp(65535, 65535)]],
])("%s", (text, bindings) => {
  expect(parsePublish(text)).toEqual(bindings);
});

describe("what cannot be published says why", () => {
  test.each([
    ["", 'the container port is a number or a range, not ""'],
    ["8080:", 'the container port is a number or a range, not ""'],
    ["http:80", 'the host port is a number or a range, not "http"'],
    ["80/icmp", 'the protocol is tcp, udp or sctp, not "icmp"'],
    ["80/", 'the protocol is tcp, udp or sctp, not ""'],
    ["80:0", "the container port is from 1 to 65535"],
    ["80:65536", "the container port is from 1 to 65535"],
    ["70000:80", "the host port is from 1 to 65535"],
    ["0-5:80", "the host port is from 1 to 65535"],
    ["90-80:1", "the range 90-80 is backwards"],
    ["8000-8001:80-82", "3 container ports cannot go to 2 host ports"],
    ["8000:80-82", "3 container ports cannot go to 1 host ports"],
    ["localhost:80:80", '"localhost" is not an IP address'],
    ["127.1:80:80", '"127.1" is not an IP address'],
    ["[::1]:80:80", "containers have IPv4 addresses only"],
    ["::1:80:80", "it is not [[address:][host port]:]container port[/protocol]"],
    ["1.2.3.4:80:80:80", "it is not [[address:][host port]:]container port[/protocol]"],
    ["-1:80", 'the host port is a number or a range, not "-1"'],
    ["80\n-j ACCEPT", 'the container port is a number or a range, not "80\\n-j ACCEPT"'],
  ])("%j", (text, why) => {
    expect(() => parsePublish(text)).toThrow(
      expect.objectContaining({ code: "ERR_PORT", message: `cannot publish port ${JSON.stringify(text)}: ${why}` }),
    );
  });
});

test("a port is shown as docker ps shows it", () => {
  expect(parsePublish("127.0.0.1:8080:80/udp").map(formatPort)).toEqual(["127.0.0.1:8080->80/udp"]);
});
