import { ContainerError } from "../error.ts";

/** IP addresses and subnets as values: text ↔ number ↔ bytes, and the arithmetic on them. Pure. */

export interface Address {
  family: 4 | 6;
  /** the address as one number, most significant byte first */
  value: bigint;
}

/** A network such as 172.30.0.0/16: no host bits are set. */
export interface Subnet {
  network: Address;
  prefixLength: number;
}

/** An address and how much of it is the network, such as 172.30.0.1/16. */
export interface InterfaceAddress {
  address: Address;
  prefixLength: number;
}

const BITS = { 4: 32, 6: 128 } as const;

function invalid(what: string, text: string): ContainerError {
  return new ContainerError({ message: `cannot read ${what} ${JSON.stringify(text)}`, code: "ERR_ADDRESS" });
}

/**
 * Reads an address in its usual notation (RFC 4291 for IPv6). No leading zeros in IPv4, which some read as octal.
 * @throws ERR_ADDRESS
 */
export function parseAddress(text: string): Address {
  const bytes = text.includes(":") ? bytesOf6(text) : bytesOf4(text);
  if (!bytes) throw invalid("IP address", text);
  return addressOf(bytes);
}

function bytesOf4(text: string): Uint8Array | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)) return;
  return Uint8Array.from(parts, Number);
}

function bytesOf6(text: string): Uint8Array | undefined {
  const halves = text.split("::").map((half) => (half === "" ? [] : half.split(":")));
  const [head = [], tail] = halves;
  if (halves.length > 2) return;
  // The last 32 bits may be written as an IPv4 address.
  const last = (tail ?? head).pop();
  if (last?.includes(".")) {
    const bytes = bytesOf4(last);
    if (!bytes) return;
    const view = new DataView(bytes.buffer);
    (tail ?? head).push(view.getUint16(0).toString(16), view.getUint16(2).toString(16));
  } else if (last !== undefined) (tail ?? head).push(last);
  const given = head.length + (tail?.length ?? 0);
  if (tail === undefined ? given !== 8 : given > 7) return;
  const groups = [...head, ...Array<string>(8 - given).fill("0"), ...(tail ?? [])];
  if (!groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return;
  const view = new DataView(new ArrayBuffer(16));
  for (const [index, group] of groups.entries()) view.setUint16(index * 2, Number.parseInt(group, 16));
  return new Uint8Array(view.buffer);
}

/** Lower case, the longest run of zero groups shortened (RFC 5952). */
export function formatAddress(address: Address): string {
  const bytes = bytesOf(address);
  if (address.family === 4) return bytes.join(".");
  const view = new DataView(bytes.buffer);
  const groups = Array.from({ length: 8 }, (_, index) => view.getUint16(index * 2).toString(16)).join(":");
  const [longest] = (groups.match(/(?<![^:])0(:0)+(?![^:])/g) ?? []).sort((a, b) => b.length - a.length);
  if (longest === undefined) return groups;
  const start = groups.search(new RegExp(`(?<![^:])${longest}(?![^:])`));
  return `${groups.slice(0, start).replace(/:$/, "")}::${groups.slice(start + longest.length).replace(/^:/, "")}`;
}

/** In network byte order: 4 bytes, or 16. */
export function bytesOf({ family, value }: Address): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: BITS[family] / 8 }, (_, index) => {
    return Number((value >> BigInt(BITS[family] - 8 * (index + 1))) & 0xffn);
  });
}

/** @throws ERR_ADDRESS unless there are 4 or 16 bytes */
export function addressOf(bytes: Uint8Array): Address {
  if (bytes.length !== 4 && bytes.length !== 16) throw invalid("IP address", bytes.join(" "));
  const value = bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  return { family: bytes.length === 4 ? 4 : 6, value };
}

/** @throws ERR_ADDRESS */
export function parseInterfaceAddress(text: string): InterfaceAddress {
  const [, host, length] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text) ?? [];
  if (host === undefined) throw invalid("address with prefix length", text);
  const address = parseAddress(host);
  const prefixLength = Number(length);
  if (prefixLength > BITS[address.family]) throw invalid("address with prefix length", text);
  return { address, prefixLength };
}

/** @throws ERR_ADDRESS, also when host bits are set */
export function parseSubnet(text: string): Subnet {
  const parsed = parseInterfaceAddress(text);
  const subnet = subnetOf(parsed);
  if (subnet.network.value !== parsed.address.value) throw invalid("subnet", text);
  return subnet;
}

export function formatSubnet({ network, prefixLength }: Subnet): string {
  return `${formatAddress(network)}/${prefixLength}`;
}

function hostBits({ family }: Address, prefixLength: number): bigint {
  return (1n << BigInt(BITS[family] - prefixLength)) - 1n;
}

/** The network that an address is in. */
export function subnetOf({ address, prefixLength }: InterfaceAddress): Subnet {
  const value = address.value & ~hostBits(address, prefixLength);
  return { network: { family: address.family, value }, prefixLength };
}

export function contains({ network, prefixLength }: Subnet, address: Address): boolean {
  return address.family === network.family && (address.value & ~hostBits(network, prefixLength)) === network.value;
}

export function overlaps(a: Subnet, b: Subnet): boolean {
  return contains(a, b.network) || contains(b, a.network);
}

/** The highest address of an IPv4 network. */
export function broadcastOf({ network, prefixLength }: Subnet): Address {
  return { family: network.family, value: network.value | hostBits(network, prefixLength) };
}

/** The `index`th address of a network, from 1. */
export function hostOf({ network }: Subnet, index: bigint): Address {
  return { family: network.family, value: network.value + index };
}

/**
 * The address after `last`, around and around, that is not taken: an address that was just given back is not reused at
 * once, since others may still hold its MAC in their neighbour tables. Never the network's own address, nor broadcast.
 *
 * @param taken in the notation of `formatAddress`, the gateway included
 * @throws ENOSPC when the subnet is full
 */
export function allocate(subnet: Subnet, taken: ReadonlySet<string>, last?: Address): Address {
  const count = broadcastOf(subnet).value - subnet.network.value - 1n;
  const start = last && contains(subnet, last) ? last.value - subnet.network.value : 0n;
  for (let step = 0n; step < count && step <= BigInt(taken.size); step++) {
    const candidate = hostOf(subnet, ((start + step) % count) + 1n);
    if (!taken.has(formatAddress(candidate))) return candidate;
  }
  throw new ContainerError({ message: `cannot find a free address in ${formatSubnet(subnet)}`, code: "ENOSPC" });
}

/** As Docker does: locally administered, and unique on the bridge because the IPv4 address is. */
export function macOf(address: Address): Uint8Array {
  return Uint8Array.of(0x02, 0x42, ...bytesOf(address).slice(-4));
}

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
