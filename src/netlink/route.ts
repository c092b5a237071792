import { familyOf } from "./address.ts";
import { bytes, decodeAttributes, decodeStruct, encodeAttributes, encodeStruct, sizeOf, u32 } from "./codec.ts";
import { encodeRequest, type Message } from "./message.ts";

/** Routes: rtnetlink(7), linux/rtnetlink.h. */

const RTM_NEWROUTE = 24;
const RTM_GETROUTE = 26;

/** struct rtmsg */
const INFO = {
  family: 1,
  prefixLength: 1,
  sourceLength: 1,
  tos: 1,
  table: 1,
  protocol: 1,
  scope: 1,
  type: 1,
  flags: 4,
} as const;
/** RTA_* */
const ATTRIBUTES = { destination: [1, bytes], gateway: [5, bytes], index: [4, u32], table: [15, u32] } as const;

const RT_TABLE_MAIN = 254;
const RTPROT_BOOT = 3;
const RTN_UNICAST = 1;
const AF_INET = 2;

export interface Route {
  /** in network byte order; absent for a default route */
  destination?: Uint8Array | undefined;
  /** 0 for a default route */
  prefixLength: number;
  gateway?: Uint8Array | undefined;
  /** of the interface it leads out of; absent for blackhole and multipath routes */
  index?: number | undefined;
  /** 254 is the main one, 255 holds the host's own addresses */
  table: number;
}

/** The interface that leads to the gateway (4 or 16 bytes) must be up; without `index` the kernel finds it. */
export function addDefaultRoute(gateway: Uint8Array, index?: number): Uint8Array {
  const info = { family: familyOf(gateway), table: RT_TABLE_MAIN, protocol: RTPROT_BOOT, type: RTN_UNICAST };
  return encodeRequest(
    RTM_NEWROUTE,
    "create",
    encodeStruct(INFO, info),
    encodeAttributes(ATTRIBUTES, { gateway, index }),
  );
}

/** All tables; IPv4 unless another family (AF_INET6 is 10) is given. */
export function dumpRoutes(family = AF_INET): Uint8Array {
  return encodeRequest(RTM_GETROUTE, "dump", encodeStruct(INFO, { family }));
}

/** The routes among the messages of a reply. */
export function decodeRoutes(messages: readonly Message[]): Route[] {
  return messages
    .filter(({ type }) => type === RTM_NEWROUTE)
    .map(({ payload }) => {
      const info = decodeStruct(INFO, payload);
      // The table's number outgrew its byte in the struct; the attribute has all of it.
      const { table = info.table, ...route } = decodeAttributes(ATTRIBUTES, payload.subarray(sizeOf(INFO)));
      return { ...route, prefixLength: info.prefixLength, table };
    });
}
