import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { ROWS, type Row } from "./rows.ts";

const TESTS = resolve(import.meta.dirname, "..");

/** A test that says what it covers. */
export interface Covering {
  /** Beneath test/. */
  file: string;
  title: string;
  rows: string[];
}

/** `covers` where it may stand: first in the function of a test. */
const COVERING = /"((?:[^"\\\n]|\\.)*)",\s*(?:async )?\([^()]*\)(?:: [\w<>]+)? => \{\s*covers\(([^)]*)\);/g;
const CALL = /^\s*covers\(/gm;

/** All of them, by file. @throws Error for a file in which `covers` stands elsewhere */
export function coverings(): Covering[] {
  return readdirSync(TESTS, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".test.ts"))
    .sort()
    .flatMap((file) => coveringsIn(file, readFileSync(join(TESTS, file), "utf8")));
}

/** Those in a file's text. */
export function coveringsIn(file: string, text: string): Covering[] {
  const found = [...text.matchAll(COVERING)].map(([, title = "", rows = ""]) => ({
    file,
    title: title.replace(/\\(.)/g, "$1"),
    rows: [...rows.matchAll(/"([^"]+)"/g)].map(([, row = ""]) => row),
  }));
  if (found.length !== (text.match(CALL) ?? []).length)
    throw new Error(`${file}: covers() must be the first statement of a test with a title`);
  return found;
}

/** The table as Markdown. */
export function table(rows: Row[] = ROWS, covering: Covering[] = coverings()): string {
  const sections = [...new Set(rows.map(({ section }) => section))];
  const line = ({ id, words, reason }: Row) => {
    const tests = covering.filter((each) => each.rows.includes(id));
    const shown = tests.map(({ file, title }) => `[${escaped(title)}](../${file})`).join("<br>");
    return `| \`${id}\` | ${escaped(words)} | ${tests.length === 0 ? escaped(reason ?? "**nothing**") : shown} |`;
  };
  return `${[
    "# What the specification asks for, and which test shows it",
    "Made from [rows.ts](rows.ts) and from the tests, each of which says by `covers(…)` what it shows: do not edit it, but\nrun `npm run generate`.",
    ...sections.map((section) =>
      [
        `## ${section}\n`,
        "| row | what | shown by, or why not |",
        "| --- | ---- | -------------------- |",
        ...rows.filter((row) => row.section === section).map(line),
      ].join("\n"),
    ),
  ].join("\n\n")}\n`;
}

function escaped(text: string): string {
  return text.replace(
    /[|[\]<>]/g,
    (sign) => ({ "|": "\\|", "[": "\\[", "]": "\\]", "<": "&lt;", ">": "&gt;" })[sign] ?? sign,
  );
}
