import { ContainerError } from "../error.ts";
import { addon } from "./addon.ts";
import { call, kernelError, tryCall } from "./syscall.ts";

const SOL_SOCKET = 1;
const SO_SNDTIMEO = 21;
const EINTR = 4;
const EAGAIN = 11;
/** How long a listener that is there may take. */
const STREAM_PATIENCE_S = 10;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_SEQPACKET = 5;
const SOCK_CLOEXEC = 0o2000000;

/** Two connected SOCK_SEQPACKET sockets. */
export function socketPair(): [number, number] {
  const pair = new Int32Array(2);
  call("socketpair", AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, new Uint8Array(pair.buffer));
  return [pair[0] ?? -1, pair[1] ?? -1];
}

function unixAddress(path: string): Uint8Array {
  const bytes = Buffer.from(path);
  if (bytes.length > 107)
    throw new ContainerError({ message: `socket path is longer than 107 bytes: ${path}`, code: "ENAMETOOLONG", path });
  const address = Buffer.alloc(2 + bytes.length + 1);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 2);
  // unix(7): a name that is in no file system begins with NUL, and ends where the address does
  if (!path.startsWith("@")) return address;
  address[2] = 0;
  return address.subarray(0, -1);
}

/** A listening SOCK_SEQPACKET socket called name in the directory; sun_path is 108 bytes, hence the descriptor. */
export function listenIn(directory: number, name: string): number {
  const socket = call("socket", AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const address = unixAddress(`/proc/self/fd/${directory}/${name}`);
  call("bind", socket, address, address.length);
  call("listen", socket, 16);
  return socket;
}

/** A datagram socket called name in the directory, to which everybody may write. @throws ContainerError */
export function bindDatagramIn(directory: number, name: string): number {
  const socket = call("socket", AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  tryCall("unlinkat", directory, name, 0);
  const address = unixAddress(`/proc/self/fd/${directory}/${name}`);
  call("bind", socket, address, address.length);
  call("fchmodat", directory, name, 0o777);
  return socket;
}

/** Connects to a datagram socket; "@" begins an abstract name. @returns the socket or -errno */
export function connectDatagram(path: string): number {
  return connect(path, SOCK_DGRAM);
}

/** Connects to a SOCK_SEQPACKET listener in a directory. @returns the socket or -errno */
export function connectIn(directory: number, name: string): number {
  return connect(`/proc/self/fd/${directory}/${name}`, SOCK_SEQPACKET);
}

/**
 * Connects to a stream socket, such as --console-socket. Whoever listens there has ten seconds to take a connection, and
 * as long for what is sent, also by whom the socket is given to. @throws ContainerError
 */
export function connectStream(path: string): number {
  const socket = connect(path, SOCK_STREAM, STREAM_PATIENCE_S);
  if (socket === -EAGAIN)
    throw new ContainerError({
      message: `cannot connect to ${path}: who listens there has taken no connection within ${STREAM_PATIENCE_S} s`,
      code: "ETIMEDOUT",
      path,
    });
  if (socket < 0) throw kernelError("connect", -socket, path);
  return socket;
}

function connect(path: string, type: number, patienceS = 0): number {
  const socket = call("socket", AF_UNIX, type | SOCK_CLOEXEC, 0);
  const address = unixAddress(path);
  if (patienceS > 0) {
    const time = new Uint8Array(new BigInt64Array([BigInt(patienceS), 0n]).buffer);
    call("setsockopt", socket, SOL_SOCKET, SO_SNDTIMEO, time, time.length);
  }
  let result: number;
  // with a limit to the wait, a signal ends it: signal(7)
  do result = tryCall("connect", socket, address, address.length);
  while (result === -EINTR);
  if (result >= 0) return socket;
  call("close", socket);
  return result;
}

/** Sends one packet, with descriptors. @returns false when the other end is gone */
export function send(socket: number, bytes: Uint8Array, descriptors: number[] = []): boolean {
  const result = addon().send(socket, bytes, descriptors);
  if (result === -32 || result === -104) return false; // EPIPE, ECONNRESET
  if (result < 0) throw kernelError("sendmsg", -result);
  return true;
}

export interface Packet {
  bytes: Uint8Array;
  descriptors: number[];
}

/** Receives one packet of at most maxBytes. @returns undefined at the end of the conversation */
export function receive(socket: number, maxBytes: number, flags = 0): Packet | undefined {
  const buffer = Buffer.alloc(maxBytes);
  let [length, ...descriptors] = addon().receive(socket, buffer, flags);
  // said once when the other end closed with something unread; what it had sent before is still there
  if (length === -104) [length, ...descriptors] = addon().receive(socket, buffer, flags);
  if (length < 0) throw kernelError("recvmsg", -length);
  return length === 0 && descriptors.length === 0 ? undefined : { bytes: buffer.subarray(0, length), descriptors };
}

/** A socket that lives in another network namespace. */
export function socketIn(netns: number, domain: number, type: number, protocol: number): number {
  const socket = addon().socketIn(netns, domain, type, protocol);
  if (socket < 0) throw kernelError("socket", -socket);
  return socket;
}
