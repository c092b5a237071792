import { print, say } from "../print.ts";
import { forEachName } from "./each.ts";
import type { Define } from "./engine.ts";
import { watch } from "./watch.ts";

interface Options {
  force?: boolean;
  volumes?: boolean;
  trace?: boolean;
}

export const defineRm: Define = (program, { engine, exit }) => {
  program
    .command("rm")
    .description("remove containers, with what they wrote")
    .option("-f, --force", "kill those that run")
    .option("-v, --volumes", "also the volumes that were made for them alone")
    .option("--trace", "show on the error stream how it was taken back")
    .argument("<container...>")
    .action(async (names: string[], { force = false, volumes = false, trace }: Options) => {
      const watched = await watch(engine().places, trace, "delete");
      exit(
        forEachName(names, (name) => {
          const waiting = (holder: string) => say(`waiting for ${holder}, which is at work on container ${name}`);
          const container = engine().containers.find(name);
          engine().remove(container, { force, volumes, waiting, ...(watched && { watch: watched.look }) });
          print(name);
        }),
      );
      watched?.show();
      await watched?.send();
    });
};
