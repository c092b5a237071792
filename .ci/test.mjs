// npm test: sets up, checks, and runs the suites; the total is printed, and kept in dist/test/total for .ci/run.
// On Node, which takes ten times as long to start as the executable, the integration tests are those of the process, the
// namespaces, the mounts, the root and the engine's run; with --node, all. With --clients it installs podman, containerd,
// docker and buildah as well, and has them drive the runtime. With --guests it starts emulated machines with pure cgroup
// v2, too.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { runSuites } from "../test/vm/suites.mjs";
import { lint } from "./lint.mjs";
import { setUp } from "./setup.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const results = join(root, "dist/test");

/** What drives the program as a whole: the runtime, and the engine. */
const INTEGRATION = ["test/integration/", "test/engine/"];
const ON_BOTH = [
  ...["process", "namespaces", "mounts", "rootfs"].map((name) => `test/integration/${name}.test.ts`),
  "test/engine/run.test.ts",
];
const CLIENTS = ["test/clients/"];

/** Suites in their order; the integration tests run on both builds. */
const SUITES = {
  unit: { args: [...INTEGRATION, ...CLIENTS, "test/native/"].map((directory) => `--exclude=${directory}**`) },
  "integration (executable)": { args: INTEGRATION, env: { CAISSON_BIN: undefined } },
  "integration (Node)": {
    args: process.argv.includes("--node") ? INTEGRATION : ON_BOTH,
    env: { CAISSON_BIN: "node" },
  },
  native: { args: ["test/native/"] },
  ...(process.argv.includes("--clients")
    ? {
        "clients (executable)": { args: CLIENTS, env: { CAISSON_BIN: undefined } },
        "clients (Node)": { args: CLIENTS, env: { CAISSON_BIN: "node" } },
      }
    : {}),
};

/** Runs one suite. What vitest itself fails at, apart from the tests, is a failure as well. */
function runSuite(name, { args, env }) {
  const report = join(results, `${name.replace(/\W+/g, "-")}.json`);
  const { status } = spawnSync(
    join(root, "node_modules/.bin/vitest"),
    ["run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`, ...args],
    { cwd: root, stdio: "inherit", env: { ...process.env, ...env } },
  );
  const outcome = readReport(report);
  if (status !== 0 && outcome.failures.length === 0) outcome.failures.push(`vitest ended with ${status}`);
  return outcome;
}

/** Vitest's own report: how many tests passed, and the others with why. That there is no report is a failure. */
function readReport(report) {
  try {
    const { numPassedTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
    return { passed: numPassedTests, failures: testResults.flatMap(failuresOf) };
  } catch (error) {
    return { passed: 0, failures: [`there is no report: ${error.message}`] };
  }
}

/** The failed tests of a file; one that cannot be loaded has no tests, and is a failure itself. */
function failuresOf({ name, status, message, assertionResults }) {
  const file = relative(root, name);
  const failed = assertionResults.filter((test) => test.status === "failed");
  if (status === "failed" && failed.length === 0) return [`${file}\n${message}`];
  return failed.map(({ fullName, failureMessages }) => `${file} > ${fullName}\n${failureMessages.join("\n")}`);
}

rmSync(results, { recursive: true, force: true });
await setUp({ clients: process.argv.includes("--clients") });
mkdirSync(results, { recursive: true });

const outcomes = { lint: lint() };
for (const [name, suite] of Object.entries(SUITES)) {
  console.log(`\n${name}`);
  outcomes[name] = runSuite(name, suite);
}
if (process.argv.includes("--guests"))
  for (const [name, report] of Object.entries(await runSuites())) outcomes[name] = readReport(report);

// told again at the end: of a log of thousands of lines, that is what is read, and kept
for (const [name, { failures }] of Object.entries(outcomes))
  for (const failure of failures) console.log(`\nFAILED ${name}: ${failure}`);
console.log("");
for (const [name, { passed, failures }] of Object.entries(outcomes))
  console.log(`${name.padEnd(26)} ${passed} passed, ${failures.length} failed`);
const passed = Object.values(outcomes).reduce((sum, outcome) => sum + outcome.passed, 0);
const failed = Object.values(outcomes).reduce((sum, outcome) => sum + outcome.failures.length, 0);
const total = `${passed} passed, ${failed} failed`;
console.log(total);
writeFileSync(join(results, "total"), `${total}\n`);
process.exitCode = failed === 0 ? 0 : 1;
