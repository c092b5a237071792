import { UNIT_EXISTS } from "../cgroup/systemd.ts";
import { ContainerError, tryAll, withLeft } from "../error.ts";
import { addon } from "../kernel/addon.ts";
import { close } from "../kernel/file.ts";
import { endDeadline } from "../kernel/process.ts";
import { errnoName } from "../kernel/syscall.ts";
import { encode } from "../plan/encode.ts";
import { hintFor } from "../plan/hints.ts";
import { filledSlot, type HostStep, isInit, isTurn, type Plan, type Step, says } from "../plan/step.ts";
import { diagnoseExecutable } from "./diagnosis.ts";
import { type HostContext, runHostStep, undoHostStep } from "./host.ts";
import { Init, type Launcher, type Said } from "./init.ts";

export interface Execution {
  /** Descriptor of the trace that both sides append to; see makeTrace. */
  trace: number;
  context: HostContext;
  /** Descriptors that become 3, 4, … in the container. */
  preserved: readonly number[];
  /** Where init is not to be our own child. */
  launcher?: Launcher;
}

/** What init gets to end by itself. */
const GRACE_MS = 1000;

/** A halt before a step of a plan that is stepped through: nothing of the container happens meanwhile. */
export interface Halt {
  plan: Plan;
  /** Of the step that comes next. */
  index: number;
  /** The container's process to be; undefined before init has been started. */
  pid: number | undefined;
}

/**
 * Carries a plan out: host steps here, init steps over there, in order. Returns when the last step has been reached:
 * the container's program executed, or init waits for start.
 * @returns the container's process; its pidfd is the caller's to close
 * @throws ContainerError of the step that failed, after everything done so far has been undone
 */
export function execute(plan: Plan, execution: Execution): { pid: number; pidfd: number } {
  return runThrough(executeStepwise(plan, execution));
}

