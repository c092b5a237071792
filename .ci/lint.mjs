// npm run lint: every convention that a program can check. Each check runs, even when an earlier one has failed.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const bin = (name) => join(root, "node_modules/.bin", name);

/** Files of C and C++ below these directories; steps.def is made by a program. */
export function nativeFiles(directories = ["native", "rootfs-fixtures/probe", "test"], pattern = /\.(c|h|cc)$/) {
  return directories.flatMap((directory) =>
    readdirSync(join(root, directory), { recursive: true })
      .filter((name) => pattern.test(name))
      .map((name) => join(directory, name))
      .sort(),
  );
}

const WARNINGS = "-Wall -Wextra -Wconversion -Wshadow -Wswitch-enum -Wvla -Werror".split(" ");
const INIT = ["-std=gnu17", "-ffreestanding"];
const MONITOR = ["-std=c17"];
const programs = [
  { files: nativeFiles(["native/init"], /\.c$/), flags: INIT },
  { files: nativeFiles(["native/monitor"], /\.c$/), flags: MONITOR },
];

/** What is checked: a name, and the commands that must all succeed. */
const CHECKS = {
  "TypeScript's format and rules (biome)": [[bin("biome"), "check", "--error-on-warnings"]],
  "types of src": [[bin("tsc"), "--noEmit", "-p", "."]],
  "types of test": [[bin("tsc"), "-p", "test"]],
  "steps.def is what step.ts says": [[process.execPath, ".ci/generate.mjs", "--check"]],
  "C's format (clang-format)": [["clang-format", "--dry-run", "-Werror", ...nativeFiles()]],
  "gcc's analyzer": programs.flatMap(({ files, flags }) =>
    files.map((file) => ["gcc", ...flags, "-O1", "-fanalyzer", ...WARNINGS, "-c", file, "-o", "/dev/null"]),
  ),
  "clang-tidy": programs.map(({ files, flags }) => ["clang-tidy", "--quiet", ...files, "--", ...flags]),
};

/** Runs the checks. @returns how many held, and what the others say */
export function lint() {
  let passed = 0;
  const failures = [];
  for (const [name, commands] of Object.entries(CHECKS)) {
    const said = commands.flatMap(([command, ...args]) => {
      const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: "utf8" });
      return status === 0 ? [] : [`${error?.message ?? ""}${stdout ?? ""}${stderr ?? ""}`];
    });
    console.log(`${said.length === 0 ? "ok    " : "FAILED"} ${name}`);
    for (const words of said) console.log(words);
    if (said.length === 0) passed++;
    else failures.push(`${name}\n${said.join("\n")}`);
  }
  return { passed, failures };
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href)
  process.exitCode = lint().failures.length === 0 ? 0 : 1;
