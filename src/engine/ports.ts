import { ContainerError } from "../error.ts";
import { portHolders } from "../host/port-holders.ts";
import { close } from "../kernel/file.ts";
import { call, kernelError, tryCall } from "../kernel/syscall.ts";
import { formatPort, type PortBinding } from "../network/ports.ts";

const AF_INET = 2;
const EADDRINUSE = -98;
const EADDRNOTAVAIL = -99;
const CLOEXEC = 0o2000000;
const PROTOCOLS = { tcp: [1, 6], udp: [2, 17], sctp: [1, 132] } as const;

/** The name of the container that publishes a port of the host; undefined when none of ours does. */
export type Publisher = (port: PortBinding) => string | undefined;

/**
 * Binds each published port, before any rule exists and until the container ends: no other program can then answer on
 * it, and a port in use is found at once. A host port of 0, or a range, gets the first that is free.
 * @param publisher which container of ours has a port, if one has
 * @throws ContainerError EADDRINUSE
 */
export function bindPorts(
  wanted: readonly PortBinding[],
  publisher: Publisher,
): { binding: PortBinding; socket: number }[] {
  const bound: { binding: PortBinding; socket: number }[] = [];
  try {
    for (const binding of wanted) bound.push(bindPort(binding, publisher));
    return bound;
  } catch (error) {
    for (const { socket } of bound) close(socket);
    throw error;
  }
}

function bindPort(wanted: PortBinding, publisher: Publisher): { binding: PortBinding; socket: number } {
  const [type, protocol] = PROTOCOLS[wanted.protocol];
  const { lastHostPort = wanted.hostPort, ...rest } = wanted;
  for (let port = wanted.hostPort; port <= lastHostPort; port++) {
    const socket = tryCall("socket", AF_INET, type | CLOEXEC, protocol);
    if (socket < 0)
      throw new ContainerError({
        ...kernelError("socket", -socket),
        message: `cannot publish ${formatPort(wanted)}: this kernel has no ${wanted.protocol}`,
      });
    const address = socketAddress(wanted.hostAddress, port);
    // a connection that has just ended must not keep the port from us
    call("setsockopt", socket, 1, 2, new Uint8Array([1, 0, 0, 0]), 4);
    const result = tryCall("bind", socket, address, address.length);
    if (result >= 0 && wanted.protocol !== "udp") call("listen", socket, 1);
    if (result >= 0) return { binding: { ...rest, hostPort: portOf(socket) }, socket };
    close(socket);
    if (result === EADDRNOTAVAIL)
      throw new ContainerError({
        ...kernelError("bind", -result),
        message: `cannot publish ${formatPort(wanted)}: this host has no address ${wanted.hostAddress}`,
      });
    if (result !== EADDRINUSE) throw kernelError("bind", -result, formatPort(wanted));
  }
  const container = publisher(wanted);
  const [holder] = container === undefined ? portHolders(wanted.hostPort) : [`container ${container}`];
  throw new ContainerError({
    message: `cannot publish ${formatPort(wanted)}: the port is in use`,
    code: "EADDRINUSE",
    hint: `stop ${holder === undefined ? "the program that listens there (ss -lntup shows it)" : `${holder}, which listens there`}, or publish another port`,
  });
}

function socketAddress(address: string, port: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(AF_INET, 0);
  bytes.writeUInt16BE(port, 2);
  (address === "" ? "0.0.0.0" : address).split(".").forEach((part, i) => void bytes.writeUInt8(Number(part), 4 + i));
  return bytes;
}

function portOf(socket: number): number {
  const address = Buffer.alloc(16);
  call("getsockname", socket, address, new Uint8Array([16, 0, 0, 0]));
  return address.readUInt16BE(2);
}
