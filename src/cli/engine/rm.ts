import { print } from "../print.ts";
import { forEachName } from "./each.ts";
import type { Define } from "./engine.ts";

export const defineRm: Define = (program, { engine, exit }) => {
  program
    .command("rm")
    .description("remove containers, with what they wrote")
    .option("-f, --force", "kill those that run")
    .option("-v, --volumes", "also the volumes that were made for them alone")
    .argument("<container...>")
    .action((names: string[], { force = false, volumes = false }: { force?: boolean; volumes?: boolean }) => {
      exit(
        forEachName(names, (name) => {
          engine().remove(engine().containers.find(name), { force, volumes });
          print(name);
        }),
      );
    });
};
