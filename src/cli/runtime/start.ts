import { Container } from "../../container/container.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";
import { describe } from "./words.ts";

export const start: Command = {
  usage: "<container-id>",
  flags: {},
  words: [1, 1],
  run(words, { root }) {
    const { rest } = parseFlags({}, words);
    const container = Container.open(root, rest[0] ?? "");
    describe(() => container.start());
    return 0;
  },
};
