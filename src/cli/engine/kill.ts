import { parseSignal } from "../../linux/signals.ts";
import { print } from "../print.ts";
import type { Define } from "./engine.ts";

export const defineKill: Define = (program, { engine }) => {
  program
    .command("kill")
    .description("send a signal to containers")
    .option("-s, --signal <signal>", "name or number", "KILL")
    .argument("<container...>")
    .action((names: string[], { signal }: { signal: string }) => {
      for (const name of names) {
        engine().running(engine().containers.find(name)).kill(parseSignal(signal));
        print(name);
      }
    });
};
