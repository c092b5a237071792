import { InvalidArgumentError } from "commander";
import type { ContainerJson } from "../../engine/config.ts";
import type { Engine } from "../../engine/engine.ts";
import { wait } from "../../kernel/process.ts";
import { parseSignal } from "../../linux/signals.ts";
import { print } from "../print.ts";
import { forEachName } from "./each.ts";
import type { Define } from "./engine.ts";

const SIGKILL = 9;

export const defineStop: Define = (program, { engine, exit }) => {
  program
    .command("stop")
    .description("ask containers to end by their stop signal, and kill those that do not")
    .option("-t, --time <seconds>", "how long to wait before killing; -1: as long as it takes", parseSeconds, 10)
    .argument("<container...>")
    .action((names: string[], { time }: { time: number }) => {
      exit(
        forEachName(names, (name) => {
          stop(engine(), engine().containers.find(name), time < 0 ? -1 : time * 1000);
          print(name);
        }),
      );
    });
};

function parseSeconds(text: string): number {
  if (!/^-?\d{1,6}(\.\d+)?$/.test(text)) throw new InvalidArgumentError("it must be a number of seconds.");
  return Number(text);
}

function stop(engine: Engine, container: ContainerJson, timeoutMs: number): void {
  const attachment = engine.tryAttach(container, {});
  if (attachment === undefined) return;
  attachment.signal(parseSignal(container.config.StopSignal));
  const [ended] = wait([attachment.socket], timeoutMs);
  if (ended === 0) attachment.signal(SIGKILL);
  attachment.hear();
  attachment.close();
  engine.awaitEndings();
}
