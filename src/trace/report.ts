/** native/plan/plan.h: a trace is a header and records of 80 bytes each: reports, and the strings that belong to one. */
const MAGIC = 0x0065636172547343n;
const VERSION = 1;
const RECORD_BYTES = 80;
const TEXT_BYTES = 72;

const KINDS = { host: 1, init: 2, undo: 3, text: 4 } as const;

/** Records that fit into one trace; a container takes a few hundred. */
export const TRACE_CAPACITY = 4095;

/** One system call of one step. Times are CLOCK_MONOTONIC. */
export interface Report {
  /** Index of the step in the plan. */
  step: number;
  side: "host" | "init";
  /** Whether it is one of those that take back what the step did. */
  undo?: true;
  /** System call number of this machine. */
  nr: number;
  args: readonly bigint[];
  /** What arguments of the host's calls point at, by the argument's place; a long one is cut, and ends in "…". */
  texts?: readonly (string | undefined)[];
  /** >= 0, or -errno; undefined while the call has not returned, as execve never does. */
  result: number | undefined;
  startedNs: bigint;
  endedNs: bigint;
}

export function traceBytes(capacity: number): number {
  return (capacity + 1) * RECORD_BYTES;
}

/** @param epochNs CLOCK_REALTIME less CLOCK_MONOTONIC: what makes times of day of the reports' times */
export function traceHeader(capacity: number, epochNs = 0n): Uint8Array {
  const header = Buffer.alloc(RECORD_BYTES);
  header.writeBigUInt64LE(MAGIC, 0);
  header.writeUInt32LE(VERSION, 8);
  header.writeUInt32LE(capacity, 12);
  header.writeBigInt64LE(epochNs, 24);
  return header;
}

/** The part of a trace that has been written: what need be kept of one. Bytes that are no trace give none. */
export function usedBytes(bytes: Uint8Array): Uint8Array {
  const count = countOf(viewOf(bytes));
  return count === undefined ? bytes.subarray(0, 0) : bytes.subarray(0, (count + 1) * RECORD_BYTES);
}

/** CLOCK_REALTIME less CLOCK_MONOTONIC when a trace was made; undefined where it does not say. */
export function epochOf(bytes: Uint8Array): bigint | undefined {
  const view = viewOf(bytes);
  if (countOf(view) === undefined) return;
  const epochNs = view.getBigInt64(24, true);
  return epochNs === 0n ? undefined : epochNs;
}

/** The reports of a trace; each process's are in order. Bytes that are no trace give none. */
export function decodeReports(bytes: Uint8Array): Report[] {
  const view = viewOf(bytes);
  const count = countOf(view) ?? 0;
  const reports: Report[] = [];
  let last: { texts?: Texts } = {};
  for (let at = RECORD_BYTES; at <= count * RECORD_BYTES; at += RECORD_BYTES) {
    const kind = view.getUint16(at + 74, true);
    if (kind === KINDS.text) {
      // never of another report than the one before: both were written in one go
      last.texts ??= new Texts();
      last.texts.add(view, at);
    } else if (kind >= KINDS.host && kind <= KINDS.undo) {
      finish(reports, last);
      reports.push(decodeReport(view, at, kind));
      last = {};
    }
    // else: its writer was killed before it had written anything
  }
  finish(reports, last);
  return reports;
}

function finish(reports: Report[], { texts }: { texts?: Texts }): void {
  const report = reports.at(-1);
  if (texts !== undefined && report !== undefined) report.texts = texts.strings();
}

/** The strings of one report, from their pieces. */
class Texts {
  readonly #pieces: { length: number; bytes: number[] }[] = [];

  add(view: DataView, at: number): void {
    const argument = view.getUint16(at + 72, true);
    const length = view.getUint32(at + 76, true);
    if (argument > 5) return;
    this.#pieces[argument] ??= { length, bytes: [] };
    for (let i = 0; i < Math.min(length, TEXT_BYTES); i++) this.#pieces[argument].bytes.push(view.getUint8(at + i));
  }

  strings(): (string | undefined)[] {
    return Array.from(this.#pieces, (piece) => {
      if (piece === undefined) return undefined;
      const text = Buffer.from(piece.bytes).toString("utf8");
      return piece.bytes.length < piece.length ? `${text}…` : text;
    });
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Records that a trace has; undefined for what is no trace. */
function countOf(view: DataView): number | undefined {
  if (view.byteLength < RECORD_BYTES || view.getBigUint64(0, true) !== MAGIC || view.getUint32(8, true) !== VERSION)
    return;
  return Math.min(Number(view.getBigUint64(16, true)), Math.floor(view.byteLength / RECORD_BYTES) - 1);
}

function decodeReport(view: DataView, at: number, kind: number): Report {
  const endedNs = view.getBigUint64(at + 8, true);
  return {
    step: view.getUint16(at + 72, true),
    side: kind === KINDS.init ? "init" : "host",
    ...(kind === KINDS.undo ? { undo: true } : {}),
    nr: view.getUint32(at + 76, true),
    args: Array.from({ length: 6 }, (_, i) => view.getBigUint64(at + 24 + i * 8, true)),
    result: endedNs === 0n ? undefined : Number(view.getBigInt64(at + 16, true)),
    startedNs: view.getBigUint64(at, true),
    endedNs,
  };
}
