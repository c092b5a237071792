import { isInit, type Plan, type Step } from "../plan/step.ts";
import type { Report } from "./report.ts";

/** What became of a step; "begun": its last call has not returned: it waits, or its process was killed in it. */
export type Outcome = "done" | "failed" | "begun" | "unreached";

/** A step of the plan and what the kernel answered. */
export interface TracedStep {
  /** Its place in the plan, from 0. */
  index: number;
  step: Step;
  side: "host" | "init";
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
 * or waits. Reports of steps that the plan does not have are left out.
 */
export function join(plan: Plan, reports: readonly Report[]): TracedStep[] {
  const calls = plan.map((): Report[] => []);
  for (const report of reports) calls[report.step]?.push(report);
  // steps are carried out one after the other, on whichever side
  const last = calls.findLastIndex((each) => each.length > 0);
  return plan.map((step, index) => {
    const own = calls[index] ?? [];
    const side = isInit(step) ? "init" : "host";
    const outcome =
      index > last ? "unreached" : index < last ? "done" : outcomeOf(step, own, index === plan.length - 1);
    const [first, end] = [own[0], own.findLast(({ result }) => result !== undefined)];
    return {
      index,
      step,
      side,
      calls: own,
      outcome,
      result: outcome === "failed" ? failureOf(side, own) : own.at(-1)?.result,
      startedNs: first?.startedNs,
      durationNs: first === undefined || end === undefined ? undefined : end.endedNs - first.startedNs,
    };
  });
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
