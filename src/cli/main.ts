#!/usr/bin/env node
import { basename } from "node:path";

const { argv, argv0, exit } = process;

/**
 * The program: called caisson it is the engine, called by any other name the OCI runtime. Each command's code is loaded
 * when it is asked for.
 */
async function main(): Promise<void> {
  const name = calledAs();
  const words = argv.slice(2);
  const status =
    name === "caisson"
      ? await (await import("./engine/engine.ts")).runEngine(words)
      : await (await import("./runtime/runtime.ts")).runRuntime(words, name);
  exit(status);
}

/** The single executable keeps its name in argv[0]; Node has its script, or a link to it, in argv[1]. */
function calledAs(): string {
  const script = argv[1] ?? "";
  const name = basename(script.startsWith("/$bunfs/") ? argv0 : script);
  return /^main\.[jt]s$/.test(name) ? "caisson" : name;
}

void main();
