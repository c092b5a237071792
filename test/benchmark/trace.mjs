// npm run bench -- trace [ROUNDS]: what reports cost. A second build without them, and both in turn.
import { spawnSync } from "node:child_process";
import {
  closeSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { openProcess, reap, spawn } from "../../dist/js/kernel/process.js";
import { build, makeRoot } from "../../rootfs-fixtures/build.mjs";

const project = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const rounds = Number(process.argv[3] ?? 200);
const WITHOUT = "-DCAISSON_NO_REPORTS";
const SOURCES = ["src", "native", ".ci", "binding.gyp", "tsconfig.json", "package.json", "package-lock.json"];

const work = mkdtempSync(join(tmpdir(), "caisson-bench-"));
const nothing = openSync("/dev/null", "r+");
const environment = Object.entries(process.env).map(([name, value]) => `${name}=${value}`);

/** Runs a command to its end by vfork; its status must be 0. @returns milliseconds */
function time([program, ...args]) {
  const started = process.hrtime.bigint();
  const pidfd = openProcess(spawn(program, [program, ...args], environment, [nothing, nothing, 2]));
  const { status } = reap(pidfd);
  const took = Number(process.hrtime.bigint() - started) / 1e6;
  closeSync(pidfd);
  if (status !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${status}`);
  return took;
}

/** The same sources in another place, built without reports. @returns its runtime */
function buildWithout() {
  const place = join(work, "without");
  mkdirSync(place);
  for (const source of SOURCES) cpSync(join(project, source), join(place, source), { recursive: true });
  symlinkSync(join(project, "node_modules"), join(place, "node_modules"));
  const env = { ...process.env, CPPFLAGS: WITHOUT, CXXFLAGS: WITHOUT };
  const { status, stdout, stderr } = spawnSync(process.execPath, [".ci/build.mjs"], {
    cwd: place,
    env,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`the build without reports failed:\n${stdout}${stderr}`);
  return join(place, "dist/bin/caisson-runtime");
}

/** Reports in the trace of one run: the count in its header, native/plan/plan.h. */
function reportsOf(runtime) {
  const root = join(work, "counted");
  time([runtime, "--root", root, "run", "--bundle", bundle, "--keep", "counted"]);
  const count = Number(readFileSync(join(root, "counted/trace")).readBigUInt64LE(16));
  time([runtime, "--root", root, "delete", "counted"]);
  return count;
}

const median = (list) => [...list].sort((one, other) => one - other)[Math.floor(list.length / 2)];
const bundle = join(work, "bundle");

try {
  build(() => undefined);
  mkdirSync(bundle);
  makeRoot("minimal", join(bundle, "rootfs"));
  const withReports = join(project, "dist/bin/caisson-runtime");
  const { stdout } = spawnSync(withReports, ["spec", "--bundle", bundle], { encoding: "utf8" });
  const path = join(bundle, "config.json");
  const spec = JSON.parse(stdout.startsWith("{") ? stdout : readFileSync(path, "utf8"));
  Object.assign(spec.process, { terminal: false, args: ["/bin/true"] });
  writeFileSync(path, JSON.stringify(spec));

  const contestants = { "with reports": withReports, without: buildWithout() };
  const counts = Object.values(contestants).map(reportsOf);
  if (counts[0] < 300 || counts[1] !== 0)
    throw new Error(`there are ${counts.join(" and ")} reports: nothing to compare`);
  const times = Object.keys(contestants).map(() => []);
  for (let round = -5; round < rounds; round++)
    for (const [at, runtime] of Object.values(contestants).entries()) {
      const took = time([runtime, "--root", join(work, "run"), "run", "--bundle", bundle, `bench${round + 5}`]);
      if (round >= 0) times[at].push(took);
    }
  console.log(`caisson-runtime run of a static true, ${counts[0]} reports (${rounds} rounds)`);
  for (const [at, name] of Object.keys(contestants).entries())
    console.log(
      `  ${name.padEnd(13)} median ${median(times[at]).toFixed(2)} ms   min ${Math.min(...times[at]).toFixed(2)} ms`,
    );
  // neighbours in time: what slows the machine slows both
  const ratios = times[0].map((took, round) => took / times[1][round]);
  const percent = (ratio) => `${((ratio - 1) * 100).toFixed(1)} %`;
  console.log(
    `reports cost ${percent(median(times[0]) / median(times[1]))} of the median (median of the rounds' ratios: ${percent(median(ratios))})`,
  );
} finally {
  rmSync(work, { recursive: true, force: true });
}
