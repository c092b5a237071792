/** native/plan/plan.h: a trace is a header and reports of 80 bytes each. */
const MAGIC = 0x0065636172547343n;
const VERSION = 1;
const RECORD_BYTES = 80;

/** Reports that fit into one trace; a container takes a few hundred. */
export const TRACE_CAPACITY = 4095;

/** One system call of one step. Times are CLOCK_MONOTONIC. */
export interface Report {
  /** Index of the step in the plan. */
  step: number;
  side: "host" | "init";
  /** System call number of this machine. */
  nr: number;
  args: readonly bigint[];
  /** >= 0, or -errno; undefined while the call has not returned, as execve never does. */
  result: number | undefined;
  startedNs: bigint;
  endedNs: bigint;
}

export function traceBytes(capacity: number): number {
  return (capacity + 1) * RECORD_BYTES;
}

export function traceHeader(capacity: number): Uint8Array {
  const header = Buffer.alloc(RECORD_BYTES);
  header.writeBigUInt64LE(MAGIC, 0);
  header.writeUInt32LE(VERSION, 8);
  header.writeUInt32LE(capacity, 12);
  return header;
}

/** The reports of a trace; each process's are in order. Bytes that are no trace give none. */
export function decodeReports(bytes: Uint8Array): Report[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < RECORD_BYTES || view.getBigUint64(0, true) !== MAGIC || view.getUint32(8, true) !== VERSION)
    return [];
  const count = Math.min(Number(view.getBigUint64(16, true)), Math.floor(bytes.length / RECORD_BYTES) - 1);
  return Array.from({ length: count }, (_, i) => decodeReport(view, (i + 1) * RECORD_BYTES));
}

function decodeReport(view: DataView, at: number): Report {
  const endedNs = view.getBigUint64(at + 8, true);
  return {
    step: view.getUint16(at + 72, true),
    side: view.getUint16(at + 74, true) === 1 ? "host" : "init",
    nr: view.getUint32(at + 76, true),
    args: Array.from({ length: 6 }, (_, i) => view.getBigUint64(at + 24 + i * 8, true)),
    result: endedNs === 0n ? undefined : Number(view.getBigInt64(at + 16, true)),
    startedNs: view.getBigUint64(at, true),
    endedNs,
  };
}
