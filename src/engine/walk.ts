import { abandonment, type Start } from "../container/container.ts";
import { ContainerError } from "../error.ts";
import type { Halt } from "../execute/execute.ts";
import { detectHost } from "../host/host.ts";
import type { CgroupLayout } from "../plan/cgroup-layout.ts";
import type { Plan } from "../plan/step.ts";
import { leftOut, placesOf } from "../plan/stepwise.ts";
import { type Change, changes, type Still } from "../verify/area.ts";
import { lookAround, lookAt } from "../verify/still.ts";
import type { ContainerJson } from "./config.ts";
import type { Engine, Stepped } from "./engine.ts";

const { pid: ours } = process;

/** Where a walk stands. */
export type Standing =
  /** Before the step `at`; what was seen changed in this way since the walk stood last. */
  | { kind: "halts"; changes: readonly Change[] }
  /** The last step is done: the container's program runs. */
  | { kind: "runs"; process: Stepped }
  /** Nothing is left of the container. */
  | { kind: "over" };

/**
 * The making of a container, step by step. Steps are named by their places in the plan as it is without stepping, which
 * are those that explain prints.
 */
export class Walk {
  /** The whole plan, with what is left out. */
  plan: Plan = [];
  /** Place of the step that comes next; the plan's length once there is none. */
  at = 0;
  /** What is seen where it stands, and what was seen where it stood last. */
  still: Still;
  before: Still;
  #places: readonly number[] = [];
  #without: readonly number[] = [];
  #steps: Generator<Halt, Stepped, void> | undefined;
  #halt: Halt | undefined;
  readonly #nothing: Still;
  readonly #layout: CgroupLayout;
  readonly #engine: Engine;
  readonly #container: ContainerJson;
  readonly #start: Pick<Start, "launcher" | "takeTerminal">;

  constructor(engine: Engine, container: ContainerJson, start: Pick<Start, "launcher" | "takeTerminal">) {
    this.#engine = engine;
    this.#container = container;
    this.#start = start;
    this.#layout = detectHost().cgroups;
    this.#nothing = { maker: lookAt(ours, this.#layout), directories: [], written: new Map(), devices: [] };
    this.still = this.#nothing;
    this.before = this.#nothing;
  }

  /** Begins, and halts before the first step; what was begun before is undone. @throws ContainerError */
  begin(without: readonly number[] = []): Standing {
    this.abandon();
    this.at = 0;
    this.still = this.#nothing;
    this.#without = without;
    this.#steps = this.#engine.step(this.#container, { without }, this.#start);
    return this.go(() => true);
  }

  /** Whether there is something of the container that could go on, or be looked at. */
  get halts(): boolean {
    return this.#halt !== undefined;
  }

  /** The places of the steps that are not carried out. */
  get without(): ReadonlySet<number> {
    return leftOut(this.plan, this.#without);
  }

  /** What has changed where it stands, because somebody was there. */
  lookAgain(): readonly Change[] {
    const before = this.still;
    this.still = lookAround(this.plan, this.pid, this.#layout, this.#nothing.maker);
    return changes(before, this.still);
  }

  /** The container's process to be; undefined before there is one. */
  get pid(): number | undefined {
    return this.#halt?.pid;
  }

  /** Where the step that was carried out last is in the plan that is carried out, as the trace counts. */
  get done(): number | undefined {
    const index = this.#halt?.index ?? 0;
    const before = this.#halt?.plan.findLastIndex(({ name }, at) => at < index && name !== "standStill") ?? -1;
    return before < 0 ? undefined : before;
  }

  /** The place of a step of the plan that is carried out. */
  placeOf(index: number): number {
    return this.#places[index] ?? this.plan.length;
  }

  /**
   * Goes on until it comes to a step at which it is to halt, or the container's program runs.
   * @throws ContainerError of the step that failed; everything has been undone then
   */
  go(isWanted: (place: number) => boolean): Standing {
    const steps = this.#steps;
    if (steps === undefined) return { kind: "over" };
    try {
      for (;;) {
        const { done, value } = steps.next();
        if (done === true) {
          this.#end();
          return { kind: "runs", process: value };
        }
        this.#halt = value;
        if (this.plan.length === 0) this.plan = value.plan.filter(({ name }) => name !== "standStill");
        if (this.#places.length === 0) this.#places = placesOf(this.plan, { without: this.#without });
        this.at = this.placeOf(value.index);
        if (isWanted(this.at)) break;
      }
    } catch (error) {
      const failed = this.#renumbered(error);
      this.#end();
      throw failed;
    }
    this.before = this.still;
    this.still = lookAround(this.plan, this.pid, this.#layout, this.#nothing.maker);
    return { kind: "halts", changes: changes(this.before, this.still) };
  }

  /** Undoes what has been done. Can be repeated. */
  abandon(): void {
    const steps = this.#steps;
    this.#end();
    if (steps === undefined) return;
    const reason = abandonment();
    try {
      steps.throw(reason);
    } catch (error) {
      if (error !== reason) throw error;
    }
  }

  #end(): void {
    this.#steps = undefined;
    this.#halt = undefined;
    this.#places = [];
    this.at = this.plan.length;
  }

  /** What failed, by the place that people know its step by. */
  #renumbered(error: unknown): unknown {
    if (!(error instanceof ContainerError) || error.index === undefined) return error;
    return new ContainerError({
      ...error,
      message: error.message,
      index: this.placeOf(error.index),
      cause: error.cause,
    });
  }
}
