import type { ContainerJson } from "../../engine/config.ts";
import type { Engine } from "../../engine/engine.ts";
import { ContainerError } from "../../error.ts";
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
          const container = find(engine(), name, force);
          if (container === undefined) return;
          engine().remove(container, { force, volumes, waiting, ...(watched && { watch: watched.look }) });
          print(name);
        }),
      );
      watched?.show();
      await watched?.send();
    });
};

/** By force also what is not there: then that is said, and no failure. */
function find(engine: Engine, name: string, force: boolean): ContainerJson | undefined {
  try {
    return engine.containers.find(name);
  } catch (error) {
    if (!force || !(error instanceof ContainerError && error.code === "ENOENT")) throw error;
    say(error.message);
    return;
  }
}
