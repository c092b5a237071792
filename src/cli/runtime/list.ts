import { existsSync } from "node:fs";
import { Container } from "../../container/container.ts";
import { ContainerError } from "../../error.ts";
import { print, printJson, printTable } from "../print.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";
import { describeContainer } from "./state.ts";

const FLAGS = {
  format: { kind: "string", short: "f", help: "select one of: table or json" },
  quiet: { kind: "boolean", short: "q", help: "display only container IDs" },
} as const;

export const list: Command = {
  usage: "[command options]",
  flags: FLAGS,
  words: [0, 0],
  run(words, { root, rootGiven, warn }) {
    const { flags } = parseFlags(FLAGS, words);
    if (rootGiven && !existsSync(root))
      throw new ContainerError({ message: `open ${root}: no such file or directory`, code: "ENOENT", path: root });
    const containers = Container.list(root).flatMap((container) => {
      try {
        const described = describeContainer(container);
        return [described.owner === "" ? { ...described, owner: "root" } : described];
      } catch (error) {
        // one that nobody can read hides no other, and one that is deleted meanwhile is not there
        if (!(error instanceof ContainerError)) throw error;
        if (error.code !== "ENOENT") warn(`load container ${container.id}: ${error.message}`);
        return [];
      }
    });
    if (flags.quiet) for (const { id } of containers) print(String(id));
    else if (flags.format === "json") printJson(containers.length === 0 ? null : containers);
    else if (flags.format === undefined || flags.format === "table")
      printTable(
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"],
        containers.map(({ id, pid, status, bundle, created, owner }) =>
          [id, pid ?? 0, status, bundle, created, owner].map(String),
        ),
      );
    else throw new ContainerError({ message: "invalid format option", code: "ERR_USAGE" });
    return 0;
  },
};