/** What comes of it when nobody looks at the halts. */
export function runThrough<R>(steps: Generator<Halt, R, void>): R {
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

/**
 * The same, which halts where a plan made by stepwise has init stand still, and before each step of the host's. An error
 * thrown into it is that of the step before which it halts: everything is undone.
 */
export function* executeStepwise(
  plan: Plan,
  { trace, context, preserved, launcher }: Execution,
): Generator<Halt, { pid: number; pidfd: number }, void> {
  const { bytes, inherited } = encode(plan);
  let init: Init | undefined;
  let reached = -1;
  let turn: number | undefined;
  let cloned = false;
  /** Whether init has said that it failed. */
  let ending = false;
  /** Host steps before this one are done. */
  let ahead = 0;
  const halts = plan.some(({ name }) => name === "standStill");
  addon().traceTo(trace);
  try {
    for (const [index, step] of plan.entries()) {
      if (index < ahead) continue;
      // of a step that has not begun there is nothing to take back
      if (halts && !isTurn(step) && (init === undefined || turn !== undefined)) yield* halt(index);
      reached = index;
      if (isInit(step)) {
        if (turn !== undefined) handOver(turn);
        turn = undefined;
        if (step.name === "clone" || step.name === "cloneInto") cloned = true;
        if (isTurn(step)) {
          try {
            if (!halts) ahead = goAhead(index + 1);
          } catch (error) {
            hear(index); // where init has failed meanwhile, its namespaces are gone: that is the reason
            throw error;
          }
          takeListener(step, hear(index), context);
          turn = index;
        }
        if (step.name === "execute" || step.name === "awaitStart") hear(plan.length);
        // from there on it is the turn of whoever starts the container
        if (step.name === "awaitStart") break;
        continue;
      }
      carryOut(step, index);
    }
  } catch (error) {
    if (init !== undefined) addon().traceStep(startOf(plan), true);
    const deadline = endDeadline();
    // killed at once, it would not have reported the end of the call by which it said so
    const unkilled = tryAll([() => init?.kill(ending ? GRACE_MS : 0, deadline)]);
    // what was refused because it is in use is another container's: taking it back would end that one
    const foreign = error instanceof ContainerError && TAKEN.has(`${error.step} ${error.code}`);
    const left = undo(plan.slice(0, foreign ? reached : reached + 1), context, deadline);
    init?.close();
    throw withLeft(diagnosed(error, context.slots.get("root"), plan), [...unkilled, ...left]);
  } finally {
    addon().traceTo(-1);
    for (const fd of context.slots.values()) close(fd);
    context.slots.clear();
  }
  if (init === undefined) throw new ContainerError({ message: "the plan starts no init", code: "EINVAL" });
  const { pid, pidfd } = init;
  init.close();
  return { pid, pidfd };

  /** What is looked at meanwhile belongs to no step. */
  function* halt(index: number): Generator<Halt, void, void> {
    addon().traceTo(-1);
    try {
      yield { plan, index, pid: init?.pid };
    } finally {
      addon().traceTo(trace);
    }
  }

  function carryOut(step: HostStep, index: number): void {
    if (step.name !== "startInit") {
      attempt(step, index, () => runHostStep(step, context));
      return;
    }
    addon().traceStep(index);
    const slots = inherited.map((slot) => context.slots.get(slot) ?? -1);
    init = new Init(bytes, trace, slots, preserved, launcher, context.signals);
    context.process = init;
    addon().traceStep(-1);
  }

  /** What needs no more than the container's namespaces is done while init is still on its way to the turn. */
  function goAhead(first: number): number {
    let index = first;
    for (; cloned; index++) {
      const step = plan[index];
      if (step === undefined || isInit(step) || !NEEDS_NAMESPACES_ONLY.has(step.name)) break;
      if (init?.awaitChild() !== true) break;
      reached = index;
      carryOut(step, index);
    }
    return index;
  }

  /** Waits until init has come to a turn, or to the plan's end. */
  function hear(index: number): Said {
    const said: Said = init?.listen(cloned) ?? { kind: "gone" };
    if (said.kind === "waits" && said.step === index) return said;
    if (said.kind === "gone" && index === plan.length) return said;
    ending = said.kind === "failed";
    if (said.kind === "failed") throw stepError(plan, said.step, said.errno);
    throw unexpectedEnd(plan[index], index);
  }

  /** The slots that the host filled at this turn, and no others, travel. */
  function handOver(index: number): void {
    const descriptors: number[] = [];
    for (const step of plan.slice(index + 1)) {
      if (isInit(step)) break;
      const slot = filledSlot(step);
      const fd = slot === undefined ? undefined : context.slots.get(slot);
      if (fd !== undefined) descriptors.push(fd);
    }
    if (init?.go(index, descriptors) !== true) hear(plan.length + 1);
  }
}

/** Which step refuses by which code what is there already, and in use. */
const TAKEN: ReadonlySet<string> = new Set(["makeCgroup EBUSY", `startUnit ${UNIT_EXISTS}`]);

const NEEDS_NAMESPACES_ONLY: ReadonlySet<string> = new Set(["makeEndpoint", "publishPorts"]);

/**
 * Takes back, in reverse, what the host steps of a plan did; can be repeated. Each is tried, whatever the others come to.
 * @param deadline for processes to end that are killed for it: one for all steps
 * @returns what went wrong
 */
export function undo(plan: Plan, context: HostContext, deadline = endDeadline()): unknown[] {
  const failures = tryAll(
    [...plan.entries()].reverse().map(([index, step]) => () => {
      if (isInit(step)) return;
      addon().traceStep(index, true);
      undoHostStep(step, context, deadline);
    }),
  );
  addon().traceStep(-1);
  return failures;
}

/** Where a plan starts init. */
function startOf(plan: Plan): number {
  return plan.findIndex(({ name }) => name === "startInit");
}

/** What the kernel refuses to execute is looked at: the first candidate that is there. */
export function diagnosed(error: unknown, root: number | undefined, plan: Plan): unknown {
  if (!(error instanceof ContainerError) || error.step !== "execute" || root === undefined) return error;
  const found = plan.find((step) => step.name === "findExecutable");
  const candidates = found?.name === "findExecutable" ? found.args.candidates : [];
  for (const path of candidates) {
    const hint = diagnoseExecutable(root, path);
    if (hint !== undefined) return new ContainerError({ ...error, message: error.message, hint, cause: error.cause });
  }
  return error;
}

/** The listener of init's filter travels with the word that it waits. */
export function takeListener(step: Step, said: Said, { slots }: HostContext): void {
  if (step.name === "offerListener" && said.kind === "waits" && said.descriptor !== undefined)
    slots.set(step.args.listener, said.descriptor);
}

/** The error for an init that was to say something, and is gone. */
export function unexpectedEnd(step: Step | undefined, index: number): ContainerError {
  const message = "init ended before its plan did";
  if (step?.name !== "offerListener") return new ContainerError({ message, code: "ECHILD" });
  return new ContainerError({
    message,
    code: "ECHILD",
    step: step.name,
    index,
    from: step.from,
    hint: "a filter with SCMP_ACT_NOTIFY must allow sendmsg and recvmsg: by them its listener is handed over",
  });
}

/** Carries out a host step, on the record. @throws ContainerError that knows the step */
export function attempt(step: Step, index: number, work: () => void): void {
  addon().traceStep(index);
  try {
    work();
  } catch (error) {
    if (!(error instanceof ContainerError) || error.step !== undefined) throw error;
    throw new ContainerError({
      ...error,
      message: error.errno === undefined ? error.message : `cannot carry out: ${says(step)}`,
      step: step.name,
      index,
      from: step.from,
      hint: error.hint ?? hintFor(error.code ?? "", step, []),
      cause: error,
    });
  } finally {
    addon().traceStep(-1);
  }
}

/** The error for a step of init's that the kernel refused. */
export function stepError(plan: Plan, index: number, errno: number): ContainerError {
  const step = plan[index];
  const code = errnoName(errno);
  if (step === undefined) return new ContainerError({ message: `init failed: ${code}`, code, errno, index });
  return new ContainerError({
    message: `cannot carry out: ${says(step)}`,
    code,
    errno,
    ...pathsOf(step),
    step: step.name,
    index,
    from: step.from,
    hint: hintFor(code, step, plan),
  });
}

/** What the step was about, as Node's system errors say it. */
function pathsOf(step: Step): { path?: string; dest?: string | undefined } {
  if (step.name === "findExecutable") return { path: step.args.name, dest: step.args.candidates[0] };
  if (step.name === "execute") return { path: step.args.arguments[0] ?? "" };
  const path: unknown = Reflect.get(step.args, "path") ?? Reflect.get(step.args, "target");
  return typeof path === "string" ? { path } : {};
}
