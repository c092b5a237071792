import { attend, takeTerminal } from "../../container/foreground.ts";
import { ContainerError } from "../../error.ts";
import { Signals } from "../../execute/signals.ts";
import { withoutStreams } from "../../kernel/file.ts";
import { print } from "../print.ts";
import { checkInput } from "./client.ts";
import type { Define } from "./engine.ts";
import { givenEnvironment } from "./environment.ts";
import { watch } from "./watch.ts";

const collect = (value: string, before: string[]) => [...before, value];

interface Options {
  interactive?: boolean;
  tty?: boolean;
  detach?: boolean;
  env: string[];
  envFile: string[];
  workdir?: string;
  user?: string;
  trace?: boolean;
}

export const defineExec: Define = (program, { engine, exit }) => {
  program
    .command("exec")
    .description("run a further command in a running container")
    .option("-i, --interactive", "pass standard input on")
    .option("-t, --tty", "give it a terminal")
    .option("-d, --detach", "leave it running, and print its pid")
    .option("-e, --env <name=value>", "set an environment variable; a name alone takes ours", collect, [])
    .option("--env-file <file>", "set those of a file, one a line", collect, [])
    .option("-w, --workdir <directory>", "working directory")
    .option("-u, --user <user[:group]>", "user, by name or id")
    .option("--trace", "show every step on the error stream when it has been added")
    .argument("<container>")
    .argument("<command...>")
    .passThroughOptions()
    .action(async (name: string, args: string[], options: Options) => {
      const container = engine().containers.find(name);
      const { detach = false, interactive = false, user, tty = false } = options;
      const cwd = options.workdir === "" ? undefined : options.workdir;
      if (cwd?.startsWith("/") === false)
        throw new ContainerError({
          message: `cannot use directory ${cwd}: it must be an absolute path`,
          code: "ERR_USAGE",
        });
      if (!detach) checkInput(tty && interactive);
      const env = givenEnvironment(options);
      const signals = new Signals();
      let master: number | undefined;
      const watched = await watch(engine().places, options.trace);
      const start = () => {
        const running = engine().exec(
          container,
          { args, env, tty, user, cwd },
          {
            signals,
            takeTerminal: (socket) => {
              master = takeTerminal(socket);
            },
          },
        );
        if (running.exec !== undefined) watched?.look(`${container.id}:exec-${running.exec}`);
        return running;
      };
      // who gets our input takes it from us, and who gets our output keeps our readers waiting: no process that was not meant to
      if (detach) {
        print(String(withoutStreams([0, 1, 2], start).pid));
        watched?.show();
      } else {
        const follow = () => {
          const running = start();
          watched?.show();
          return attend(running, signals, master);
        };
        exit((interactive ? follow() : withoutStreams([0], follow)).status);
      }
      await watched?.send();
    });
};
