import { bytes, decodeAttributes, decodeStruct, encodeAttributes, encodeStruct, sizeOf } from "./codec.ts";
import { encodeRequest, type Message } from "./message.ts";

/** Addresses of network interfaces: rtnetlink(7), linux/if_addr.h. */

const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;

/** struct ifaddrmsg */
const INFO = { family: 1, prefixLength: 1, flags: 1, scope: 1, index: 4 } as const;
/** IFA_*: `local` is the interface's own; `address` differs from it only on point-to-point links. */
const ATTRIBUTES = { local: [2, bytes], address: [1, bytes], broadcast: [4, bytes] } as const;

const IFA_F_NODAD = 0x02;
const IFA_F_PERMANENT = 0x80;
const RT_SCOPE_UNIVERSE = 0;

export interface InterfaceAddress {
  /** of the interface */
  index: number;
  /** in network byte order: 4 bytes for IPv4, 16 for IPv6 */
  address: Uint8Array;
  prefixLength: number;
  /** IPv4 only */
  broadcast?: Uint8Array | undefined;
}

/** AF_INET or AF_INET6, which the length of an address tells. */
export function familyOf(address: Uint8Array): number {
  return address.length === 4 ? 2 : 10;
}

function encodeAddress(
  type: number,
  kind: "create" | "one",
  { index, prefixLength, address, broadcast }: InterfaceAddress,
) {
  const family = familyOf(address);
  // Nobody else can have the address on a bridge of ours, so do not wait a second to find that out (IPv6 only).
  const flags = family === 10 ? IFA_F_NODAD : 0;
  return encodeRequest(
    type,
    kind,
    encodeStruct(INFO, { family, prefixLength, flags, index }),
    encodeAttributes(ATTRIBUTES, { address, local: address, broadcast }),
  );
}

export function addAddress(address: InterfaceAddress): Uint8Array {
  return encodeAddress(RTM_NEWADDR, "create", address);
}

export function deleteAddress(address: InterfaceAddress): Uint8Array {
  return encodeAddress(RTM_DELADDR, "one", address);
}

/** Of all interfaces and both families. */
export function dumpAddresses(): Uint8Array {
  return encodeRequest(RTM_GETADDR, "dump", encodeStruct(INFO, {}));
}

/** The IPv4 and IPv6 addresses among the messages of a reply. */
export function decodeAddresses(messages: readonly Message[]): InterfaceAddress[] {
  return messages.flatMap(({ type, payload }) => {
    if (type !== RTM_NEWADDR) return [];
    const { index, prefixLength } = decodeStruct(INFO, payload);
    const { address, local = address, broadcast } = decodeAttributes(ATTRIBUTES, payload.subarray(sizeOf(INFO)));
    return local?.length === 4 || local?.length === 16 ? [{ index, address: local, prefixLength, broadcast }] : [];
  });
}

/** Those of them that somebody gave the interface for good, to be reached from anywhere. */
export function decodePermanentAddresses(messages: readonly Message[]): InterfaceAddress[] {
  return decodeAddresses(
    messages.filter(({ type, payload }) => {
      if (type !== RTM_NEWADDR) return false;
      const { flags, scope } = decodeStruct(INFO, payload);
      return (flags & IFA_F_PERMANENT) !== 0 && scope === RT_SCOPE_UNIVERSE;
    }),
  );
}
