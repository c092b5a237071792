// npm run test:vm: what depends on pure cgroup v2, on AppArmor or on the kernel's age, in guests made for it.
import { createWriteStream, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, join } from "node:path";
import { finished } from "node:stream/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { makeImage, missingPrograms, runInGuest, Unavailable } from "./machine.mjs";

const results = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), "dist/test");
const integration = (...names) => names.map((name) => `test/integration/${name}.test.ts`);
const own = (...names) => names.map((name) => `test/vm/${name}.test.ts`);

/** Each is one start of the guest; the longest is first. */
const SUITES = {
  "guest, Linux 6.12": {
    files: [
      ...own("cgroup", "apparmor", "rootless", "why"),
      "test/cgroup/cgroup.test.ts",
      ...integration("cgroups", "devices"),
    ],
  },
  "guest, criu": { files: own("checkpoint", "containerd") },
  "guest, systemd": { systemd: true, files: own("systemd", "rootless") },
  "guest, Linux 6.1": { kernel: "6.1", files: [...own("cgroup"), ...integration("rootfs")] },
};

/**
 * Runs every suite, each in a guest of its own, as many at a time as there are processors: a guest uses one.
 * @param only names of suites; without, all
 * @returns by name, where vitest's report is: there is none if the guest did not live to its end. A suite for which no
 * guest can be made or started is not among them, and is said to be skipped.
 */
export async function runSuites(only = []) {
  const lack = whyNone();
  if (lack !== undefined) {
    console.log(`\nSKIPPED: no test ran on pure cgroup v2: ${lack}\n`);
    return {};
  }
  mkdirSync(results, { recursive: true });
  const names = Object.keys(SUITES).filter((name) => only.length === 0 || only.includes(name));
  const waiting = [...names];
  const ran = [];
  const work = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift())
      if (await runSuite(name)) ran.push(name);
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  return Object.fromEntries(names.filter((name) => ran.includes(name)).map((name) => [name, `${kept(name)}.json`]));
}

/** Why no guest can run here, if none can: the image is made once for all of them. */
function whyNone() {
  const missing = missingPrograms();
  if (missing.length > 0) return `not installed: ${missing.join(", ")} (npm run setup)`;
  try {
    makeImage();
  } catch (error) {
    if (error instanceof Unavailable) return error.message;
    throw error;
  }
}

/** What a suite leaves behind; without the ending. */
function kept(name) {
  return join(results, name.replace(/\W+/g, "-"));
}

/** What it writes is shown when it has ended: another one may run beside it. @returns whether there was a guest */
async function runSuite(name) {
  const { kernel, systemd, files } = SUITES[name];
  const [report, log] = [`${kept(name)}.json`, `${kept(name)}.log`];
  rmSync(report, { force: true });
  const output = createWriteStream(log);
  const reporters = ["--reporter=verbose", "--reporter=json", `--outputFile.json=dist/test/${basename(report)}`];
  const began = performance.now();
  let [failure, lack] = ["", false];
  try {
    // what all files import is compiled once: emulated, that takes longer than some of them
    await runInGuest(["node_modules/.bin/vitest", "run", "--no-isolate", ...reporters, ...files], {
      ...{ results, output, systemd: systemd === true },
      ...(kernel && { kernel }),
    });
  } catch (error) {
    lack = error instanceof Unavailable;
    failure = `${lack ? "SKIPPED: no test ran here: " : ""}${error.message}\n`;
  }
  output.end();
  await finished(output);
  const minutes = ((performance.now() - began) / 60_000).toFixed(1);
  console.log(`\n${name}\n${readFileSync(log, "utf8")}${failure}${name}: ${minutes} minutes`);
  return !lack;
}

/** Whether vitest says that all is well. */
function succeeded(report) {
  return existsSync(report) && JSON.parse(readFileSync(report, "utf8")).success;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const reports = await runSuites(process.argv.slice(2));
  process.exitCode = Object.values(reports).every(succeeded) ? 0 : 1;
}
