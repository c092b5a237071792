import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeReports, type Report, TRACE_CAPACITY, traceBytes, traceHeader } from "../../src/trace/report.ts";

const RECORD_BYTES = 80;

const word = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const report: fc.Arbitrary<Report> = fc.record({
  step: fc.nat(0xffff),
  side: fc.constantFrom("host" as const, "init" as const),
  nr: fc.nat(0xffffffff),
  args: fc.tuple(word, word, word, word, word, word),
  result: fc.option(fc.maxSafeInteger(), { nil: undefined }),
  startedNs: word,
  endedNs: word.map((ns) => (ns === 0n ? 1n : ns)),
});

/** As native/plan/plan.h lays it out. */
function write(reports: readonly Report[], count = reports.length): Uint8Array {
  const bytes = Buffer.alloc((reports.length + 1) * RECORD_BYTES);
  bytes.set(traceHeader(reports.length));
  bytes.writeBigUInt64LE(BigInt(count), 16);
  reports.forEach(({ step, side, nr, args, result, startedNs, endedNs }, at) => {
    const record = bytes.subarray((at + 1) * RECORD_BYTES);
    record.writeBigUInt64LE(startedNs, 0);
    record.writeBigUInt64LE(result === undefined ? 0n : endedNs, 8);
    record.writeBigInt64LE(BigInt(result ?? 0), 16);
    args.forEach((arg, i) => {
      record.writeBigUInt64LE(arg, 24 + i * 8);
    });
    record.writeUInt16LE(step, 72);
    record.writeUInt16LE(side === "host" ? 1 : 2, 74);
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
