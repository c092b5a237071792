import { Signals } from "../../execute/signals.ts";
import { close, O, open } from "../../kernel/file.ts";
import { call } from "../../kernel/syscall.ts";
import { isTerminal } from "../../kernel/terminal.ts";
import { addContainerOptions, type ContainerOptions, describeContainer } from "./container-options.ts";
import type { Define } from "./engine.ts";
import { type Lines, linesOf, linesOfTerminal } from "./lines.ts";
import { complete, Session } from "./step-session.ts";

export const defineStep: Define = (program, { engine, exit }) => {
  addContainerOptions(program.command("step"))
    .description("make a container step by step: halt between two steps, and look at what is there of it")
    .option("--command <file>", "read commands from a file; without it, from standard input")
    .argument("[image]", "name or id of an image, an archive, or a layout directory")
    .argument("[command...]", "what to run instead of the image's command")
    .passThroughOptions()
    .helpOption("--help", "show help")
    .addHelpText(
      "after",
      "\nAt a terminal it asks, and help lists what can be said. The container is removed when it ends, and undone when" +
        "\nthe debugger is left before. The exit status is that of the container's program, 0 if it never ran.",
    )
    .action(async (image: string | undefined, command: string[], options: ContainerOptions & { command?: string }) => {
      const described = await describeContainer(engine(), options, image === undefined ? [] : [image, ...command]);
      const container = { ...described, hostConfig: { ...described.hostConfig, AutoRemove: true } };
      const signals = new Signals();
      const lines = commandsOf(options.command, signals);
      const nothing = open("/dev/null", O.RDWR);
      const input = options.interactive === true && options.command !== undefined ? 0 : nothing;
      const session = new Session(engine(), container, lines, { input, signals });
      try {
        await session.run();
      } finally {
        lines.close();
        close(nothing);
      }
      exit(session.status);
    });
};

const F_DUPFD_CLOEXEC = 1030;

function commandsOf(file: string | undefined, signals: Signals): Lines {
  if (file !== undefined) return linesOf(open(file, O.RDONLY), signals);
  if (isTerminal(0)) return linesOfTerminal(complete, signals);
  // the container's program must not read what is meant for us
  const commands = call("fcntl", 0, F_DUPFD_CLOEXEC, 3);
  const nothing = open("/dev/null", O.RDWR);
  call("dup3", nothing, 0, 0);
  close(nothing);
  return linesOf(commands, signals);
}
