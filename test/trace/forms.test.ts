import { describe, expect, test } from "vitest";
import { phasesOf } from "../../src/plan/phase.ts";
import { chromeTrace } from "../../src/trace/chrome.ts";
import { diff, renderDiff } from "../../src/trace/diff.ts";
import type { Line } from "../../src/trace/line.ts";
import { otlpTrace, parseTraceparent } from "../../src/trace/otlp.ts";
import { tracePage } from "../../src/trace/page.ts";
import { scaleOf } from "../../src/trace/scale.ts";

function line(step: string, startedNs: number, durationNs: number | undefined, more: Partial<Line> = {}): Line {
  return {
    container: "web",
    trace: "create",
    index: 0,
    side: "host",
    step,
    says: `does ${step}`,
    why: "It must be.",
    from: "/spec",
    outcome: "done",
    at: "2026-01-02T03:04:05.000001000Z",
    startedNs,
    ...(durationNs === undefined ? {} : { durationNs }),
    calls: [],
    ...more,
  };
}

const CALL = { name: "close", nr: 3, args: ["0x3"], shown: ["3"], result: 0, startedNs: 1500, durationNs: 200 };
const LINES = [
  line("makeCgroup", 0, 1000),
  line("startInit", 1000, 2000, { calls: [CALL] }),
  line("newSession", 4000, 500, { side: "init" }),
  line("execute", 5000, undefined, { side: "init" }),
];

test("Chrome's format has a thread for each side, and calls within their steps; times in µs", () => {
  const { traceEvents } = JSON.parse(chromeTrace(LINES));
  const events = traceEvents.filter(({ ph }: { ph: string }) => ph !== "M");
  expect(events.map(({ name, ph, tid, ts, dur }: { [field: string]: unknown }) => [name, ph, tid, ts, dur])).toEqual([
    ["makeCgroup", "X", 1, 0, 1],
    ["startInit", "X", 1, 1, 2],
    ["close", "X", 1, 1.5, 0.2],
    ["newSession", "X", 2, 4, 0.5],
    ["execute", "i", 2, 5, undefined],
  ]);
});

describe("spans", () => {
  const PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

  test("the caller's trace is what TRACEPARENT says, or nothing", () => {
    expect(parseTraceparent(PARENT)).toEqual({
      traceId: "0af7651916cd43dd8448eb211c80319c",
      spanId: "b7ad6b7169203331",
      sampled: true,
    });
    expect(parseTraceparent(PARENT.replace(/01$/, "02"))?.sampled).toBe(false);
    expect(parseTraceparent(`cc${PARENT.slice(2)}-more`)?.sampled).toBe(true);
    for (const wrong of [
      undefined,
      "",
      PARENT.toUpperCase(),
      `${PARENT}-more`,
      `ff${PARENT.slice(2)}`,
      PARENT.replace(/[1-9a-f]/g, "0"),
      PARENT.slice(1),
    ])
      expect(parseTraceparent(wrong), wrong).toBeUndefined();
  });

  test("they hang together, at the time of day, and are the same when made again", () => {
    const text = otlpTrace(LINES, parseTraceparent(PARENT));
    expect(otlpTrace(LINES, parseTraceparent(PARENT))).toBe(text);
    const { spans } = JSON.parse(text).resourceSpans[0].scopeSpans[0];
    const [root, ...steps] = spans;
    expect(root.parentSpanId).toBe("b7ad6b7169203331");
    expect(root.startTimeUnixNano).toBe(String(BigInt(Date.parse("2026-01-02T03:04:05Z")) * 1_000_000n + 1000n));
    expect(BigInt(root.endTimeUnixNano) - BigInt(root.startTimeUnixNano)).toBe(5000n);
    expect(new Set(spans.map(({ spanId }: { spanId: string }) => spanId)).size).toBe(5);
    for (const span of steps) expect(span).toMatchObject({ traceId: root.traceId, parentSpanId: root.spanId });
    expect(steps[1].events).toHaveLength(1);
    expect(() => otlpTrace([{ ...line("x", 0, 1), at: undefined } as unknown as Line], undefined)).toThrow(
      "time of day",
    );
  });
});

