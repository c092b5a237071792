import { createSha256 } from "../crypto.ts";
import { ContainerError } from "../error.ts";
import { type Line, printCall, printResult } from "./line.ts";

/** The caller's span: W3C Trace Context. */
export interface Parent {
  /** 32 hexadecimal digits. */
  traceId: string;
  /** 16 hexadecimal digits. */
  spanId: string;
  sampled: boolean;
}

/** Reads TRACEPARENT; what does not follow the recommendation is ignored, as it asks for. */
export function parseTraceparent(text: string | undefined): Parent | undefined {
  const [, version, traceId = "", spanId = "", flags = "", more] =
    /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(text ?? "") ?? [];
  if (version === undefined || version === "ff" || (version === "00" && more !== undefined)) return;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

/**
 * A trace as OpenTelemetry spans, an ExportTraceServiceRequest in OTLP's JSON: one span for the whole, one for each step,
 * system calls as their events. Ids follow from what they are of, so a trace that is sent twice is one.
 * @throws ContainerError for a trace that does not know the time of day
 */
export function otlpTrace(lines: readonly Line[], parent: Parent | undefined): string {
  const timed = lines.filter(({ at, startedNs }) => at !== undefined && startedNs !== undefined);
  const [first] = timed;
  if (first?.at === undefined || first.startedNs === undefined)
    throw new ContainerError({
      message: "this trace does not say at which time of day it began, which spans need",
      code: "ENODATA",
    });
  const originNs = parseInstant(first.at) - BigInt(first.startedNs);
  const time = (ns: number) => String(originNs + BigInt(Math.round(ns)));
  const { container = "", trace = "create" } = first;
  const own = `${container} ${trace} ${first.at}`;
  const traceId = parent?.traceId ?? digest(own, 32);
  const root = digest(`${traceId} ${own}`, 16);
  const endOf = ({ startedNs = 0, durationNs = 0 }: Line) => startedNs + durationNs;
  const failed = lines.find(({ outcome }) => outcome === "failed");
  const spans = [
    {
      traceId,
      spanId: root,
      ...(parent === undefined ? {} : { parentSpanId: parent.spanId }),
      name: `caisson ${trace}`,
      kind: 1,
      startTimeUnixNano: time(Math.min(...timed.map(({ startedNs = 0 }) => startedNs))),
      endTimeUnixNano: time(Math.max(...timed.map(endOf))),
      attributes: attributes({ "container.id": container, "caisson.steps": lines.length }),
      status: statusOf(failed),
    },
    ...timed.map((line, at) => ({
      traceId,
      spanId: digest(`${root} ${at}`, 16),
      parentSpanId: root,
      name: line.undo === true ? `undo ${line.step}` : line.step,
      kind: 1,
      startTimeUnixNano: time(line.startedNs ?? 0),
      endTimeUnixNano: time(endOf(line)),
      attributes: attributes({
        "caisson.index": line.index,
        "caisson.side": line.side,
        "caisson.says": line.says,
        "caisson.from": line.from,
        "caisson.outcome": line.outcome,
      }),
      events: line.calls.map((call) => ({
        timeUnixNano: time(call.startedNs),
        name: call.name,
        attributes: attributes({
          "caisson.call": printCall(call),
          "caisson.result": printResult(call),
          ...(call.durationNs === undefined ? {} : { "caisson.duration_ns": call.durationNs }),
        }),
      })),
      status: statusOf(line),
    })),
  ];
  return JSON.stringify({
    resourceSpans: [
      {
        resource: { attributes: attributes({ "service.name": "caisson", "container.id": container }) },
        scopeSpans: [{ scope: { name: "caisson" }, spans }],
      },
    ],
  });
}

/** 0 unset, 2 error. */
function statusOf(line: Line | undefined): { code: number; message?: string } {
  if (line?.outcome !== "failed") return { code: 0 };
  return { code: 2, message: `${line.says}${line.error === undefined ? "" : `: ${line.error}`}` };
}

function attributes(values: { [key: string]: string | number }) {
  return Object.entries(values).map(([key, value]) => ({
    key,
    // 64-bit integers are strings in protobuf's JSON
    value: typeof value === "number" ? { intValue: String(Math.round(value)) } : { stringValue: value },
  }));
}

function digest(text: string, digits: number): string {
  return createSha256().update(text).digest("hex").slice(0, digits);
}

/** What line.ts prints: RFC 3339 with nine decimals. */
function parseInstant(text: string): bigint {
  const [seconds = "", fraction = ""] = text.replace("Z", "").split(".");
  return BigInt(Date.parse(`${seconds}Z`)) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
}
