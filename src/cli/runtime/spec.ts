import { existsSync, writeFileSync } from "node:fs";
import { ContainerError } from "../../error.ts";
import { template } from "../../spec/template.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

const { getgid, getuid } = process;

const FLAGS = {
  bundle: { kind: "string", short: "b", help: "path to the root of the bundle directory" },
  rootless: { kind: "boolean", help: "generate a configuration for a rootless container" },
} as const;

export const spec: Command = {
  usage: "[command options]",
  flags: FLAGS,
  words: [0, 0],
  run(words) {
    const { flags } = parseFlags(FLAGS, words);
    const path = `${flags.bundle ?? "."}/config.json`;
    if (existsSync(path))
      throw new ContainerError({ message: `File config.json exists. Remove it first`, code: "EEXIST", path });
    writeFileSync(
      path,
      `${JSON.stringify(template(flags.rootless ? { rootless: { uid: getuid?.() ?? 0, gid: getgid?.() ?? 0 } } : {}), undefined, "\t")}\n`,
      { mode: 0o666 },
    );
    return 0;
  },
};
