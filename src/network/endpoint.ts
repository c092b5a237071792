import { constants } from "node:os";
import { ContainerError } from "../error.ts";
import * as netlinkAddress from "../netlink/address.ts";
import * as link from "../netlink/link.ts";
import { decodeReply, type Reply } from "../netlink/message.ts";
import * as route from "../netlink/route.ts";
import {
  type Address,
  broadcastOf,
  bytesOf,
  formatAddress,
  type InterfaceAddress,
  macOf,
  subnetOf,
} from "./address.ts";
import { type Taken, takenBy } from "./bridge.ts";

/**
 * The bridge network's effects on links, addresses and routes, over a netlink socket that the caller opened in the
 * right namespace. Each can be repeated: what is there already, or gone already, is no error.
 */

export interface NetlinkSocket {
  /** Sends one request, returns all bytes of its reply: up to and with the acknowledgement, error or NLMSG_DONE. */
  exchange(request: Uint8Array): Uint8Array;
  close(): void;
}

/** /proc/sys/net of the network namespace that the calling process is in. */
export interface Sysctls {
  /** Contents of the file below /proc/sys, undefined when there is none. */
  read(path: string): string | undefined;
  write(path: string, value: string): void;
}

const ERRNO = constants.errno;
/** A dump that was overtaken by changes is repeated; more often than this only on a host gone mad. */
const DUMP_ATTEMPTS = 16;
/** A link group that links are in only while being deleted; the number is one that nobody else is likely to use. */
const DOOMED = 0xca15_50de;

/** One exchange; the errnos in `accept` are as good as success. @throws ContainerError "cannot <what>" */
export function ask(socket: NetlinkSocket, what: string, request: Uint8Array, accept: readonly number[] = []): Reply {
  for (let attempt = 1; ; attempt++) {
    const reply = decodeReply(socket.exchange(request));
    const { errno, explanation } = reply;
    if (errno !== 0 && !accept.includes(errno)) {
      const code = Object.entries(ERRNO).find(([, number]) => number === errno)?.[0];
      const why = explanation === undefined ? "" : `: ${explanation}`;
      throw new ContainerError({ message: `cannot ${what}${why}`, code, errno, syscall: "rtnetlink" });
    }
    if (!reply.interrupted || attempt === DUMP_ATTEMPTS) return reply;
  }
}

/** undefined when there is no link of that name */
export function findLink(socket: NetlinkSocket, name: string): link.Link | undefined {
  const reply = ask(socket, `look up link ${name}`, link.readLink({ name }), [ERRNO.ENODEV]);
  return link.decodeLinks(reply.messages)[0];
}

/** @throws EADDRINUSE when there is a bridge of that name that something is connected to */
export function checkUnused(socket: NetlinkSocket, bridge: string): void {
  const links = link.decodeLinks(ask(socket, "list links", link.dumpLinks()).messages);
  const index = links.find(({ name }) => name === bridge)?.index;
  const port = index === undefined ? undefined : links.find(({ master }) => master === index);
  if (port === undefined) return;
  throw new ContainerError({
    message: `cannot use bridge ${bridge}: ${port.name} is connected to it, which is none of our containers`,
    code: "EADDRINUSE",
    hint: "it may belong to containers of another data directory: remove those first, or use --network host or none",
  });
}

/** What the host's routes and addresses take, those of `exceptLink` left out. */
export function takenSubnets(socket: NetlinkSocket, exceptLink: string): Taken[] {
  const routes = route.decodeRoutes(ask(socket, "list routes", route.dumpRoutes()).messages);
  const addresses = ask(socket, "list addresses", netlinkAddress.dumpAddresses()).messages;
  const except = findLink(socket, exceptLink)?.index;
  return takenBy(routes, netlinkAddress.decodeAddresses(addresses), except);
}

/**
 * Makes the bridge with its address and turns forwarding on.
 *
 * @returns what `removeBridge` must put back: empty when forwarding was on before
 */
export function createBridge(
  socket: NetlinkSocket,
  sysctls: Sysctls,
  bridge: { name: string; gateway: InterfaceAddress; mtu?: number },
): Record<string, string> {
  const { name, gateway, mtu } = bridge;
  // A bridge without a MAC of its own takes the lowest of its ports', which changes under established connections.
  const mac = macOf(gateway.address);
  ask(socket, `create bridge ${name}`, link.createBridge({ name, mac, ...(mtu === undefined ? {} : { mtu }) }), [
    ERRNO.EEXIST,
  ]);
  const found = findLink(socket, name);
  if (found?.kind !== "bridge") {
    throw new ContainerError({ message: `cannot use ${name}: it is not a bridge`, code: "EEXIST" });
  }
  // Before it is up: a container could send router advertisements and become the host's IPv6 gateway (CVE-2020-13401).
  const ipv6 = `net/ipv6/conf/${name}/disable_ipv6`;
  if (sysctls.read(ipv6) !== undefined) sysctls.write(ipv6, "1");
  // Lets 127.0.0.1 reach a published port; the sysctl is the bridge's own and goes with it.
  sysctls.write(`net/ipv4/conf/${name}/route_localnet`, "1");
  assign(socket, found.index, name, gateway);
  ask(socket, `bring up ${name}`, link.setUp({ index: found.index }, true));
  const changed = sysctlsBefore(sysctls);
  for (const path of Object.keys(changed)) sysctls.write(path, "1");
  return changed;
}