describe("differences", () => {
  const says = (before: Line[], after: Line[]) => diff(before, after).map(({ kind }) => kind);

  test("a trace does not differ from itself, nor from that of a container with another id", () => {
    const named = (id: string) => LINES.map((each) => ({ ...each, container: id, says: `makes /sys/${id}` }));
    expect(says(LINES, LINES)).toEqual(["same", "same", "same", "same"]);
    expect(says(named("one"), named("other"))).toEqual(["same", "same", "same", "same"]);
  });

  test("steps that are in one of them alone, end otherwise or call otherwise are told", () => {
    const failed = { ...line("startInit", 1000, 2000), outcome: "failed" as const, error: "EPERM" };
    const refused = { ...CALL, error: "EBADF", result: -9 };
    expect(says(LINES, [failed, ...LINES.slice(2), line("runHostHook", 6000, 1)])).toEqual([
      "removed",
      "changed",
      "same",
      "same",
      "added",
    ]);
    expect(
      says(
        LINES,
        LINES.map((each) => (each.calls.length > 0 ? { ...each, calls: [refused] } : each)),
      )[1],
    ).toBe("changed");
  });

  test("a time differs when it is half as long again, and by more than the machine's moods", () => {
    const took = (ns: number) => [line("x", 0, ns)];
    expect(says(took(100_000), took(140_000))).toEqual(["same"]);
    expect(says(took(10), took(40_000))).toEqual(["same"]);
    expect(says(took(100_000), took(200_000))).toEqual(["slower"]);
    expect(says(took(200_000), took(100_000))).toEqual(["faster"]);
    expect(renderDiff(took(100_000), took(200_000))).toMatch(/^> +0 +0 +x +does x +100 µs +200 µs +\+100 µs$/m);
  });
});

describe("the scale of a page", () => {
  test("is linear where nothing waits long", () => {
    const { at, breaks } = scaleOf(LINES);
    expect(breaks).toEqual([]);
    expect([0, 1000, 2500, 5000].map(at)).toEqual([0, 20, 50, 100]);
  });

  test("cuts pauses short that are longer than all the rest", () => {
    const lines = [
      line("a", 0, 1000),
      line("awaitStart", 1000, 1e9, { side: "init" }),
      line("execute", 1e9 + 1000, 1000),
    ];
    const { at, breaks, ticks } = scaleOf(lines);
    expect(breaks).toEqual([{ startNs: 1000, endNs: 1e9 + 1000 }]);
    expect([0, 1000, 1e9 + 1000, 1e9 + 2000].map((ns) => Math.round(at(ns) * 10) / 10)).toEqual([0, 47.5, 52.5, 100]);
    expect(ticks.length).toBeLessThan(2000);
  });

  test("is there for an empty trace, and for one instant", () => {
    expect(scaleOf([]).at(5)).toBe(100);
    expect(scaleOf([line("x", 0, undefined)]).at(0)).toBe(0);
  });
});

test("a phase that is over does not begin again", () => {
  const steps = ["makeCgroup", "startInit", "newSession", "pivotRoot", "newSession", "execute"];
  expect(phasesOf(steps.map((step) => line(step, 0, 0)))).toEqual([
    "prepare",
    "enter",
    "build",
    "confine",
    "confine",
    "start",
  ]);
});

test("nothing that a container is called is markup in its page", () => {
  const hostile = '</title><script>alert("1")</script>\u0000<!--';
  const says = { says: hostile, from: hostile, why: hostile, calls: [{ ...CALL, name: hostile, shown: [hostile] }] };
  const page = tracePage([line("x", 0, 1, says)], { title: hostile, failure: { message: hostile, hint: hostile } });
  expect(page.match(/<script/g)).toHaveLength(1);
  for (const markup of ["<!--", "\u0000"]) expect(page).not.toContain(markup);
});
