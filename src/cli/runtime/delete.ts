import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { Container, type Deletion } from "../../container/container.ts";
import { ContainerError } from "../../error.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

const { env } = process;

const FLAGS = {
  force: { kind: "boolean", short: "f", help: "forcibly deletes the container if it is still running (uses SIGKILL)" },
} as const;

export const remove: Command = {
  usage: "[command options] <container-id>",
  flags: FLAGS,
  words: [1, 1],
  async run(words, { root, warn }) {
    const { flags, rest } = parseFlags(FLAGS, words);
    try {
      const container = Container.open(root, rest[0] ?? "");
      await traced((keep) => container.delete({ force: flags.force, warn, ...keep }));
    } catch (error) {
      // engines delete by force what may never have come to be
      if (!(flags.force && error instanceof ContainerError && error.code === "ENOENT")) throw error;
    }
    return 0;
  },
};

/** Where the caller is being traced, what is recorded of the container outlives it for as long as it takes to tell. */
async function traced(work: (keep: Pick<Deletion, "keep">) => void): Promise<void> {
  if (env.TRACEPARENT === undefined) return work({});
  const keep = mkdtempSync(`${tmpdir()}/caisson-`);
  try {
    work({ keep });
    await (await import("./creation.ts")).joinCallersTrace(keep, "delete");
  } finally {
    rmSync(keep, { recursive: true, force: true });
  }
}
