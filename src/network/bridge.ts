import { createSha256 } from "../crypto.ts";
import { ContainerError } from "../error.ts";
import {
  addressOf,
  allocate,
  formatAddress,
  formatMac,
  formatSubnet,
  hostOf,
  macOf,
  overlaps,
  parseAddress,
  parseSubnet,
  type Subnet,
  subnetOf,
} from "./address.ts";
import type { PortBinding } from "./ports.ts";

/** The bridge network's decisions and its state file. Pure: whoever holds the file's lock reads, decides, does, writes. */

export const BRIDGE_NAME = "caisson0";

/** Large enough for a host's containers, and apart from what Docker (172.17 up) and podman (10.88) take first. */
const CANDIDATES = [
  "172.30.0.0/16",
  "172.29.0.0/16",
  "172.28.0.0/16",
  "172.27.0.0/16",
  "172.26.0.0/16",
  "10.213.0.0/16",
  "10.214.0.0/16",
  "192.168.213.0/24",
  "192.168.214.0/24",
];

/** A network that the host already knows a way to, and how. */
export interface Taken {
  subnet: Subnet;
  /** index of the interface, where there is one */
  index?: number | undefined;
}

/**
 * What the host's routes and addresses take, from netlink's dumps, IPv4 only.
 * A default route takes nothing, nor does its split into two halves (VPNs do that): any subnet of ours is more specific.
 *
 * @param exceptIndex the bridge's own, if it is there
 */
export function takenBy(
  routes: readonly { destination?: Uint8Array | undefined; prefixLength: number; index?: number | undefined }[],
  addresses: readonly { address: Uint8Array; prefixLength: number; index: number }[],
  exceptIndex?: number,
): Taken[] {
  const entries = [
    ...routes.map(({ destination, prefixLength, index }) => ({ bytes: destination, prefixLength, index })),
    ...addresses.map(({ address, prefixLength, index }) => ({ bytes: address, prefixLength, index })),
  ];
  return entries.flatMap(({ bytes, prefixLength, index }) => {
    if (bytes?.length !== 4 || prefixLength < 2 || (index !== undefined && index === exceptIndex)) return [];
    return [{ subnet: subnetOf({ address: addressOf(bytes), prefixLength }), index }];
  });
}

/** @throws EADDRINUSE naming what is in the way */
export function checkSubnet(subnet: Subnet, taken: readonly Taken[]): void {
  const obstacle = taken.find((other) => overlaps(subnet, other.subnet));
  if (!obstacle) return;
  throw new ContainerError({
    message: `cannot use subnet ${formatSubnet(subnet)}: ${formatSubnet(obstacle.subnet)} is already routed`,
    code: "EADDRINUSE",
  });
}

/** The first candidate that nothing on the host overlaps with. @throws EADDRINUSE when there is none */
export function chooseSubnet(taken: readonly Taken[]): Subnet {
  const free = CANDIDATES.map(parseSubnet).find((subnet) => !taken.some((other) => overlaps(subnet, other.subnet)));
  if (free) return free;
  throw new ContainerError({
    message: `cannot find a subnet for ${BRIDGE_NAME}: the host has routes to all of ${CANDIDATES.join(", ")}`,
    code: "EADDRINUSE",
  });
}

/** A container's place on the bridge. Everything is text, as it stands in the state file. */
export interface BridgeEndpoint {
  /** of the veth pair's end on the host */
  hostName: string;
  address: string;
  mac: string;
  ports: PortBinding[];
}

export interface BridgeState {
  version: 1;
  /** /proc/sys/kernel/random/boot_id: bridge, rules and sysctls of another boot are gone */
  bootId: string;
  subnet: string;
  gateway: string;
  /** the address given last, after which the search for a free one begins */
  lastAddress: string;
  /** by container id */
  endpoints: Record<string, BridgeEndpoint>;
  /** Values before we changed them, by path below /proc/sys, to be put back with the last endpoint. */
  sysctls: Record<string, string>;
  /** Whether our chains are in the firewall; "begun": somebody was killed while he changed that. */
  chains?: boolean | "begun";
}

export function newBridge(subnet: Subnet, bootId: string): BridgeState {
  const gateway = formatAddress(hostOf(subnet, 1n));
  const state = { version: 1, bootId, gateway, lastAddress: gateway, endpoints: {}, sysctls: {} } as const;
  return { ...state, subnet: formatSubnet(subnet) };
}

/** 14 characters of the 15 that a link's name may have. */
export function hostLinkName(id: string): string {
  return `cv${createSha256().update(id).digest("hex").slice(0, 11)}`;
}

/**
 * The state with one more endpoint, and that endpoint; an id that is there already keeps its address.
 * @throws ENOSPC when the subnet is full
 */
export function withEndpoint(
  state: BridgeState,
  id: string,
  ports: readonly PortBinding[],
): { state: BridgeState; endpoint: BridgeEndpoint } {
  const present = Object.hasOwn(state.endpoints, id) ? state.endpoints[id] : undefined;
  const taken = new Set([state.gateway, ...Object.values(state.endpoints).map(({ address }) => address)]);
  const address = present
    ? parseAddress(present.address)
    : allocate(parseSubnet(state.subnet), taken, parseAddress(state.lastAddress));
  const endpoint: BridgeEndpoint = {
    hostName: hostLinkName(id),
    address: formatAddress(address),
    mac: formatMac(macOf(address)),
    ports: [...ports],
  };
  const lastAddress = present ? state.lastAddress : endpoint.address;
  return { state: { ...state, lastAddress, endpoints: { ...state.endpoints, [id]: endpoint } }, endpoint };
}

/** The state with one endpoint less; one that is not there is no error. */
export function withoutEndpoint(state: BridgeState, id: string): BridgeState {
  const { [id]: _, ...endpoints } = state.endpoints;
  return { ...state, endpoints };
}

export function isEmpty(state: BridgeState): boolean {
  return Object.keys(state.endpoints).length === 0;
}

/**
 * Reads the state file.
 * @throws ERR_STATE when it is not one, or a newer version's
 */
export function parseState(text: string): BridgeState {
  const invalid = (why: string, cause?: unknown) =>
    new ContainerError({ message: `cannot read bridge state: ${why}`, code: "ERR_STATE", cause });
  let state: BridgeState;
  try {
    // Written by formatState alone, into a directory of root's: the version is what can differ.
    state = JSON.parse(text) as BridgeState;
  } catch (cause) {
    throw invalid("it is not JSON", cause);
  }
  if (state?.version !== 1) throw invalid(`version ${JSON.stringify(state?.version)} is not known`);
  return state;
}

export function formatState(state: BridgeState): string {
  return `${JSON.stringify(state, undefined, 2)}\n`;
}
