import { existsSync } from "node:fs";
import { Container } from "../../container/container.ts";
import { Notify, notifyDirectory, notifyManager } from "../../container/notify.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";
import { describe } from "./words.ts";

export const start: Command = {
  usage: "<container-id>",
  flags: {},
  words: [1, 1],
  async run(words, { root }) {
    const { rest } = parseFlags({}, words);
    const container = Container.open(root, rest[0] ?? "");
    const manager = notifyManager();
    const directory = notifyDirectory(root, container.id);
    // it has one if its creator was asked to tell, too
    const notify = manager === undefined || !existsSync(directory) ? undefined : new Notify(directory, manager);
    const pidfd = notify === undefined ? undefined : container.openProcess();
    describe(() => container.start());
    if (process.env.TRACEPARENT !== undefined)
      await (await import("./creation.ts")).joinCallersTrace(`${root}/${container.id}`, "start");
    if (pidfd !== undefined) notify?.await(pidfd, container.record.pid);
    return 0;
  },
};
