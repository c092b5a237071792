import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { ABSENT, FLAWS, type Flaw, type Shown } from "./flaws.ts";

const PROJECT = resolve(import.meta.dirname, "../..");
const textOf = (file: string) => readFileSync(resolve(PROJECT, file), "utf8");

test("every flaw has a test that fails in a weakened build, or a reason why none can", () => {
  for (const { flaw, tests = [], weakened = [], reason } of FLAWS) {
    expect(tests.length + weakened.length, flaw).toBeGreaterThan(0);
    expect(weakened.length === 0, flaw).toBe(reason !== undefined);
    for (const { fails } of weakened) expect(fails, flaw).not.toEqual([]);
  }
});

test("what is taken out of the sources is there, once", () => {
  for (const { file, from, to } of FLAWS.flatMap(({ weakened = [] }) => weakened).flatMap(({ changes }) => changes)) {
    expect(textOf(file).split(from).length - 1, `${file}: ${from}`).toBe(1);
    expect(to).not.toBe(from);
  }
});

test("the tests that are named are there, and the lines at which they fail", () => {
  for (const { tests = [], weakened = [] } of FLAWS) {
    for (const { file, title } of tests) expect(textOf(`test/${file}`), file).toContain(title);
    for (const { file, title, at } of weakened.flatMap(({ fails }) => fails)) {
      const text = textOf(`test/${file}`);
      expect(text, file).toContain(title);
      expect(text, file).toContain(at);
    }
  }
});

test("the table is up to date: npm run generate", async () => {
  await expect(table()).toMatchFileSnapshot("README.md");
});

function table(): string {
  return `${[
    "# Attacks, and how each test was seen to fail",
    "Made from [flaws.ts](flaws.ts): do not edit it, but run `npm run generate`.",
    "A test of an attack shows something only if the attack succeeds where the defence is missing. `npm run test:weakened`\ntakes each defence out of a copy of the sources, one at a time, builds that, and runs the tests: every one must fail,\nand at the line that is about the attack. In the project as it is they all pass.",
    [
      "| flaw | a build without the defence: | where this fails | also shown by |",
      "| ---- | ---------------------------- | ---------------- | ------------- |",
      ...FLAWS.flatMap(rowsOf),
    ].join("\n"),
    ABSENT,
  ].join("\n\n")}\n`;
}

function rowsOf({ flaw, tests = [], weakened = [], reason }: Flaw): string[] {
  const also = tests.map(linkTo).join("<br>");
  if (weakened.length === 0) return [`| ${flaw} | none: ${reason} | | ${also} |`];
  return weakened.map(
    ({ by, fails }, i) =>
      `| ${i === 0 ? flaw : ""} | ${by} | ${fails.map(linkTo).join("<br>")} | ${i === 0 ? also : ""} |`,
  );
}

function linkTo({ file, title }: Shown): string {
  return `[${title}](../${file})`;
}
