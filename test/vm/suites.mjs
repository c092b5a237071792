// npm run test:vm: what depends on pure cgroup v2, on AppArmor or on the kernel's age, in guests made for it.
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { missingPrograms, runInGuest } from "./machine.mjs";

const results = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), "dist/test");
const integration = (...names) => names.map((name) => `test/integration/${name}.test.ts`);
const own = (...names) => names.map((name) => `test/vm/${name}.test.ts`);

/** Each is one start of the guest. */
const SUITES = {
  "guest, Linux 6.12": {
    files: [
      ...own("cgroup", "apparmor", "rootless", "why"),
      "test/cgroup/",
      ...integration("cgroups", "lifecycle", "devices", "mounts", "comparison"),
    ],
  },
  "guest, systemd": { systemd: true, files: own("systemd", "rootless") },
  "guest, Linux 6.1": { kernel: "6.1", files: [...own("cgroup"), ...integration("cgroups", "rootfs")] },
};

/**
 * Runs every suite, each in a guest of its own.
 * @param only names of suites; without, all
 * @returns by name, where vitest's report is: there is none if the guest did not live to its end
 */
export async function runSuites(only = []) {
  const missing = missingPrograms();
  if (missing.length > 0) {
    console.log(`\nSKIPPED: no test ran on pure cgroup v2: not installed: ${missing.join(", ")} (npm run setup)\n`);
    return {};
  }
  mkdirSync(results, { recursive: true });
  const reports = {};
  for (const [name, { kernel, systemd, files }] of Object.entries(SUITES)) {
    if (only.length > 0 && !only.includes(name)) continue;
    console.log(`\n${name}`);
    const report = `${name.replace(/\W+/g, "-")}.json`;
    reports[name] = join(results, report);
    rmSync(reports[name], { force: true });
    const words = ["--reporter=verbose", "--reporter=json", `--outputFile.json=dist/test/${report}`, ...files];
    try {
      await runInGuest(["node_modules/.bin/vitest", "run", ...words], {
        results,
        systemd: systemd === true,
        ...(kernel && { kernel }),
      });
    } catch (error) {
      console.error(`${name}: ${error.message}`);
    }
  }
  return reports;
}

/** Whether vitest says that all is well. */
function succeeded(report) {
  return existsSync(report) && JSON.parse(readFileSync(report, "utf8")).success;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const reports = await runSuites(process.argv.slice(2));
  process.exitCode = Object.values(reports).every(succeeded) ? 0 : 1;
}
