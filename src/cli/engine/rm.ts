import { print } from "../print.ts";
import type { Define } from "./engine.ts";

export const defineRm: Define = (program, { engine }) => {
  program
    .command("rm")
    .description("remove containers, with what they wrote")
    .option("-f, --force", "kill those that run")
    .argument("<container...>")
    .action((names: string[], { force = false }: { force?: boolean }) => {
      for (const name of names) {
        engine().remove(engine().containers.find(name), force);
        print(name);
      }
    });
};
