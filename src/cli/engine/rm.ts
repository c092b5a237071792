import { print } from "../print.ts";
import type { Define } from "./engine.ts";

export const defineRm: Define = (program, { engine }) => {
  program
    .command("rm")
    .description("remove containers, with what they wrote")
    .option("-f, --force", "kill those that run")
    .option("-v, --volumes", "also the volumes that were made for them alone")
    .argument("<container...>")
    .action((names: string[], { force = false, volumes = false }: { force?: boolean; volumes?: boolean }) => {
      for (const name of names) {
        engine().remove(engine().containers.find(name), { force, volumes });
        print(name);
      }
    });
};
