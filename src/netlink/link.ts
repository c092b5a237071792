import {
  bareText,
  bytes,
  type Codec,
  concat,
  decodeAttributes,
  decodeStruct,
  encodeAttributes,
  encodeStruct,
  nested,
  sizeOf,
  text,
  u8,
  u32,
  type Values,
} from "./codec.ts";
import { encodeRequest, type Message } from "./message.ts";

/** Network interfaces: rtnetlink(7), linux/if_link.h, linux/rtnetlink.h. */

const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;

/** struct ifinfomsg */
const INFO = { family: 1, pad: 1, type: 2, index: 4, flags: 4, change: 4 } as const;

/** IFLA_*: what is read, and the part of what is written that is the same for every kind of link. */
const ATTRIBUTES = {
  mac: [1, bytes],
  mtu: [4, u32],
  netnsFd: [28, u32],
  peerIndex: [5, u32],
  master: [10, u32],
  group: [27, u32],
  extension: [29, u32],
  name: [3, text],
  info: [18, nested({ kind: [1, bareText] })],
} as const;

/** VETH_INFO_PEER: a whole link description of its own, struct first. */
const peer: Codec<Values<typeof ATTRIBUTES>> = {
  encode: (values) => concat(encodeStruct(INFO, {}), encodeAttributes(ATTRIBUTES, values)),
  decode: (payload) => decodeAttributes(ATTRIBUTES, payload.subarray(sizeOf(INFO))),
};

/** IFLA_INFO_* as written: what `data` and `port` mean depends on the kind, so they are never read with this table. */
const VETH = {
  ...ATTRIBUTES,
  info: [18, nested({ kind: [1, bareText], data: [2, nested({ peer: [1, peer] })] })],
} as const;
const BRIDGE_PORT = {
  ...ATTRIBUTES,
  info: [18, nested({ port: [5, nested({ hairpin: [4, u8] })] })],
} as const;

const IFF_UP = 0x1;
/** RTEXT_FILTER_SKIP_STATS: counters are most of a link's description, and nobody here reads them. */
const SKIP_STATISTICS = 8;

export interface Link {
  index: number;
  name: string;
  up: boolean;
  /** 6 bytes for Ethernet */
  mac?: Uint8Array | undefined;
  mtu?: number | undefined;
  /** "bridge", "veth", …; physical devices have none */
  kind?: string | undefined;
  /** index of the bridge it is a port of */
  master?: number | undefined;
  /** index of a veth's other end, in that end's namespace */
  peerIndex?: number | undefined;
}

/** Which link: by index (1 or more) or by name (15 bytes at most). */
export type LinkReference = { index: number } | { name: string };

function encodeLink(type: number, link: LinkReference, up?: boolean, attributes: Values<typeof ATTRIBUTES> = {}) {
  const index = "index" in link ? link.index : 0;
  const flags = up === undefined ? {} : { flags: up ? IFF_UP : 0, change: IFF_UP };
  const named = "name" in link ? { name: link.name, ...attributes } : attributes;
  return encodeRequest(type, "one", encodeStruct(INFO, { index, ...flags }), encodeAttributes(ATTRIBUTES, named));
}

/** It is down at first. A MAC that is given stays; one that is not follows the ports. */
export function createBridge(link: { name: string; mac?: Uint8Array; mtu?: number }): Uint8Array {
  return encodeRequest(
    RTM_NEWLINK,
    "create",
    encodeStruct(INFO, {}),
    encodeAttributes(ATTRIBUTES, { ...link, info: { kind: "bridge" } }),
  );
}

/**
 * A pair of connected links. This end is made up and a port of `master` if that is given, the peer is made, down,
 * in the namespace of descriptor `netnsFd` at once: moving it there later would cost RCU grace periods.
 */
export function createVeth(link: {
  name: string;
  master?: number;
  mtu?: number;
  mac?: Uint8Array;
  peer: { name: string; netnsFd: number; mac?: Uint8Array; mtu?: number };
}): Uint8Array {
  const { peer, ...own } = link;
  return encodeRequest(
    RTM_NEWLINK,
    "create",
    encodeStruct(INFO, { flags: IFF_UP, change: IFF_UP }),
    encodeAttributes(VETH, { ...own, info: { kind: "veth", data: { peer } } }),
  );
}

/** Makes a bridge send frames back out of the port they came from, when they are for that port. */
export function setHairpin(port: LinkReference, hairpin: boolean): Uint8Array {
  const index = "index" in port ? port.index : 0;
  const attributes = {
    ...("name" in port ? port : {}),
    info: { port: { hairpin: Number(hairpin) } },
  };
  return encodeRequest(RTM_NEWLINK, "one", encodeStruct(INFO, { index }), encodeAttributes(BRIDGE_PORT, attributes));
}

/** `master` 0 takes the link out of its bridge. */
export function setMaster(link: LinkReference, master: number): Uint8Array {
  return encodeLink(RTM_NEWLINK, link, undefined, { master });
}

export function setUp(link: LinkReference, up: boolean): Uint8Array {
  return encodeLink(RTM_NEWLINK, link, up);
}

export function renameLink(index: number, name: string): Uint8Array {
  return encodeLink(RTM_NEWLINK, { index }, undefined, { name });
}

/** Into the namespace of a descriptor, under another name there; a device that is up is taken down by that. */
export function moveLink(index: number, name: string, netnsFd: number): Uint8Array {
  return encodeLink(RTM_NEWLINK, { index }, undefined, { netnsFd, name });
}

/** One end of a veth pair takes the other with it. */
export function deleteLink(link: LinkReference): Uint8Array {
  return encodeLink(RTM_DELLINK, link);
}

/** A group is a number that links carry, 0 unless set; it exists to treat them together. */
export function setGroup(link: LinkReference, group: number): Uint8Array {
  return encodeLink(RTM_NEWLINK, link, undefined, { group });
}

/** Deletes every link of a group, waiting but once for the kernel to let go of them. ENODEV when there are none. */
export function deleteGroup(group: number): Uint8Array {
  return encodeRequest(RTM_DELLINK, "one", encodeStruct(INFO, {}), encodeAttributes(ATTRIBUTES, { group }));
}

export function readLink(link: LinkReference): Uint8Array {
  return encodeLink(RTM_GETLINK, link, undefined, { extension: SKIP_STATISTICS });
}

export function dumpLinks(): Uint8Array {
  const attributes = encodeAttributes(ATTRIBUTES, { extension: SKIP_STATISTICS });
  return encodeRequest(RTM_GETLINK, "dump", encodeStruct(INFO, {}), attributes);
}

/** The links among the messages of a reply. */
export function decodeLinks(messages: readonly Message[]): Link[] {
  return messages
    .filter(({ type }) => type === RTM_NEWLINK)
    .map(({ payload }) => {
      const { index, flags } = decodeStruct(INFO, payload);
      const {
        name = "",
        info,
        mac,
        mtu,
        master,
        peerIndex,
      } = decodeAttributes(ATTRIBUTES, payload.subarray(sizeOf(INFO)));
      return { index, name, up: (flags & IFF_UP) !== 0, mac, mtu, kind: info?.kind, master, peerIndex };
    });
}
