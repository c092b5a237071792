import { attend, takeTerminal } from "../../container/foreground.ts";
import { CREATION_FLAGS, createFromBundle, joinCallersTrace } from "./creation.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

const FLAGS = {
  ...CREATION_FLAGS,
  detach: { kind: "boolean", short: "d", help: "detach from the container's process" },
  keep: { kind: "boolean", help: "do not delete the container after it exits" },
  "no-subreaper": { kind: "boolean", help: "accepted for runc's sake: this runtime is never a subreaper" },
} as const;

export const run: Command = {
  usage: "[command options] <container-id>",
  flags: FLAGS,
  words: [1, 1],
  async run(words, globals) {
    const { flags, rest } = parseFlags(FLAGS, words);
    let master: number | undefined;
    const { container, process, signals, notify } = await createFromBundle(rest[0], flags, globals, {
      start: "now",
      ...(flags.detach ? {} : { console: "creator" as const }),
      takeTerminal: (socket) => {
        master = takeTerminal(socket);
      },
    });
    await joinCallersTrace(`${globals.root}/${container.id}`);
    if (flags.detach) {
      notify?.await(process.pidfd, process.pid);
      return 0;
    }
    const { status } = attend(process, signals, master, notify);
    if (!flags.keep) container.delete({ force: true, warn: globals.warn });
    return status;
  },
};
