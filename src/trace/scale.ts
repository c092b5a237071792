import { isWait } from "../plan/phase.ts";
import type { Line } from "./line.ts";

/** Times to places along an axis from 0 to 100. */
export interface Scale {
  at: (ns: number) => number;
  /** Where nothing was done for so long that nothing else would be seen: these are drawn shorter than they were. */
  breaks: readonly { startNs: number; endNs: number }[];
  startNs: number;
  endNs: number;
  /** Times for ticks, each level for a closer look at it than the one before. */
  ticks: readonly { ns: number; level: 0 | 1 | 2 }[];
}

/** Each break's part of the axis. */
const BREAK_WIDTH = 5;
const TICKS = 8;

/**
 * The scale of a trace. It is linear, but for long pauses (a container can wait for start for hours): one that is longer
 * than all the rest together is cut short.
 */
export function scaleOf(lines: readonly Line[]): Scale {
  const spans = lines
    .flatMap((line) => (isWait(line) ? edges(line) : [spanOf(line)]))
    .filter((span) => span !== undefined)
    .sort(([one], [other]) => one - other);
  const startNs = spans[0]?.[0] ?? 0;
  const endNs = Math.max(startNs + 1, ...spans.map(([, end]) => end));
  const pauses: { startNs: number; endNs: number }[] = [];
  let reached = startNs;
  for (const [start, end] of spans) {
    if (start > reached) pauses.push({ startNs: reached, endNs: start });
    reached = Math.max(reached, end);
  }
  const breaks: typeof pauses = [];
  let restNs = endNs - startNs;
  for (const pause of pauses.sort((one, other) => lengthOf(other) - lengthOf(one))) {
    if (lengthOf(pause) <= restNs - lengthOf(pause)) break;
    breaks.push(pause);
    restNs -= lengthOf(pause);
  }
  breaks.sort((one, other) => one.startNs - other.startNs);
  const perNs = (100 - breaks.length * BREAK_WIDTH) / restNs;
  const at = (ns: number) => {
    let place = (Math.min(Math.max(ns, startNs), endNs) - startNs) * perNs;
    for (const pause of breaks) {
      const inside = Math.min(Math.max(ns - pause.startNs, 0), lengthOf(pause));
      place += (inside / lengthOf(pause)) * BREAK_WIDTH - inside * perNs;
    }
    return place;
  };
  return { at, breaks, startNs, endNs, ticks: ticksOf(startNs, endNs, roundUp(restNs / TICKS), breaks) };
}

function ticksOf(startNs: number, endNs: number, stepNs: number, breaks: Scale["breaks"]): Scale["ticks"] {
  const ticks: { ns: number; level: 0 | 1 | 2 }[] = [];
  const fineNs = stepNs / 100;
  for (let at = 0, ns = startNs; ns <= endNs; at++, ns = startNs + at * fineNs) {
    const pause = breaks.find((each) => ns > each.startNs && ns < each.endNs);
    if (pause === undefined) ticks.push({ ns, level: at % 100 === 0 ? 0 : at % 10 === 0 ? 1 : 2 });
    // on the far side, without a step through all of it
    else at = Math.ceil((pause.endNs - startNs) / fineNs) - 1;
  }
  return ticks;
}

function spanOf({ startedNs, durationNs = 0 }: Line): [number, number] | undefined {
  return startedNs === undefined ? undefined : [startedNs, startedNs + durationNs];
}

/** Of a wait only its ends count: what is between is not anybody's work. */
function edges(line: Line): ([number, number] | undefined)[] {
  const span = spanOf(line);
  return span === undefined
    ? []
    : [
        [span[0], span[0]],
        [span[1], span[1]],
      ];
}

function lengthOf({ startNs, endNs }: { startNs: number; endNs: number }): number {
  return endNs - startNs;
}

/** 1, 2 or 5 times a power of ten. */
function roundUp(ns: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(ns, 1)));
  return ([1, 2, 5, 10].find((factor) => factor * power >= ns) ?? 10) * power;
}
