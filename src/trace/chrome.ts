import { type Line, printCall, printResult } from "./line.ts";

/** Rows of the picture. */
const LANES = { host: 1, init: 2, undo: 3 };

/**
 * A trace in Chrome's trace event format (JSON object format), as chrome://tracing and ui.perfetto.dev read it: the sides
 * are threads, system calls lie within their steps. Times in µs.
 */
export function chromeTrace(lines: readonly Line[]): string {
  const events = lines.flatMap((line) => {
    const tid = LANES[line.undo === true ? "undo" : line.side];
    const { index, step, says, why, from, outcome, error, startedNs, durationNs } = line;
    if (startedNs === undefined) return [];
    const place = { pid: 1, tid };
    const args = { index, says, why, from, outcome, ...(error === undefined ? {} : { error }) };
    return [
      { name: step, cat: "step", ...place, ...spanOf(startedNs, durationNs), args },
      ...line.calls.map((call) => ({
        name: call.name,
        cat: "call",
        ...place,
        ...spanOf(call.startedNs, call.durationNs),
        args: { call: printCall(call), result: printResult(call), args: call.args },
      })),
    ];
  });
  const [first] = lines;
  const named = (name: string, args: object, tid?: number) => ({
    name,
    ph: "M",
    pid: 1,
    ...(tid === undefined ? {} : { tid }),
    args,
  });
  const used = new Set(events.map(({ tid }) => tid));
  return JSON.stringify({
    traceEvents: [
      named("process_name", { name: `container ${first?.container ?? ""}`.trim() }),
      ...Object.entries(LANES)
        .filter(([, tid]) => used.has(tid))
        .flatMap(([name, tid]) => [
          named("thread_name", { name }, tid),
          named("thread_sort_index", { sort_index: tid }, tid),
        ]),
      ...events,
    ],
    displayTimeUnit: "ns",
    otherData: { container: first?.container, trace: first?.trace, startedAt: lines.find(({ at }) => at)?.at },
  });
}

/** A complete event; what has not come back is an instant. */
function spanOf(startedNs: number, durationNs: number | undefined) {
  const ts = startedNs / 1000;
  return durationNs === undefined
    ? { ph: "i" as const, s: "t" as const, ts }
    : { ph: "X" as const, ts, dur: durationNs / 1000 };
}
