import { Container } from "../../container/container.ts";
import { ContainerError } from "../../error.ts";
import { parseSignal } from "../../linux/signals.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

const FLAGS = {
  all: { kind: "boolean", short: "a", help: "send the signal to all processes inside the container" },
} as const;

export const kill: Command = {
  usage: "[command options] <container-id> [signal]",
  flags: FLAGS,
  words: [1, 2],
  run(words, { root }) {
    const { flags, rest } = parseFlags(FLAGS, words);
    const container = Container.open(root, rest[0] ?? "");
    const number = parseSignal(rest[1] ?? "SIGTERM");
    try {
      container.kill(number, { all: flags.all });
    } catch (error) {
      // who asks for all wants nobody left: nobody is there
      if (!(flags.all && error instanceof ContainerError && error.code === "ERR_STATUS")) throw error;
    }
    return 0;
  },
};
