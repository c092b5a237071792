import { ContainerError } from "../error.ts";
import { addon } from "../kernel/addon.ts";
import { close } from "../kernel/file.ts";
import { syscallNumber } from "../kernel/syscall.ts";
import { isInit, isTurn, type Plan } from "../plan/step.ts";
import { decodeReports } from "../trace/report.ts";
import { attempt, stepError, takeListener, unexpectedEnd } from "./execute.ts";
import { type HostContext, runHostStep } from "./host.ts";
import { type Said, StartedInit } from "./init.ts";
import { readOpenTrace } from "./trace-file.ts";

export interface Resumption {
  /** Connected to the init that waits for start. */
  socket: number;
  /** Descriptor of the trace; see openTrace. */
  trace: number;
  context: HostContext;
  /** Asked for where there is something to do or to tell: it has to be compiled. */
  plan: () => Plan;
  /** Whether the host has steps to carry out after start. */
  hostSteps: boolean;
}

/** Whether start has steps of the host's to carry out, beside letting init go on. */
export function resumesWithHost(plan: Plan): boolean {
  const start = startOf(plan);
  return start >= 0 && plan.slice(start).some((step) => !isInit(step));
}

/**
 * What is left of a plan whose init waits for start, carried out by the process that starts. Returns when the last step
 * has been reached.
 * @throws ContainerError of the step that failed; what becomes of the container is the caller's to decide
 */
export function resume({ socket, trace, context, plan, hostSteps }: Resumption): void {
  const init = new StartedInit(socket);
  if (!hostSteps) {
    hearEnd();
    return;
  }
  const whole = plan();
  const start = startOf(whole);
  let turn: number | undefined;
  addon().traceTo(trace);
  try {
    for (const [index, step] of whole.entries()) {
      if (index <= start) continue;
      if (!isInit(step)) {
        attempt(step, index, () => runHostStep(step, context));
        continue;
      }
      if (turn !== undefined) init.go(turn);
      turn = undefined;
      if (isTurn(step)) {
        takeListener(step, expectTurn(index), context);
        turn = index;
      } else if (step.name === "execute") {
        hearEnd();
      }
    }
  } finally {
    addon().traceTo(-1);
    for (const fd of context.slots.values()) close(fd);
    context.slots.clear();
  }

  function expectTurn(index: number): Said {
    const said = init.listen();
    if (said.kind === "failed") throw stepError(plan(), said.step, said.errno);
    if (said.kind !== "waits" || said.step !== index) throw unexpectedEnd(plan()[index], index);
    return said;
  }

  function hearEnd(): void {
    const said = init.listen();
    if (said.kind === "failed") throw stepError(plan(), said.step, said.errno);
    if (said.kind !== "gone" || !executed(trace))
      throw new ContainerError({
        message: "the container's process was killed before it could be executed",
        code: "ECHILD",
      });
  }
}

function startOf(plan: Plan): number {
  return plan.findIndex((step) => step.name === "awaitStart");
}

/** Whether init's last call was the execve that never returned. */
function executed(trace: number): boolean {
  const last = decodeReports(readOpenTrace(trace))
    .filter(({ side }) => side === "init")
    .at(-1);
  return last !== undefined && last.result === undefined && last.nr === syscallNumber("execve");
}
