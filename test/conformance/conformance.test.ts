import { expect, test } from "vitest";
import { everything } from "../spec/everything.ts";
import { runtime } from "../support/bundle.ts";
import { ROWS } from "./rows.ts";
import { coverings, coveringsIn, table } from "./table.ts";

const covered = new Set(coverings().flatMap(({ rows }) => rows));

test("every row has a test, or a reason for having none", () => {
  expect(ROWS.filter(({ id, reason }) => reason === undefined && !covered.has(id)).map(({ id }) => id)).toEqual([]);
});

test("no row has a reason beside a test", () => {
  expect(ROWS.filter(({ id, reason }) => reason !== undefined && covered.has(id)).map(({ id }) => id)).toEqual([]);
});

test("the table is up to date: npm run generate", async () => {
  await expect(table()).toMatchFileSnapshot("README.md");
});

test("covers() is found in a test, and an error elsewhere", () => {
  const text =
    'test.each([1])(\n  "some \\"title\\"",\n  async ({ skip }) => {\n    covers("start", "state");\n  },\n);\n';
  expect(coveringsIn("x", text)).toEqual([{ file: "x", title: 'some "title"', rows: ["start", "state"] }]);
  expect(() => coveringsIn("x", 'test("title", () => {\n  f();\n  covers("start");\n});')).toThrow(/first statement/);
});

/** The places of all values in a document. */
function leaves(value: unknown, path: string): string[] {
  if (Array.isArray(value)) return value.flatMap((member) => leaves(member, path));
  if (typeof value !== "object" || value === null) return [path];
  return Object.entries(value).flatMap(([name, member]) => leaves(member, path === "" ? name : `${path}.${name}`));
}

test("every field that parsing knows has a row", () => {
  const fields = ROWS.map(({ id }) => id.replace(/ .*/, ""));
  const alike = [
    /^mounts\.gid/,
    /^linux\.gid/,
    /memory\.kernelTCP$/,
    /cpu\.(mems|period|realtimePeriod)$/,
    /blockIO\.leafWeight$/,
  ];
  const missing = [...new Set(leaves(everything(), ""))]
    .map((path) => path.replace(/\.(leaf)?[wW]eightDevice\..*/, ".weight").replace(/throttle\w+/, "throttle"))
    .filter((path) => !fields.some((field) => path === field || path.startsWith(`${field}.`)))
    .filter((path) => !alike.some((pattern) => pattern.test(path)));
  expect(missing).toEqual([]);
});

/** Commands whose flags are another's, too. */
const LIKE: { [command: string]: string } = { run: "create", resume: "pause", restore: "checkpoint" };

test("every command and flag that the help lists has a row", () => {
  const ids = ROWS.map(({ id }) => id);
  const has = (id: string) => ids.some((row) => row === id || row.startsWith(`${id} `));
  const words = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map(([, word = ""]) => word);
  const flags = (text: string) => words(text, /^ {3}(--[a-z-]+)/gm).filter((flag) => flag !== "--help");
  const whole = runtime(["--help"]).stdout;
  const missing = flags(whole).filter((flag) => !has(flag));
  for (const command of words(whole, /^ {3}([a-z]+) {2}/gm)) {
    const names = [command, ...(LIKE[command] === undefined ? [] : [LIKE[command]])];
    if (!names.some(has)) missing.push(command);
    for (const flag of flags(runtime([command, "--help"]).stdout))
      if (!names.some((name) => has(`${name} ${flag}`) || has(`${name} flags`))) missing.push(`${command} ${flag}`);
  }
  expect(words(whole, /^ {3}([a-z]+) {2}/gm)).toContain("create");
  expect(missing).toEqual([]);
});
