import { Container } from "../../container/container.ts";
import { parseSignal } from "../../linux/signals.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

const FLAGS = {
  all: { kind: "boolean", short: "a", help: "(obsoleted) send the signal to all processes inside the container" },
} as const;

export const kill: Command = {
  usage: "[command options] <container-id> [signal]",
  flags: FLAGS,
  run(words, { root }) {
    const { rest } = parseFlags(FLAGS, words);
    Container.open(root, rest[0] ?? "").kill(parseSignal(rest[1] ?? "SIGTERM"));
    return 0;
  },
};
