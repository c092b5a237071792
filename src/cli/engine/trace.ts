import type { ContainerJson } from "../../engine/config.ts";
import type { Engine } from "../../engine/engine.ts";
import { join } from "../../trace/join.ts";
import { renderTrace, traceJson } from "../../trace/render.ts";
import { printRaw, say } from "../print.ts";
import type { Define } from "./engine.ts";

export const defineTrace: Define = (program, { engine }) => {
  program
    .command("trace")
    .description("show how a container was made: every step, its system calls, their results and times")
    .option("--json", "one JSON object a step")
    .option("--verbose", "with every system call")
    .argument("<container>")
    .action((name: string, { json, verbose }: { json?: boolean; verbose?: boolean }) => {
      const { plan, reports } = engine().trace(engine().containers.find(name));
      const traced = join(plan, reports);
      printRaw(json === true ? traceJson(traced) : renderTrace(traced, { verbose: verbose === true }));
    });
};

/** For run --trace: the table on the error stream. */
export function sayTrace(engine: Engine, container: ContainerJson): void {
  const { plan, reports } = engine.trace(container);
  say(renderTrace(join(plan, reports), { verbose: false }).trimEnd());
}
