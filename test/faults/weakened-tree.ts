import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type Change, type Shown, titlesOf } from "./flaws.ts";

const PROJECT = resolve(import.meta.dirname, "../..");
/** Too much to copy, or nothing that a build needs. */
const LEFT_OUT = ["node_modules", ".git", "coverage"];

/** How a test ended in the tree. */
export interface Ending {
  file: string;
  title: string;
  status: string;
  /** The lines of the tests at which it failed. */
  lines: string[];
}

/** A copy of the project, to be changed, built and tested without anybody seeing it. */
export class WeakenedTree {
  readonly path: string;
  #originals = new Map<string, string>();

  constructor() {
    this.path = mkdtempSync(join(tmpdir(), "caisson-weakened-"));
    // the users of its containers come from anywhere
    chmodSync(this.path, 0o755);
    const names = readdirSync(PROJECT).filter((name) => !LEFT_OUT.includes(name));
    const { status, stderr } = spawnSync("cp", ["-a", ...names, this.path], { cwd: PROJECT, encoding: "utf8" });
    if (status !== 0) throw new Error(`the project cannot be copied: ${stderr}`);
    symlinkSync(join(PROJECT, "node_modules"), join(this.path, "node_modules"));
  }

  /** Takes defences out of the sources, having put back what was taken out before. */
  change(changes: readonly Change[]): void {
    for (const [file, text] of this.#originals) writeFileSync(join(this.path, file), text);
    this.#originals.clear();
    for (const { file, from, to } of changes) {
      const text = readFileSync(join(this.path, file), "utf8");
      if (!this.#originals.has(file)) this.#originals.set(file, text);
      writeFileSync(
        join(this.path, file),
        text.replace(from, () => to),
      );
    }
  }

  /** @throws Error with what the build said */
  build(): void {
    const { status, output } = this.#run([process.execPath, ".ci/build.mjs"]);
    if (status !== 0) throw new Error(`the weakened sources cannot be built: ${output}`);
  }

  /** Runs tests, and these alone. @returns how each ended, those left out not among them */
  run(shown: readonly Shown[]): Ending[] {
    const report = join(this.path, "dist/report.json");
    rmSync(report, { force: true });
    const { output } = this.#run([
      "node_modules/.bin/vitest",
      "run",
      ...["--reporter=json", `--outputFile.json=${report}`, "--testNamePattern", shown.map(titlesOf).join("|")],
      ...new Set(shown.map(({ file }) => `test/${file}`)),
    ]);
    return endingsIn(report, output, join(this.path, "test/"));
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }

  #run([command = "", ...words]: string[]): { status: number | null; output: string } {
    // what this test's own runner has set is not for the runner in there
    const kept = Object.entries(process.env).filter(
      ([name]) => !/^(VITEST|CAISSON_|NODE_|TEST|PROD|DEV|MODE)/.test(name),
    );
    const { status, stdout, stderr } = spawnSync(command, words, {
      cwd: this.path,
      encoding: "utf8",
      env: Object.fromEntries(kept),
      maxBuffer: 1 << 28,
    });
    return { status, output: `${stdout}${stderr}` };
  }
}

interface Report {
  testResults: {
    name: string;
    assertionResults: { fullName: string; status: string; failureMessages: string[] | null }[];
  }[];
}

function endingsIn(report: string, output: string, prefix: string): Ending[] {
  let parsed: Report;
  try {
    parsed = JSON.parse(readFileSync(report, "utf8"));
  } catch {
    throw new Error(`there is no report of the tests: ${output}`);
  }
  return parsed.testResults.flatMap(({ name, assertionResults }) =>
    assertionResults
      .filter(({ status }) => status === "passed" || status === "failed")
      .map(({ fullName, status, failureMessages }) => ({
        file: name.replace(prefix, ""),
        title: fullName,
        status,
        lines: linesIn((failureMessages ?? []).join("\n"), prefix),
      })),
  );
}

/** The lines of files beneath a directory that a stack leads through. */
function linesIn(stack: string, directory: string): string[] {
  return [...stack.matchAll(/\(?(\/[^\s():]+):(\d+):\d+\)?$/gm)].flatMap(([, file = "", number]) =>
    file.startsWith(directory) ? (readFileSync(file, "utf8").split("\n")[Number(number) - 1]?.trim() ?? []) : [],
  );
}
