import { isInit, isTurn, type Plan, type Step } from "../plan/step.ts";
import type { Report } from "./report.ts";

/** What became of a step; "begun": its last call has not returned: it waits, or its process was killed in it. */
export type Outcome = "done" | "failed" | "begun" | "unreached";

/** A step of the plan and what the kernel answered. */
export interface TracedStep {
  /** Its place in the plan, from 0. */
  index: number;
  step: Step;
  side: "host" | "init";
  /** Whether this is how the step was taken back, and not how it was carried out. */
  undo: boolean;
  /** Its system calls, in order. */
  calls: readonly Report[];
  outcome: Outcome;
  /** The last call's result; for a failed step -errno of the call that failed, if it was one. */
  result: number | undefined;
  /** CLOCK_MONOTONIC at its first call; undefined where it made none. */
  startedNs: bigint | undefined;
  /** From its first call's begin to its last call's end. */
  durationNs: bigint | undefined;
}

/**
 * The trace: each step of a plan with its reports. For a trace at rest: whoever makes the container has finished, failed
 * or waits. Behind the plan's steps come those that were taken back, in the order in which that was done. Reports of
 * steps that the plan does not have are left out.
 */
export function join(plan: Plan, reports: readonly Report[]): TracedStep[] {
  const calls = plan.map((): Report[] => []);
  for (const report of reports) if (report.undo !== true) calls[report.step]?.push(report);
  return [...carriedOut(plan, calls), ...takenBack(plan, reports)];
}

function carriedOut(plan: Plan, calls: readonly Report[][]): TracedStep[] {
  const outcome = outcomes(plan, calls);
  return plan.map((step, index) => {
    const own = calls[index] ?? [];
    const side = sideOf(step);
    const became = outcome(step, index, own);
    const result = became === "failed" ? failureOf(side, own) : own.at(-1)?.result;
    return { index, step, side, undo: false, calls: own, outcome: became, result, ...timesOf(own) };
  });
}

function outcomes(plan: Plan, calls: readonly Report[][]): (step: Step, index: number, own: Report[]) => Outcome {
  const last = calls.findLastIndex((each) => each.length > 0);
  const init = calls.findLastIndex((each) => each.length > 0 && each[0]?.side === "init");
  const reached = plan[init];
  // while init is on its way to a turn the host can be ahead of it, and then either can fail
  const behind = init >= 0 && init < last && reached !== undefined && !isTurn(reached) && reached.name !== "execute";
  const failed = behind && saysSo(calls[init] ?? []);
  return (step, index, own) => {
    if (index > last || (behind && isInit(step) && index > init)) return "unreached";
    if (behind && index === init) return failed ? "failed" : own.at(-1)?.result === undefined ? "begun" : "done";
    if (index < last || failed) return "done";
    return outcomeOf(step, own, index === plan.length - 1);
  };
}

/** sendmsg, on x86-64 and arm64: in a step that is no turn, the last call is init's word that it has failed. */
const SENDMSG = [46, 211];

function saysSo(calls: readonly Report[]): boolean {
  return SENDMSG.includes(calls.at(-1)?.nr ?? -1);
}

/** A step can be taken back more than once: after a failure, and by delete. Neighbours of one step are one time. */
function takenBack(plan: Plan, reports: readonly Report[]): TracedStep[] {
  const groups: { index: number; step: Step; calls: Report[] }[] = [];
  for (const report of reports) {
    const step = plan[report.step];
    if (report.undo !== true || step === undefined) continue;
    const last = groups.at(-1);
    if (last?.index === report.step) last.calls.push(report);
    else groups.push({ index: report.step, step, calls: [report] });
  }
  return groups.map(({ index, step, calls }) => {
    // what is not there any more was taken back before
    const outcome = calls.at(-1)?.result === undefined ? ("begun" as const) : ("done" as const);
    const result = calls.at(-1)?.result;
    return { index, step, side: sideOf(step), undo: true, calls, outcome, result, ...timesOf(calls) };
  });
}

function sideOf(step: Step): "host" | "init" {
  return isInit(step) ? "init" : "host";
}

function timesOf(calls: readonly Report[]): Pick<TracedStep, "startedNs" | "durationNs"> {
  const [first, end] = [calls[0], calls.findLast(({ result }) => result !== undefined)];
  return {
    startedNs: first?.startedNs,
    durationNs: first === undefined || end === undefined ? undefined : end.endedNs - first.startedNs,
  };
}

/** Of the last step that was reached. */
function outcomeOf(step: Step, calls: readonly Report[], ends: boolean): Outcome {
  // a plan can end on the host's side, after poststart hooks, and then nothing follows in any case
  if (ends && !isInit(step)) return calls.some(({ result }) => (result ?? 0) < 0) ? "failed" : "done";
  if (calls.at(-1)?.result !== undefined) return "failed"; // nothing follows, and nothing is under way
  // execve is the one call that succeeds by not coming back
  return step.name === "execute" ? "done" : "begun";
}

function failureOf(side: "host" | "init", calls: readonly Report[]): number | undefined {
  // init's last call is its word to the host that the step has failed
  const own = side === "init" ? calls.slice(0, -1) : calls;
  return own.findLast(({ result }) => result !== undefined && result < 0)?.result;
}
