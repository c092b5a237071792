import { expect, test } from "vitest";
import {
  decodeReports,
  epochOf,
  type Report,
  TRACE_CAPACITY,
  traceBytes,
  traceHeader,
  usedBytes,
} from "../../src/trace/report.ts";
import { fc } from "../support/fuzz.ts";

const RECORD_BYTES = 80;

const word = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const record = fc.record({
  step: fc.nat(0xffff),
  kind: fc.constantFrom({ side: "host" as const }, { side: "init" as const }, { side: "host", undo: true } as const),
  nr: fc.nat(0xffffffff),
  args: fc.tuple(word, word, word, word, word, word),
  result: fc.option(fc.maxSafeInteger(), { nil: undefined }),
  startedNs: word,
  endedNs: word.map((ns) => (ns === 0n ? 1n : ns)),
});
const report: fc.Arbitrary<Report> = record.map(({ kind, ...more }) => ({ ...kind, ...more }));

/** As native/plan/plan.h lays it out. */
function write(reports: readonly Report[], count = reports.length): Uint8Array {
  const bytes = Buffer.alloc((reports.length + 1) * RECORD_BYTES);
  bytes.set(traceHeader(reports.length));
  bytes.writeBigUInt64LE(BigInt(count), 16);
  reports.forEach(({ step, side, undo, nr, args, result, startedNs, endedNs }, at) => {
    const record = bytes.subarray((at + 1) * RECORD_BYTES);
    record.writeBigUInt64LE(startedNs, 0);
    record.writeBigUInt64LE(result === undefined ? 0n : endedNs, 8);
    record.writeBigInt64LE(BigInt(result ?? 0), 16);
    args.forEach((arg, i) => {
      record.writeBigUInt64LE(arg, 24 + i * 8);
    });
    record.writeUInt16LE(step, 72);
    record.writeUInt16LE(undo === true ? 3 : side === "host" ? 1 : 2, 74);
    record.writeUInt32LE(nr, 76);
  });
  return bytes;
}

test("reports come back as they were written", () => {
  fc.assert(
    fc.property(fc.array(report), (reports) => {
      const unended = reports.map((each) => (each.result === undefined ? { ...each, endedNs: 0n } : each));
      expect(decodeReports(write(reports))).toEqual(unended);
    }),
  );
});

test("a trace that says it has more reports than it holds gives those it holds", () => {
  fc.assert(
    fc.property(fc.array(report), fc.nat(2 ** 31), (reports, lost) => {
      expect(decodeReports(write(reports, reports.length + lost))).toHaveLength(reports.length);
    }),
  );
});

test("any bytes at all, also behind a valid header and at any offset, are decoded without an error", () => {
  const bytes = fc.uint8Array({ maxLength: 500 });
  fc.assert(
    fc.property(bytes, fc.boolean(), fc.nat(16), (body, headed, offset) => {
      const trace = Buffer.concat([Buffer.alloc(offset), ...(headed ? [traceHeader(3).subarray(0, 16)] : []), body]);
      const reports = decodeReports(trace.subarray(offset));
      expect(reports.length).toBeLessThanOrEqual(trace.length / RECORD_BYTES);
    }),
    { numRuns: 2000 },
  );
});

test("a fresh trace has no reports", () => {
  const bytes = Buffer.alloc(traceBytes(TRACE_CAPACITY));
  bytes.set(traceHeader(TRACE_CAPACITY));
  expect(decodeReports(bytes)).toEqual([]);
});

/** The pieces of a string behind its report: native/plan/plan.h, struct report_text. */
function pieces(argument: number, bytes: Buffer, kept = bytes.length): Buffer[] {
  return Array.from({ length: Math.max(1, Math.ceil(kept / 72)) }, (_, i) => {
    const record = Buffer.alloc(RECORD_BYTES);
    bytes.copy(record, 0, i * 72, Math.min(kept, (i + 1) * 72));
    record.writeUInt16LE(argument, 72);
    record.writeUInt16LE(4, 74);
    record.writeUInt32LE(bytes.length - i * 72, 76);
    return record;
  });
}

test("the strings behind a report are its arguments', whole or cut", () => {
  const long = `/${"ä".repeat(80)}`;
  const [sample] = fc.sample(report, { numRuns: 1, seed: 1 });
  if (sample === undefined) throw new Error("no sample");
  const texts = [
    ...pieces(1, Buffer.from(long)),
    ...pieces(3, Buffer.alloc(0)),
    ...pieces(4, Buffer.alloc(500, "x"), 288),
  ];
  const bytes = Buffer.concat([write([sample]), ...texts, write([sample]).subarray(RECORD_BYTES)]);
  bytes.writeBigUInt64LE(BigInt(texts.length + 2), 16);
  const [first, second, ...more] = decodeReports(bytes);
  expect(first?.texts).toEqual([undefined, long, undefined, "", `${"x".repeat(288)}…`]);
  expect(second).not.toHaveProperty("texts");
  expect(more).toEqual([]);
});

test("a record that nobody has written yet is no report", () => {
  const [sample] = fc.sample(report, { numRuns: 1, seed: 2 });
  if (sample === undefined) throw new Error("no sample");
  const bytes = Buffer.concat([write([sample]), Buffer.alloc(RECORD_BYTES)]);
  bytes.writeBigUInt64LE(2n, 16);
  expect(decodeReports(bytes)).toHaveLength(1);
});

test("a trace knows the time of day, and which part of it is in use", () => {
  const trace = Buffer.alloc(traceBytes(10));
  trace.set(traceHeader(10, 123n));
  trace.writeBigUInt64LE(2n, 16);
  expect(epochOf(trace)).toBe(123n);
  expect(usedBytes(trace)).toHaveLength(3 * RECORD_BYTES);
  expect([epochOf(traceHeader(10)), epochOf(new Uint8Array(80)), usedBytes(new Uint8Array(500)).length]).toEqual([
    undefined,
    undefined,
    0,
  ]);
});
