import { parseSignal } from "../../linux/signals.ts";
import { print } from "../print.ts";
import { forEachName } from "./each.ts";
import type { Define } from "./engine.ts";

export const defineKill: Define = (program, { engine, exit }) => {
  program
    .command("kill")
    .description("send a signal to containers")
    .option("-s, --signal <signal>", "name or number", "KILL")
    .argument("<container...>")
    .action((names: string[], { signal }: { signal: string }) => {
      const number = parseSignal(signal);
      exit(
        forEachName(names, (name) => {
          engine().running(engine().containers.find(name)).kill(number);
          print(name);
        }),
      );
    });
};
