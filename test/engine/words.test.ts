import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { engineCommand } from "../support/engine.ts";

// Which word is the command: not every word that is called like one.

let directory = "";
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "caisson-words-"));
});
afterAll(() => rmSync(directory, { recursive: true }));

function caisson(...words: string[]): { status: number | null; stdout: string; stderr: string } {
  const [command = "", ...rest] = engineCommand();
  return spawnSync(command, [...rest, ...words], { cwd: directory, encoding: "utf8" });
}

test.each([
  ["--root", "run", "--data", "exec", "ps"],
  ["--data=exec", "--root=run", "ps"],
])("directories may be called like commands: %s %s", (...words) => {
  const { status, stdout, stderr } = caisson(...words);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toMatch(/^CONTAINER|^ID|^NAME/);
});

test("an unknown command is refused, also before a known one, and help has them all", () => {
  for (const words of [["nonesuch"], ["nonesuch", "ps"], ["--data", "ps", "nonesuch"]]) {
    const { status, stderr } = caisson(...words);
    expect(status).toBe(125);
    expect(stderr).toContain("unknown command 'nonesuch'");
  }
  for (const words of [["--help"], ["help"], []])
    expect(caisson(...words).stderr + caisson(...words).stdout).toMatch(/ ps .* rm /s);
});
