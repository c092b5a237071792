import { describe, expect, test } from "vitest";
import { decodeAddresses } from "../../src/netlink/address.ts";
import { encodeAttributes, text } from "../../src/netlink/codec.ts";
import { decodeLinks, dumpLinks } from "../../src/netlink/link.ts";
import { decodeReply } from "../../src/netlink/message.ts";
import { decodeRoutes } from "../../src/netlink/route.ts";
import { fc } from "../support/fuzz.ts";

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex.replace(/\s/g, ""), "hex"));

const ACKNOWLEDGED = "24000000 02000001 00000000 00000000 00000000 54000000 10000506 00000000 00000000";
/** NLM_F_CAPPED and NLM_F_ACK_TLVS, ENODEV, the request's header, then NLMSGERR_ATTR_MSG "gone". */
const REFUSED = `30000000 02000003 00000000 00000000 edffffff 20000000 11000500 00000000 00000000
  09000100 676f6e65 00000000`;
/** The same, but with the whole request of 20 bytes repeated. */
const REFUSED_IN_FULL = `34000000 02000002 00000000 00000000 edffffff 14000000 11000500 00000000 00000000 01020304
  09000100 676f6e65 00000000`;
const DONE = "14000000 03000200 00000000 00000000 00000000";

describe("the end of a reply", () => {
  test("an acknowledgement is errno 0", () => {
    expect(decodeReply(bytes(ACKNOWLEDGED))).toEqual({ messages: [], errno: 0, interrupted: false });
  });

  test.each([REFUSED, REFUSED_IN_FULL])("an error carries errno and the kernel's words", (reply) => {
    expect(decodeReply(bytes(reply))).toEqual({ messages: [], errno: 19, explanation: "gone", interrupted: false });
  });

  test("a dump ends with NLMSG_DONE, which may be an error too, and says when it was interrupted", () => {
    expect(decodeReply(bytes(DONE)).errno).toBe(0);
    expect(decodeReply(bytes(DONE.replace(/00000000$/, "f4ffffff"))).errno).toBe(12);
    expect(decodeReply(bytes(DONE.replace("03000200", "03001200"))).interrupted).toBe(true);
  });

  test("messages before it are kept in order", () => {
    const reply = bytes(
      `14000000 10000200 00000000 00000000 01020304 11000000 18000200 00000000 00000000 05000000 ${DONE}`,
    );
    expect(decodeReply(reply).messages).toEqual([
      { type: 16, payload: Uint8Array.of(1, 2, 3, 4) },
      { type: 24, payload: Uint8Array.of(5) },
    ]);
  });
});

describe("a reply that is not one is refused", () => {
  test.each([
    ["nothing", "", "no end"],
    ["half a header", "14000000 0300", "6 bytes where 16"],
    ["a length beyond the end", "15000000 03000200 00000000 00000000 00000000", "21 bytes of 20"],
    ["a length shorter than a header", "0f000000 03000200 00000000 00000000 00000000", "15 bytes of 20"],
    ["no end", "10000000 10000200 00000000 00000000", "no end"],
    ["an error without errno", "10000000 02000000 00000000 00000000", "0 bytes where 4"],
    ["lost data", "10000000 04000000 00000000 00000000", "lost data"],
  ])("%s", (_, hex, why) => {
    expect(() => decodeReply(bytes(hex))).toThrow(expect.objectContaining({ code: "ERR_NETLINK" }));
    expect(() => decodeReply(bytes(hex))).toThrow(why);
  });

  test("any bytes are either read or refused with ERR_NETLINK, never anything else", () => {
    const read = (reply: Uint8Array) => {
      try {
        const { messages } = decodeReply(reply);
        decodeLinks(messages);
        decodeAddresses(messages);
        decodeRoutes(messages);
      } catch (error) {
        expect(error).toMatchObject({ code: "ERR_NETLINK" });
      }
    };
    // Mutations of something sensible get further in than noise does.
    const sound = Buffer.concat([dumpLinks(), bytes(REFUSED), bytes(DONE)]);
    const mutated = fc
      .array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 6 })
      .map((changes) => changes.reduce((reply, [at, value]) => reply.fill(value, at, at + 1), Buffer.from(sound)));
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), read));
    fc.assert(fc.property(mutated, read), { numRuns: 2000 });
  });
});

test("an attribute too long for its length is refused, not cut", () => {
  expect(() => encodeAttributes({ name: [3, text] }, { name: "x".repeat(0x10000) })).toThrow("too long");
});
