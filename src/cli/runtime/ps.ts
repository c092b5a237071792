import { spawnSync } from "node:child_process";
import { Container } from "../../container/container.ts";
import { ContainerError } from "../../error.ts";
import { print, printJson } from "../print.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

const FLAGS = {
  format: { kind: "string", short: "f", help: 'select one of: table or json (default: "table")' },
} as const;

export const ps: Command = {
  usage: "[command options] <container-id> [ps options]",
  flags: FLAGS,
  words: [1, Infinity],
  ordered: true,
  run(words, { root }) {
    const { flags, rest } = parseFlags(FLAGS, words);
    const [id = "", ...options] = rest;
    const pids = Container.open(root, id).processes();
    const format = flags.format ?? "table";
    if (format === "json") printJson(pids.length === 0 ? null : pids);
    else if (format === "table") print(tableOf(pids, options).join("\n"));
    else throw new ContainerError({ message: "invalid format option", code: "ERR_USAGE" });
    return 0;
  },
};

/** What ps(1) of the host says, with the lines that are about the container alone. */
function tableOf(pids: readonly number[], options: readonly string[]): string[] {
  const { status, signal, stdout, stderr, error } = spawnSync("ps", options.length === 0 ? ["-ef"] : options, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 1 << 28,
  });
  if (error !== undefined) throw new ContainerError({ message: `cannot run ps: ${error.message}`, cause: error });
  if (status !== 0)
    throw new ContainerError({
      message: `${status === null ? `signal: ${signal}` : `exit status ${status}`}: ${stdout}${stderr}`,
    });
  const [head = "", ...lines] = stdout.split("\n");
  const column = head.trim().split(/\s+/).indexOf("PID");
  if (column < 0) throw new ContainerError({ message: "couldn't find PID field in ps output" });
  const own = new Set(pids);
  return [head, ...lines.filter((line) => own.has(Number(line.trim().split(/\s+/)[column] || -1)))];
}
