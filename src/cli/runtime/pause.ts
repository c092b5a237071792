import { Container } from "../../container/container.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

export const pause: Command = {
  usage: "<container-id>",
  flags: {},
  words: [1, 1],
  run(words, { root }) {
    const { rest } = parseFlags({}, words);
    Container.open(root, rest[0] ?? "").pause();
    return 0;
  },
};

export const resume: Command = {
  usage: "<container-id>",
  flags: {},
  words: [1, 1],
  run(words, { root }) {
    const { rest } = parseFlags({}, words);
    Container.open(root, rest[0] ?? "").resume();
    return 0;
  },
};
