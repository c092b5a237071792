import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Machine } from "../support/engine.ts";

let machine: Machine;
let directory: string;
let env: NodeJS.ProcessEnv;

/** A directory where `caisson` is a command, and where there is a file to complete. */
beforeAll(async () => {
  machine = await Machine.make();
  directory = join(machine.directory, "completion");
  mkdirSync(join(directory, "bin"), { recursive: true });
  const program = join(directory, "bin/caisson");
  writeFileSync(program, `#!/bin/sh\nexec ${machine.commandLine([]).join(" ")} "$@"\n`);
  chmodSync(program, 0o755);
  writeFileSync(join(directory, "archive.tar"), "");
  env = { ...process.env, PATH: `${join(directory, "bin")}:${process.env.PATH}`, HOME: directory };
});
afterEach(() => machine.expectEmpty());
afterAll(() => machine.close());

/** How each shell is asked what could stand at the end of a line, by its own means. */
const ASK: { [shell: string]: (line: string) => string[] } = {
  bash: (line) => [
    "bash",
    "-c",
    `eval "$(caisson completion bash)"; COMP_LINE=$1 COMP_POINT=\${#1}; _caisson; printf "%s\\n" "\${COMPREPLY[@]}"`,
    "bash",
    line,
  ],
  // what it hands to zsh's own functions is printed instead
  zsh: (line) => [
    "zsh",
    "-fc",
    `compdef() { }
    _describe() { local -a all=("\${(@P)2}"); print -rl -- "\${(@)all/(#m)[^\\\\]:*/\${MATCH[1]}}" }
    _files() { print -rl -- *(N) }
    setopt extendedglob
    eval "$(caisson completion zsh)"
    words=("\${(@s. .)1}") CURRENT=\${#words}
    _caisson`,
    "zsh",
    line,
  ],
  fish: (line) => [
    "fish",
    "--no-config",
    "-c",
    "caisson completion fish | source; complete --do-complete $argv[1] | string replace --regex '\\t.*' ''; true",
    line,
  ],
};

describe.each(Object.keys(ASK))("in %s", (shell) => {
  function offered(line: string): string[] {
    const [program = "", ...words] = ASK[shell]?.(line) ?? [];
    const { stdout, stderr, status } = spawnSync(program, words, { cwd: directory, env, encoding: "utf8" });
    expect({ stderr, status }, line).toEqual({ stderr: "", status: 0 });
    return stdout
      .split("\n")
      .filter((word) => word !== "")
      .toSorted();
  }

  test("commands, subcommands and options", () => {
    expect(offered("caisson ")).toEqual(expect.arrayContaining(["run", "exec", "trace", "completion"]));
    expect(offered("caisson ")).not.toContain("__complete");
    expect(offered("caisson r")).toEqual(expect.arrayContaining(["run", "rm"]));
    expect(offered("caisson run --n")).toEqual(["--name", "--network"]);
    expect(offered("caisson --data /elsewhere imag")).toEqual(["images"]);
    expect(offered("caisson completion ")).toEqual(["bash", "fish", "zsh"]);
    expect(offered("caisson learn p")).toEqual(["pivot-root", "processes", "propagation"]);
  });

  test("what an option takes", () => {
    expect(offered("caisson run --cap-add NET_B")).toEqual(["NET_BIND_SERVICE", "NET_BROADCAST"]);
    expect(offered("caisson run --network h")).toEqual(["host"]);
    expect(offered("caisson stop --time ")).toEqual([]);
  });

  test("containers, images and files, as they are now", () => {
    machine.succeeds(["run", "-d", "--name", "web-server", "caisson/quickstart", "sleep", "60"]);
    expect(offered("caisson stop we")).toEqual(["web-server"]);
    expect(offered("caisson trace diff we")).toEqual(["web-server"]);
    expect(offered("caisson run --network container:we").join()).toContain("web-server");
    machine.succeeds(["rm", "-f", "web-server"]);
    expect(offered("caisson stop we")).toEqual([]);
    expect(offered("caisson run --rm caisson/q").join()).toContain("caisson/quickstart");
    expect(offered("caisson load ")).toContain("archive.tar");
  });

  test("what comes behind an image is another program's", () => {
    expect(offered("caisson run caisson/quickstart ls --n")).not.toContain("--name");
  });
});
