// npm test: sets up, checks, and runs every suite; the total is printed, and kept in dist/test/total for .ci/run.
// With --clients it installs podman, containerd, docker and buildah as well, and has them drive the runtime. With --guests
// it starts emulated machines with pure cgroup v2, too; .ci/run does not, because the emulator stops a guest's kernel now
// and then while it patches itself (test/vm/README.md), which says nothing of Caisson.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { runSuites } from "../test/vm/suites.mjs";
import { lint } from "./lint.mjs";
import { setUp } from "./setup.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const results = join(root, "dist/test");

/** What drives the program as a whole: the runtime, and the engine. */
const INTEGRATION = ["test/integration/", "test/engine/"];
const CLIENTS = ["test/clients/"];

/** Suites in their order; the integration tests run on both builds. */
const SUITES = {
  unit: { args: [...INTEGRATION, ...CLIENTS, "test/native/"].map((directory) => `--exclude=${directory}**`) },
  "integration (executable)": { args: INTEGRATION, env: { CAISSON_BIN: undefined } },
  "integration (Node)": { args: INTEGRATION, env: { CAISSON_BIN: "node" } },
  native: { args: ["test/native/"] },
  ...(process.argv.includes("--clients")
    ? {
        "clients (executable)": { args: CLIENTS, env: { CAISSON_BIN: undefined } },
        "clients (Node)": { args: CLIENTS, env: { CAISSON_BIN: "node" } },
      }
    : {}),
};

/** Runs one suite, and counts by vitest's own report. What vitest itself fails at is one failure more. */
function runSuite(name, { args, env }) {
  const report = join(results, `${name.replace(/\W+/g, "-")}.json`);
  const { status } = spawnSync(
    join(root, "node_modules/.bin/vitest"),
    ["run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`, ...args],
    { cwd: root, stdio: "inherit", env: { ...process.env, ...env } },
  );
  const counts = countTests(name, report);
  if (status !== 0 && counts.failed === 0) counts.failed = 1;
  return counts;
}

/** Counts by vitest's own report; that there is none is one failure. */
function countTests(name, report) {
  const counts = { passed: 0, failed: 0 };
  try {
    const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
    counts.passed = numPassedTests;
    // a file that cannot be loaded has no tests to count
    const broken = testResults.filter((file) => file.status === "failed" && !hasFailedTest(file));
    counts.failed = numFailedTests + broken.length;
  } catch (error) {
    console.error(`${name}: there is no report: ${error.message}`);
    counts.failed = 1;
  }
  return counts;
}

function hasFailedTest({ assertionResults }) {
  return assertionResults.some(({ status }) => status === "failed");
}

rmSync(results, { recursive: true, force: true });
await setUp({ clients: process.argv.includes("--clients") });
mkdirSync(results, { recursive: true });

const totals = { lint: lint() };
for (const [name, suite] of Object.entries(SUITES)) {
  console.log(`\n${name}`);
  totals[name] = runSuite(name, suite);
}
if (process.argv.includes("--guests"))
  for (const [name, report] of Object.entries(await runSuites())) totals[name] = countTests(name, report);

const sum = (key) => Object.values(totals).reduce((total, counts) => total + counts[key], 0);
console.log("");
for (const [name, { passed, failed }] of Object.entries(totals))
  console.log(`${name.padEnd(26)} ${passed} passed, ${failed} failed`);
const total = `${sum("passed")} passed, ${sum("failed")} failed`;
console.log(total);
writeFileSync(join(results, "total"), `${total}\n`);
process.exitCode = sum("failed") === 0 ? 0 : 1;
