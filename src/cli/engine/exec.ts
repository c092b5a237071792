import { attend, takeTerminal } from "../../container/foreground.ts";
import { Signals } from "../../execute/signals.ts";
import { print } from "../print.ts";
import type { Define } from "./engine.ts";

interface Options {
  interactive?: boolean;
  tty?: boolean;
  detach?: boolean;
  env: string[];
  workdir?: string;
  user?: string;
}

export const defineExec: Define = (program, { engine, exit }) => {
  program
    .command("exec")
    .description("run a further command in a running container")
    .option("-i, --interactive", "accepted: standard input is passed on")
    .option("-t, --tty", "give it a terminal")
    .option("-d, --detach", "leave it running, and print its pid")
    .option(
      "-e, --env <name=value>",
      "set an environment variable",
      (value: string, before: string[]) => [...before, value],
      [],
    )
    .option("-w, --workdir <directory>", "working directory")
    .option("-u, --user <user[:group]>", "user, by name or id")
    .argument("<container>")
    .argument("<command...>")
    .passThroughOptions()
    .action((name: string, args: string[], options: Options) => {
      let master: number | undefined;
      const signals = new Signals();
      const container = engine().containers.find(name);
      const { env, workdir: cwd, user, tty = false } = options;
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
      if (options.detach === true) print(String(running.pid));
      else exit(attend(running, signals, master).status);
    });
};