const FORWARDING = "net/ipv4/ip_forward";

/** The host's own sysctls that createBridge would change, as they are now. */
export function sysctlsBefore(sysctls: Sysctls): Record<string, string> {
  const forwarding = sysctls.read(FORWARDING)?.trim();
  return forwarding === "0" ? { [FORWARDING]: forwarding } : {};
}

function assign(socket: NetlinkSocket, index: number, name: string, own: InterfaceAddress): void {
  const broadcast = own.address.family === 4 ? bytesOf(broadcastOf(subnetOf(own))) : undefined;
  const { prefixLength } = own;
  const request = netlinkAddress.addAddress({ index, address: bytesOf(own.address), prefixLength, broadcast });
  ask(socket, `give ${name} the address ${formatAddress(own.address)}`, request, [ERRNO.EEXIST]);
}

/**
 * Takes the bridge away, with the last endpoints at once: one after the other takes half as long again.
 *
 * @param hostNames of the endpoints that are still there, or may be
 * @param changed what `createBridge` returned
 */
export function removeBridge(
  socket: NetlinkSocket,
  sysctls: Sysctls,
  bridge: { name: string; hostNames: readonly string[]; changed: Readonly<Record<string, string>> },
): void {
  const { name, hostNames, changed } = bridge;
  for (const member of [name, ...hostNames]) {
    ask(socket, `mark link ${member} for removal`, link.setGroup({ name: member }, DOOMED), [ERRNO.ENODEV]);
  }
  ask(socket, `delete bridge ${name}`, link.deleteGroup(DOOMED), [ERRNO.ENODEV]);
  for (const [path, value] of Object.entries(changed)) sysctls.write(path, value);
}

/**
 * Makes the veth pair: the host's end up and on the bridge, the container's in its namespace at once.
 * A pair left from before is replaced, since its other end is in a namespace of the past.
 *
 * @param socket in the host's namespace; `netnsFd` is a descriptor of the process that the socket belongs to
 */
export function createEndpoint(
  socket: NetlinkSocket,
  endpoint: {
    bridge: string;
    hostName: string;
    containerName: string;
    netnsFd: number;
    mac: Uint8Array;
    mtu?: number;
  },
): void {
  const { bridge, hostName, containerName, netnsFd, mac } = endpoint;
  const mtu = endpoint.mtu === undefined ? {} : { mtu: endpoint.mtu };
  const master = findLink(socket, bridge)?.index;
  if (master === undefined) {
    throw new ContainerError({ message: `cannot connect ${hostName}: there is no bridge ${bridge}`, code: "ENODEV" });
  }
  const request = link.createVeth({
    name: hostName,
    master,
    ...mtu,
    peer: { name: containerName, netnsFd, mac, ...mtu },
  });
  const what = `create veth pair ${hostName} and ${containerName}`;
  const { errno } = ask(socket, what, request, [ERRNO.EEXIST]);
  if (errno === ERRNO.EEXIST) {
    removeEndpoint(socket, hostName);
    ask(socket, what, request);
  }
  // With bridge-nf-call-iptables, a packet that a container sends to its own published port is translated while still
  // on the bridge, and has to leave by the port it came from.
  ask(socket, `set hairpin mode on ${hostName}`, link.setHairpin({ name: hostName }, true));
}

/** @param socket in the container's network namespace */
export function configureInside(
  socket: NetlinkSocket,
  inside: { name: string; address: InterfaceAddress; gateway: Address },
): void {
  const { name, address, gateway } = inside;
  bringUpLoopback(socket);
  const found = findLink(socket, name);
  if (!found) throw new ContainerError({ message: `cannot configure ${name}: there is no such link`, code: "ENODEV" });
  assign(socket, found.index, name, address);
  ask(socket, `bring up ${name}`, link.setUp({ index: found.index }, true));
  const request = route.addDefaultRoute(bytesOf(gateway), found.index);
  ask(socket, `add default route via ${formatAddress(gateway)}`, request, [ERRNO.EEXIST]);
}

/** For a namespace of its own without a network too. @param socket in the container's network namespace */
export function bringUpLoopback(socket: NetlinkSocket): void {
  ask(socket, "bring up lo", link.setUp({ name: "lo" }, true));
}

/** The container's end goes with it. @param socket in the host's namespace */
export function removeEndpoint(socket: NetlinkSocket, hostName: string): void {
  ask(socket, `delete link ${hostName}`, link.deleteLink({ name: hostName }), [ERRNO.ENODEV]);
}
