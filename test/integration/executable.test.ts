import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { fixtures } from "../../rootfs-fixtures/build.mjs";
import { cleanUp, cleanUpFile, makeBundle, runtime, underNode, until } from "../support/bundle.ts";
import { Machine } from "../support/engine.ts";

const project = resolve(import.meta.dirname, "../..");
const bun = join(project, `node_modules/@oven/bun-linux-${process.arch === "arm64" ? "aarch64" : "x64"}/bin/bun`);

let machine: Machine;
beforeAll(async () => {
  machine = await Machine.make();
});
afterAll(() => {
  machine.close();
  cleanUpFile();
});
afterEach(cleanUp);

/** A directory in which everything that a JavaScript engine reads of its own accord leaves a mark beside it. */
function makeHostile(): { directory: string; sprung: () => string[] } {
  const directory = mkdtempSync(join(machine.directory, "hostile-"));
  const marks = mkdtempSync(join(machine.directory, "marks-"));
  const trap = (name: string) => `require("node:fs").writeFileSync(${JSON.stringify(join(marks, name))}, "")`;
  const files = {
    "bunfig.toml":
      'preload = ["./preload.cjs"]\n[run]\npreload = ["./preload.cjs"]\n[test]\npreload = ["./preload.cjs"]\n',
    "preload.cjs": trap("preload"),
    ".env": "CAISSON_TRAP=sprung\n",
    ".env.local": "CAISSON_TRAP=sprung\n",
    ".env.production": "CAISSON_TRAP=sprung\n",
    "tsconfig.json": JSON.stringify({ compilerOptions: { baseUrl: ".", paths: { "*": ["./mapped.cjs"] } } }),
    "mapped.cjs": trap("mapped"),
    "package.json": JSON.stringify({
      name: "caisson",
      main: "./main.cjs",
      exports: "./main.cjs",
      imports: { "#*": "./main.cjs" },
    }),
    "main.cjs": trap("main"),
    "index.js": trap("index"),
    "node_modules/commander/index.js": trap("commander"),
    "node_modules/fzstd/index.js": trap("fzstd"),
    "config.json": "{}",
    "caisson.node": "not an addon",
    init: "not a program",
  };
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(directory, name, ".."), { recursive: true });
    writeFileSync(join(directory, name), text);
  }
  return { directory, sprung: () => readdirSync(marks) };
}

/** The commands that a face's help lists below its heading. */
function listed(help: string, heading: RegExp): string[] {
  const [, list = ""] = help.split(heading);
  const names = [...(list.split(/\n\n|\n[A-Z]/)[0]?.matchAll(/^ {2,3}(\w+)/gm) ?? [])].map(([, name = ""]) => name);
  expect(names.length).toBeGreaterThan(8);
  return names.filter((name) => name !== "help");
}

/** Node reads none of those files, and takes its time to start: once a command is enough. */
function wordsOf(command: string): string[][] {
  return underNode ? [[command, "x"]] : [[command], [command, "--help"], [command, "x"]];
}

describe("among hostile files", () => {
  test("the traps work: they spring on a program that bun has compiled without our flags", () => {
    const { directory, sprung } = makeHostile();
    const program = join(machine.directory, "program");
    writeFileSync(`${program}.js`, "console.log(process.env.CAISSON_TRAP);");
    expect(spawnSync(bun, ["build", "--compile", `${program}.js`, "--outfile", program]).status).toBe(0);
    const { stdout } = spawnSync(program, [], { cwd: directory, encoding: "utf8" });
    expect(stdout).toContain("sprung");
    expect(sprung()).toEqual(["preload"]);
  });

  test("no command of the engine loads anything of them", { timeout: 120_000 }, () => {
    for (const command of listed(machine.succeeds(["--help"]), /^Commands:$/m))
      for (const words of wordsOf(command)) {
        const { directory, sprung } = makeHostile();
        machine.caisson(words, { cwd: directory });
        expect({ words, sprung: sprung() }).toEqual({ words, sprung: [] });
      }
  });

  test("no command of the runtime loads anything of them", { timeout: 120_000 }, () => {
    for (const command of listed(runtime(["--help"]).stdout, /^COMMANDS:$/m))
      for (const words of wordsOf(command)) {
        const { directory, sprung } = makeHostile();
        runtime(words, { cwd: directory });
        expect({ words, sprung: sprung() }).toEqual({ words, sprung: [] });
      }
  });

  test("a container is made from there as from anywhere, and .env adds nothing to an environment", () => {
    const { directory, sprung } = makeHostile();
    const words = ["run", "--rm", "--network", "none", "-e", "CAISSON_TRAP", "caisson/quickstart", "env"];
    expect(machine.succeeds(words, { cwd: directory })).not.toContain("CAISSON_TRAP");
    const env = { ...process.env, CAISSON_TRAP: "ours" };
    expect(machine.succeeds(words, { cwd: directory, env })).toContain("CAISSON_TRAP=ours");
    expect(sprung()).toEqual([]);
  });
});

