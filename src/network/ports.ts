import { ContainerError } from "../error.ts";
import { formatAddress, parseAddress } from "./address.ts";

/** Published ports: Docker's `-p` notation as values. Pure. */

export type Protocol = "tcp" | "udp" | "sctp";

export interface PortBinding {
  protocol: Protocol;
  /** IPv4; 0.0.0.0 is every address of the host */
  hostAddress: string;
  /** 0: any free port, the kernel chooses when the port is bound */
  hostPort: number;
  /** The first free port from hostPort to this one. */
  lastHostPort?: number;
  containerPort: number;
}

function invalid(text: string, why: string): ContainerError {
  return new ContainerError({ message: `cannot publish port ${JSON.stringify(text)}: ${why}`, code: "ERR_PORT" });
}

/**
 * Reads `[[ip:][hostPort[-last]]:]containerPort[-last][/tcp|udp|sctp]`; an IPv6 address stands in brackets.
 *
 * @returns one binding a container port
 * @throws ERR_PORT
 */
export function parsePublish(text: string): PortBinding[] {
  const [, address, addressed, hostRange, containerRange, suffix] =
    /^(?:(?:(\[[^\]]*\]|[^:[\]]*)(:))?([^:]*):)?([^:/]*)(?:\/(.*))?$/s.exec(text) ?? [];
  if (containerRange === undefined) throw invalid(text, "it is not [[address:][host port]:]container port[/protocol]");
  const protocol = (suffix ?? "tcp").toLowerCase();
  if (protocol !== "tcp" && protocol !== "udp" && protocol !== "sctp") {
    throw invalid(text, `the protocol is tcp, udp or sctp, not ${JSON.stringify(suffix)}`);
  }
  const container = parseRange(text, containerRange, "container", 1);
  // Two binding forms leave the host's port open: a lone container port and an empty field.
  const host = hostRange ? parseRange(text, hostRange, "host", 0) : undefined;
  const hostAddress = addressed ? parseHostAddress(text, address ?? "") : "0.0.0.0";
  if (!host || host.last === 0) {
    return range(container).map((containerPort) => ({ protocol, hostAddress, hostPort: 0, containerPort }));
  }
  const count = container.last - container.first;
  if (count > 0 && count !== host.last - host.first) {
    throw invalid(text, `${count + 1} container ports cannot go to ${host.last - host.first + 1} host ports`);
  }
  if (count === 0 && host.last > host.first) {
    const [hostPort, lastHostPort] = [host.first, host.last];
    return [{ protocol, hostAddress, hostPort, lastHostPort, containerPort: container.first }];
  }
  return range(container).map((containerPort, index) => {
    return { protocol, hostAddress, hostPort: host.first + index, containerPort };
  });
}

interface Range {
  first: number;
  last: number;
}

function parseRange(text: string, ports: string, side: string, lowest: number): Range {
  const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(ports) ?? [];
  if (first === undefined) throw invalid(text, `the ${side} port is a number or a range, not ${JSON.stringify(ports)}`);
  const parsed = { first: Number(first), last: Number(last) };
  if (parsed.first < lowest || parsed.last > 65_535 || (parsed.first === 0 && parsed.last > 0)) {
    throw invalid(text, `the ${side} port is from 1 to 65535`);
  }
  if (parsed.first > parsed.last) throw invalid(text, `the range ${ports} is backwards`);
  return parsed;
}

function range({ first, last }: Range): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

function parseHostAddress(text: string, address: string): string {
  if (address === "") return "0.0.0.0";
  let parsed: ReturnType<typeof parseAddress>;
  try {
    parsed = parseAddress(address.replace(/^\[(.*)\]$/, "$1"));
  } catch {
    throw invalid(text, `${JSON.stringify(address)} is not an IP address`);
  }
  if (parsed.family === 6) throw invalid(text, "containers have IPv4 addresses only");
  return formatAddress(parsed);
}

/** As `docker ps` shows it, such as "0.0.0.0:8080->80/tcp". */
export function formatPort({ protocol, hostAddress, hostPort, containerPort }: PortBinding): string {
  return `${hostAddress}:${hostPort}->${containerPort}/${protocol}`;
}
