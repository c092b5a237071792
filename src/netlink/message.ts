import { align, concat, decodeAttributes, decodeStruct, encodeStruct, malformed, sizeOf, text, u32 } from "./codec.ts";

/** linux/netlink.h: length includes this header; port is 0 for the kernel. */
const HEADER = { length: 4, type: 2, flags: 2, sequence: 4, port: 4 } as const;
const HEADER_SIZE = sizeOf(HEADER);

const NLMSG_NOOP = 1;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLMSG_OVERRUN = 4;

const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLM_F_DUMP_INTR = 0x10;
const NLM_F_DUMP = 0x300;
const NLM_F_EXCL = 0x200;
const NLM_F_CREATE = 0x400;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;

/** Which kind of request it is. All but a dump are answered by an acknowledgement, after the object if one was asked for. */
const REQUEST = {
  /** About one object: read, change or delete it. */
  one: NLM_F_REQUEST | NLM_F_ACK,
  /** EEXIST when it is there already. */
  create: NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
  /** Every object of the kind, up to NLMSG_DONE. */
  dump: NLM_F_REQUEST | NLM_F_DUMP,
} as const;

/** A whole request. The sequence number stays 0: a socket of ours has one request under way at a time. */
export function encodeRequest(type: number, kind: keyof typeof REQUEST, ...parts: Uint8Array[]): Uint8Array {
  const payload = concat(...parts);
  return concat(encodeStruct(HEADER, { length: HEADER_SIZE + payload.length, type, flags: REQUEST[kind] }), payload);
}

export interface Message {
  type: number;
  payload: Uint8Array;
}

/** Everything the kernel answered to one request. */
export interface Reply {
  messages: Message[];
  /** 0, or what went wrong, positive. */
  errno: number;
  /** The kernel's own words about it (extended acknowledgement), where it has any. */
  explanation?: string | undefined;
  /** The table changed during the dump (NLM_F_DUMP_INTR), so entries may be missing: ask again. */
  interrupted: boolean;
}

const ERROR_ATTRIBUTES = { explanation: [1, text], offset: [2, u32] } as const;

/**
 * Reads the bytes that came back for one request (netlink(7), linux/netlink.h).
 *
 * @param reply one or more messages, back to back, ending with an acknowledgement, an error or NLMSG_DONE
 * @throws ERR_NETLINK when a length does not fit or the end is missing
 */
export function decodeReply(reply: Uint8Array): Reply {
  const messages: Message[] = [];
  let interrupted = false;
  let rest = reply;
  while (rest.length > 0) {
    const { length, type, flags } = decodeStruct(HEADER, rest);
    if (length < HEADER_SIZE || length > rest.length) {
      throw malformed(`it says ${length} bytes of ${rest.length}`);
    }
    const payload = rest.subarray(HEADER_SIZE, length);
    interrupted ||= (flags & NLM_F_DUMP_INTR) !== 0;
    if (type === NLMSG_ERROR || type === NLMSG_DONE) {
      return { messages, interrupted, ...decodeEnd(type, flags, payload) };
    }
    if (type === NLMSG_OVERRUN) throw malformed("the kernel lost data");
    if (type !== NLMSG_NOOP) messages.push({ type, payload });
    rest = rest.subarray(align(length));
  }
  throw malformed("no end");
}

/** Both ends start with an errno, negative; an error then repeats the request, in full unless it says capped. */
function decodeEnd(type: number, flags: number, payload: Uint8Array): Pick<Reply, "errno" | "explanation"> {
  const errno = payload.length === 0 && type === NLMSG_DONE ? 0 : 0 - (u32.decode(payload) | 0);
  if (errno < 0) throw malformed(`errno ${errno}`);
  if (errno === 0 || (flags & NLM_F_ACK_TLVS) === 0) return { errno };
  let start = 4;
  if (type === NLMSG_ERROR) {
    const request = decodeStruct(HEADER, payload.subarray(4));
    start += flags & NLM_F_CAPPED ? HEADER_SIZE : align(request.length);
  }
  return { errno, explanation: decodeAttributes(ERROR_ATTRIBUTES, payload.subarray(start)).explanation };
}

/** What a netlink socket must be told with setsockopt (level SOL_NETLINK, value 1) to answer as this code expects. */
export const SOCKET_OPTIONS = {
  level: 270,
  /** NETLINK_CAP_ACK: errors do not repeat the request's payload. */
  cappedAcknowledgements: 10,
  /** NETLINK_EXT_ACK: errors carry an explanation. */
  extendedAcknowledgements: 11,
} as const;
