import { appendFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Recording, traceName } from "../container/recording.ts";
import { ContainerError } from "../error.ts";
import { join } from "../trace/join.ts";
import { type Line, type Part, partOf, tell } from "../trace/line.ts";
import { otlpTrace, parseTraceparent } from "../trace/otlp.ts";

const { env } = process;

/** Nobody's container waits longer for somebody's collector. */
const TIMEOUT_MS = 1000;

/**
 * Where spans go: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT as it is, or OTEL_EXPORTER_OTLP_ENDPOINT with the signal's path
 * behind it, as OpenTelemetry's exporter specification has it; a file: URL names a file to append to.
 */
function endpoint(): URL | undefined {
  const { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: own, OTEL_EXPORTER_OTLP_ENDPOINT: base } = env;
  const text = own ?? (base?.startsWith("file:") ? base : base?.replace(/\/*$/, "/v1/traces"));
  if (text === undefined || text === "") return;
  try {
    return new URL(text);
  } catch {
    throw new ContainerError({ message: `cannot send spans to ${text}: it is not a URL`, code: "EINVAL" });
  }
}

/** Sends a trace as spans. @throws ContainerError */
export async function sendSpans(lines: readonly Line[]): Promise<void> {
  const url = endpoint();
  if (url === undefined)
    throw new ContainerError({
      message: "cannot send spans: nobody has said where to",
      code: "EINVAL",
      hint: "set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://localhost:4318 or file:///tmp/spans.jsonl",
    });
  const body = otlpTrace(lines, parseTraceparent(env.TRACEPARENT));
  if (url.protocol === "file:") return appendFileSync(fileURLToPath(url), `${body}\n`, { mode: 0o600 });
  const timeout = Number(env.OTEL_EXPORTER_OTLP_TIMEOUT ?? TIMEOUT_MS);
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { ...headers(), "content-type": "application/json" },
      body,
      signal: AbortSignal.timeout(Number.isSafeInteger(timeout) && timeout > 0 ? timeout : TIMEOUT_MS),
    });
    await answer.arrayBuffer();
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ContainerError({ message: `cannot send spans to ${url.origin}: ${reason}`, code: "EIO", cause });
  }
}

/** "key=value,key=value", values percent-encoded: OTEL_EXPORTER_OTLP_HEADERS. */
function headers(): { [name: string]: string } {
  const list = (env.OTEL_EXPORTER_OTLP_TRACES_HEADERS ?? env.OTEL_EXPORTER_OTLP_HEADERS ?? "").split(",");
  return Object.fromEntries(
    list.flatMap((entry) => {
      const [name = "", ...value] = entry.trim().split("=");
      try {
        return name === "" || value.length === 0 ? [] : [[name.trim(), decodeURIComponent(value.join("="))]];
      } catch {
        return []; // not percent-encoded: not a header that was meant
      }
    }),
  );
}

/**
 * Adds what was done to a container to the trace of whoever started us; what goes wrong with that is no fault of the
 * container's.
 * @param part a command that did a part of what is recorded
 */
export async function joinCallersTrace(read: () => Recording | undefined, part?: Part): Promise<void> {
  if (parseTraceparent(env.TRACEPARENT)?.sampled !== true) return;
  try {
    if (endpoint() === undefined) return;
    const recording = read();
    if (recording === undefined) return;
    const { container, machine, epochNs, plan, reports } = recording;
    const trace = part ?? traceName(recording);
    const lines = tell(join(plan, reports), { container, trace, machine, epochNs });
    await sendSpans(partOf(lines, part));
  } catch {
    // whoever watches for the spans sees that they are missing
  }
}
