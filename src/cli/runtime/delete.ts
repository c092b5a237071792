import { Container } from "../../container/container.ts";
import { ContainerError } from "../../error.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

const FLAGS = {
  force: { kind: "boolean", short: "f", help: "forcibly deletes the container if it is still running (uses SIGKILL)" },
} as const;

export const remove: Command = {
  usage: "[command options] <container-id>",
  flags: FLAGS,
  words: [1, 1],
  run(words, { root, warn }) {
    const { flags, rest } = parseFlags(FLAGS, words);
    try {
      Container.open(root, rest[0] ?? "").delete({ force: flags.force, warn });
    } catch (error) {
      // engines delete by force what may never have come to be
      if (!(flags.force && error instanceof ContainerError && error.code === "ENOENT")) throw error;
    }
    return 0;
  },
};
