import { ContainerError } from "../error.ts";
import type { Stepping } from "./definition.ts";
import { filledSlot, INIT_STEPS, isInit, isTurn, type Plan, type Step, type StepName } from "./step.ts";

const CLONE_NEWUSER = 0x10000000;

/**
 * The plan with a halt before each step: init stands still there until the host lets it go on. None behind a filter,
 * which may refuse the calls that this takes, nor once the container's program runs.
 * @throws ContainerError EINVAL for a step that cannot be left out
 */
export function stepwise(plan: Plan, { without }: Stepping): Plan {
  const gone = leftOut(plan, without);
  const kept = plan.filter((_, index) => !gone.has(index));
  const last = lastHalt(kept);
  return kept.flatMap((step, at) => {
    const before = kept[at - 1];
    const runs = before?.name === "startInit" || (before !== undefined && isInit(before) && !isTurn(before));
    const halts = runs && isInit(step) && !isTurn(step) && at <= last;
    return halts ? [{ name: "standStill" as const, args: {}, from: step.from }, step] : [step];
  });
}

/** The last step of a plan that a halt can precede; the plan's end where there is no such limit. */
export function lastHalt(plan: Plan): number {
  const last = plan.findIndex(({ name }) => ENDS_HALTS.has(name));
  return last < 0 ? plan.length : last;
}

const ENDS_HALTS: ReadonlySet<StepName> = new Set(["loadSeccomp", "loadNotifier", "awaitStart", "execute"]);

/** Without these there is no container, or one that is somebody on the host. */
const NEEDED: ReadonlySet<StepName> = new Set([
  "turn",
  "offerListener",
  "startInit",
  "clone",
  "cloneInto",
  "becomeRoot",
  "recordCreated",
  "awaitStart",
  "execute",
]);

/**
 * The places of the steps that are not carried out: those asked for, and those that need a descriptor of theirs.
 * @throws ContainerError EINVAL
 */
export function leftOut(plan: Plan, without: readonly number[]): ReadonlySet<number> {
  for (const index of without) {
    const name = plan[index]?.name;
    if (name !== undefined && !NEEDED.has(name)) continue;
    throw new ContainerError({
      message: name === undefined ? `the plan has no step ${index}` : `step ${index}, ${name}, cannot be left out`,
      code: "EINVAL",
    });
  }
  const gone = new Set(without);
  const empty = new Set<string>();
  plan.forEach((step, index) => {
    const { fills, needs } = slotsOf(step);
    if (needs.some((slot) => empty.has(slot)) && !NEEDED.has(step.name)) gone.add(index);
    for (const slot of fills) {
      if (gone.has(index)) empty.add(slot);
      else empty.delete(slot);
    }
  });
  return gone;
}

/** The places of a stepped plan's steps in the plan as it is without stepping; of a halt: that of the step it precedes. */
export function placesOf(plan: Plan, stepping: Stepping): number[] {
  const gone = leftOut(plan, stepping.without);
  const kept = plan.flatMap((_, index) => (gone.has(index) ? [] : [index]));
  let at = 0;
  return stepwise(plan, stepping).map(({ name }) => kept[name === "standStill" ? at : at++] ?? plan.length);
}

function slotsOf(step: Step): { fills: string[]; needs: string[] } {
  if (!isInit(step)) {
    const slot = filledSlot(step);
    const needs =
      step.name === "idmapSource" ? [step.args.mount] : step.name === "sendListener" ? [step.args.listener] : [];
    return { fills: slot === undefined ? [] : [slot], needs };
  }
  const ofKind = (...kinds: string[]) =>
    Object.entries(INIT_STEPS[step.name].args)
      .filter(([, kind]) => kinds.includes(kind))
      .map(([argument]) => String(Reflect.get(step.args, argument)));
  return { fills: ofKind("writes"), needs: ofKind("reads", "closes") };
}

/**
 * Why a plan's container is not to be trusted with a step left out; undefined when it can do no harm: all of it is in a
 * user namespace of its own, in which nobody is root of the host, or the caller.
 * @param caller the user that makes it
 */
export function harmWithout(plan: Plan, caller: number): string | undefined {
  const clone = plan.find(({ name }) => name === "clone" || name === "cloneInto");
  const flags = clone?.name === "clone" || clone?.name === "cloneInto" ? Number(clone.args.namespaces) : 0;
  if ((flags & CLONE_NEWUSER) === 0) return "it has no user namespace of its own";
  for (const step of plan) {
    if (step.name !== "mapIds" && step.name !== "mapIdsByHelper") continue;
    for (const line of step.args.map.trim().split("\n")) {
      const [, outside = 0, count = 0] = line.trim().split(/\s+/).map(Number);
      for (const id of [0, caller])
        if (id >= outside && id < outside + count)
          return `in its user namespace somebody is ${step.args.kind} ${id} of the host`;
    }
  }
  return;
}
