import { CREATION_FLAGS, createFromBundle, joinCallersTrace } from "./creation.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

export const create: Command = {
  usage: "[command options] <container-id>",
  flags: CREATION_FLAGS,
  words: [1, 1],
  async run(words, globals) {
    const { flags, rest } = parseFlags(CREATION_FLAGS, words);
    const { container } = await createFromBundle(rest[0], flags, globals, { start: "later" });
    await joinCallersTrace(`${globals.root}/${container.id}`);
    return 0;
  },
};
