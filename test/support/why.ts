import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import type { Why } from "../../src/why/why.ts";
import { type Bundle, type Edit, makeBundle, runtimeCommand } from "./bundle.ts";
import { engineCommand } from "./engine.ts";
import { PATIENCE } from "./patience.ts";

/** For a shell. */
export const quoted = (words: readonly string[]) => words.map((word) => `'${word}'`).join(" ");

/** Runs a bundle where it must fail, and asks why from the same place. */
export function whyNot(
  bundle: Bundle,
  {
    through = [],
    before = "",
    asking = "",
    flags = [],
  }: { through?: string[]; before?: string; asking?: string; flags?: string[] } = {},
): Why {
  const state = join(bundle.path, "state");
  mkdirSync(state);
  chmodSync(state, 0o777);
  const places = ["--root", state, "--data", join(bundle.path, "data")];
  const script = [
    before,
    `${asking} ${quoted([...runtimeCommand(), "--root", state, "run", ...flags, "--bundle", bundle.path, bundle.id])} >&2 && exit 99`,
    `exec ${quoted([...engineCommand(), ...places, "why", "--json", bundle.id])}`,
  ].join("\n");
  const [command = "", ...words] = [...through, "sh", "-c", script];
  const { status, stdout, stderr } = spawnSync(command, words, {
    encoding: "utf8",
    input: "",
    timeout: 60_000 * PATIENCE,
    maxBuffer: 1 << 26,
    env: { PATH: process.env.PATH, XDG_RUNTIME_DIR: state, HOME: state },
  });
  expect(status === 0 ? "" : `${status} ${stderr}${stdout}`).toBe("");
  return JSON.parse(stdout);
}

/** All that was found to be the reason. */
export const causes = ({ causes: found }: Why) => found.map(({ says }) => says).join("\n");

/** As whyNot, of a bundle that is made for it. */
export const only = (edit: Edit, how?: Parameters<typeof whyNot>[1]) => whyNot(makeBundle(edit), how);