describe.skipIf(underNode)("the executable, copied alone to another directory,", () => {
  let directory: string;
  const { CAISSON_BIN = join(project, "dist/bin/caisson") } = process.env;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "caisson-alone-"));
    copyFileSync(CAISSON_BIN, join(directory, "caisson"));
    copyFileSync(CAISSON_BIN, join(directory, "runc"));
    symlinkSync("caisson", join(directory, "other-runtime"));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  /** Runs a bundle with the copy of this name. */
  function runAlone(name: string, env: NodeJS.ProcessEnv, through: string[] = []) {
    const bundle = makeBundle((spec) => {
      spec.process.args = ["/bin/probe", "--exit", "7"];
    });
    const state = join(directory, "state");
    const words = [...through, join(directory, name), "--root", state, "run", "--bundle", bundle.path, bundle.id];
    const { status, stderr } = spawnSync(words[0] ?? "", words.slice(1), { encoding: "utf8", env });
    return { status, stderr };
  }
  const worked = { status: 7, stderr: "" };
  const environment = (directoryForFiles: string) => ({
    ...process.env,
    TMPDIR: directoryForFiles,
    BUN_TMPDIR: directoryForFiles,
  });

  test.each(["runc", "other-runtime"])("is the OCI runtime under the name %s", (name) => {
    expect(runAlone(name, process.env)).toEqual(worked);
    const { stdout } = spawnSync(join(directory, name), ["--version"], { encoding: "utf8" });
    expect(stdout).toMatch(new RegExp(`^${name} version `));
  });

  test("is the engine under its own name", () => {
    const words = ["--data", join(directory, "data"), "--root", join(directory, "run")];
    const run = (...more: string[]) => spawnSync(join(directory, "caisson"), [...words, ...more], { encoding: "utf8" });
    expect(run("load", fixtures.images.quickstart.docker)).toMatchObject({ status: 0, stderr: "" });
    const container = ["run", "--rm", "--network", "none", "caisson/quickstart", "/bin/probe", "--exit", "7"];
    expect(run(...container)).toMatchObject(worked);
    // who removes it is not the one that we have waited for
    until("the container is removed", () => run("ps", "-aq").stdout === "");
  });

  test("needs no directory for temporary files", () => {
    expect(runAlone("runc", environment("/nonexistent"))).toEqual(worked);
  });

  test("leaves nothing in one", () => {
    const temporary = mkdtempSync(join(directory, "temporary-"));
    expect(runAlone("runc", environment(temporary))).toEqual(worked);
    expect(readdirSync(temporary)).toEqual([]);
  });

  test("works where that one allows no execution", () => {
    const temporary = mkdtempSync(join(directory, "noexec-"));
    const script = `mount -t tmpfs -o noexec,nodev,nosuid tmpfs ${temporary} && exec "$@"`;
    const through = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    expect(runAlone("runc", environment(temporary), through)).toEqual(worked);
  });

  test.each([
    ["allows no execution", "mount -t tmpfs -o noexec,nodev,nosuid tmpfs /dev/shm"],
    ["is full", "mount -t tmpfs -o size=4k tmpfs /dev/shm"],
    ["cannot be written", "mount -t tmpfs -o ro tmpfs /dev/shm"],
    ["has no files without names", "mount -t proc proc /dev/shm"],
    ["is not there", "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3"],
  ])("works where the shared memory's file system %s", (_, mount) => {
    const through = ["unshare", "--mount", "--propagation", "private", "sh", "-c", `${mount} && exec "$@"`, "sh"];
    expect(runAlone("runc", process.env, through)).toEqual(worked);
  });

  test("opens no file beside itself, and none of the directory it is started in", () => {
    const { directory: hostile } = makeHostile();
    const log = join(machine.directory, "opened");
    const bundle = makeBundle((spec) => {
      spec.process.args = ["/bin/true"];
    });
    const words = ["--root", join(directory, "state"), "run", "--bundle", bundle.path, bundle.id];
    const strace = [
      "-f",
      "-qq",
      "-e",
      "trace=open,openat,openat2,execve,execveat",
      "-o",
      log,
      join(directory, "runc"),
      ...words,
    ];
    expect(spawnSync("strace", strace, { cwd: hostile, encoding: "utf8" })).toMatchObject({ status: 0, stderr: "" });
    const opened = [...readFileSync(log, "utf8").matchAll(/(?:open|exec)\w*\([^"\n]*"([^"]+)"/g)].map(
      ([, path = ""]) => path,
    );
    expect(opened.length).toBeGreaterThan(10);
    const beside = opened.filter((path) => resolve(hostile, path).startsWith(`${directory}/`));
    expect(
      beside.filter((path) => !path.startsWith(join(directory, "state")) && path !== join(directory, "runc")),
    ).toEqual([]);
    expect(opened.filter((path) => path.startsWith(hostile))).toEqual([]);
  });
});
