import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FLAWS, type Shown, titlesOf } from "./flaws.ts";
import { type Ending, WeakenedTree } from "./weakened-tree.ts";

// npm run test:weakened: each defence is taken out of a copy of the sources, and the tests of the flaw must fail there.

let tree: WeakenedTree;

beforeAll(() => {
  tree = new WeakenedTree();
});
afterAll(() => tree.remove());

function endingsOf(shown: Shown, endings: readonly Ending[]): Ending[] {
  const titles = new RegExp(titlesOf(shown));
  return endings.filter(({ file, title }) => file === shown.file && titles.test(title));
}

const weakened = FLAWS.flatMap(({ flaw, weakened = [] }) => weakened.map((weakening) => ({ flaw, ...weakening })));

test("as it is, every test passes", { timeout: 600_000 }, () => {
  tree.change([]);
  tree.build();
  const shown = weakened.flatMap(({ fails }) => fails);
  const endings = tree.run(shown);
  expect(endings.filter(({ status }) => status !== "passed")).toEqual([]);
  expect(shown.filter((each) => endingsOf(each, endings).length === 0)).toEqual([]);
});

describe("without a defence the test fails", () => {
  for (const { flaw, by, changes, fails } of weakened)
    test(`${flaw}: ${by}`, { timeout: 180_000 }, () => {
      tree.change(changes);
      tree.build();
      const endings = tree.run(fails);
      for (const each of fails) {
        const failed = endingsOf(each, endings).filter(({ status }) => status === "failed");
        expect(failed, `${each.file}: ${each.title}`).not.toEqual([]);
        expect(failed.flatMap(({ lines }) => lines).join("\n")).toContain(each.at);
      }
    });
});
