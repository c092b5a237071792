import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { withSocket } from "../../network/connection.ts";
import { findLink } from "../../network/endpoint.ts";
import type { EndpointArgs } from "../../plan/step.ts";
import type { Lesson } from "../lesson.ts";
import { lacksRoot, type Specimen } from "../specimen.ts";

const DEVICES = "awk -F: 'NR > 2 { print $1 }' /proc/net/dev | tr -d ' ' | sort | xargs";
const GATEWAY = `set -- $(awk '$2 == "00000000" { print $3; exit }' /proc/net/route | sed 's/../0x& /g'); printf '%d.%d.%d.%d\\n' $4 $3 $2 $1`;
const MASQUERADED = "iptables -t nat -S | sed -n 's/.*-s \\([0-9./]*\\) ! -o caisson0 .*MASQUERADE.*/\\1/p'";

export const network: Lesson = {
  name: "network",
  title: "A cable of one's own: veth, bridge and NAT",
  steps: ["raiseLoopback", "makeEndpoint", "publishPorts"],
  attack:
    "In the host's network a container listens on the host's ports, reaches what listens on 127.0.0.1, and reads all traffic.",
  lacks: () =>
    lacksRoot() ??
    (["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"].some((path) => existsSync(`${path}/iptables`))
      ? undefined
      : "iptables"),
  play(stage) {
    stage.tell("A new network namespace has one device, the loopback, and that is down until somebody raises it:");
    const alone = stage.make();
    stage.show(alone, "raiseLoopback");
    stage.ask(alone, {
      asks: "Which network devices does this container have?",
      look: { inside: DEVICES },
      seenIn: `/proc/${alone.pid}/net/dev`,
      truth: () => devices(alone),
      help: "/proc/net/dev has a line for each device.",
    });
    stage.tell(
      `So it reaches nobody. A veth pair is a cable: what goes in at one end comes out at the other. One end lies in the
       container, the other on a bridge of the host's, a switch made of software:`,
    );
    const connected = stage.make({ network: true });
    stage.show(connected, "makeEndpoint", "publishPorts");
    const { hostName, bridge } = endpointIn(connected);
    stage.ask(connected, {
      asks: "And which devices does this one have? (In the alphabet's order, with spaces between.)",
      look: { inside: DEVICES },
      seenIn: `/proc/${connected.pid}/net/dev`,
      truth: () => devices(connected),
      help: "/proc/net/dev has a line for each device.",
    });
    stage.ask(connected, {
      asks: "eth0 knows the number of its other end. Which number is that?",
      look: { inside: "cat /sys/class/net/eth0/iflink" },
      seenIn: `rtnetlink, link ${hostName} on the host`,
      truth: () => withSocket((socket) => findLink(socket, hostName))?.index.toString(),
      help: `/sys/class/net/eth0/iflink inside; on the host, ip link show ${hostName}.`,
    });
    stage.ask(connected, {
      asks: "Whom does the container send to what is for the world? Its default gateway has which address?",
      look: { inside: GATEWAY },
      seenIn: `/proc/${connected.pid}/net/route`,
      truth: () => gateway(connected),
      help: "ip route inside says it after “default via”; /proc/net/route has it in hexadecimal, the last byte first.",
    });
    stage.tell(
      `Nobody outside knows a way back to the container's address. So the host puts its own in the place of it, on the
       way out, and remembers whom the answer is for: NAT.`,
    );
    stage.ask(connected, {
      asks: `For which addresses does the host do so, when the packet does not stay on ${bridge}?`,
      look: { host: MASQUERADED },
      seenIn: "iptables -t nat -S",
      truth: () => masqueraded(bridge),
      help: "iptables -t nat -S lists the rules; look for MASQUERADE, and what is behind -s.",
    });
  },
};

function endpointIn({ plan }: Specimen): EndpointArgs {
  const step = plan.find(({ name }) => name === "makeEndpoint");
  if (step?.name !== "makeEndpoint") throw new Error("the plan makes no endpoint");
  return step.args;
}

function devices(container: Specimen): string {
  return container
    .proc("net/dev")
    .split("\n")
    .flatMap((line) => /^\s*([^\s:]+):/.exec(line)?.[1] ?? [])
    .sort()
    .join(" ");
}

/** In /proc/net/route an address is a number of this machine's byte order. */
function gateway(container: Specimen): string | undefined {
  const [, hex] = /^\S+\t00000000\t([0-9A-F]{8})\t/m.exec(container.proc("net/route")) ?? [];
  return hex
    ?.match(/../g)
    ?.reverse()
    .map((byte) => Number.parseInt(byte, 16))
    .join(".");
}

function masqueraded(bridge: string): string | undefined {
  const rules = execFileSync("iptables", ["-w", "-t", "nat", "-S"], { encoding: "utf8" });
  return new RegExp(`-s (\\S+) ! -o ${bridge} .*-j MASQUERADE`).exec(rules)?.[1];
}
