import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

const project = resolve(import.meta.dirname, "../..");
const bun = join(project, `node_modules/@oven/bun-linux-${process.arch === "arm64" ? "aarch64" : "x64"}/bin/bun`);
let directory: string;

/** Somebody's project that has the package installed. */
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "caisson-package-"));
  mkdirSync(join(directory, "node_modules"));
  symlinkSync(project, join(directory, "node_modules/caisson"));
  writeFileSync(
    join(directory, "user.mts"),
    `import { compile, Container, ContainerError, type Definition, explain, type Host, parse, type Plan } from "caisson";

const host: Host = {
  machine: "x86_64",
  cgroups: { mode: "v2", hierarchies: [] },
  apparmor: false,
  selinux: false,
  lacking: [],
};
const spec = parse('{ "ociVersion": "1.3.0", "root": { "path": "r" }, "process": { "args": ["/bin/true"], "cwd": "/", "user": { "uid": 0, "gid": 0 } } }');
const definition: Definition = { id: "x", spec, bundle: "/b", start: "now", preserved: 0 };
const plan: Plan = compile(definition, host);
console.log(explain(plan).at(-1)?.says);
try {
  parse("{}");
} catch (error) {
  console.log(error instanceof ContainerError);
}
console.log(typeof Container.create, typeof Container.open, typeof Container.list);
`,
  );
  const flags = ["--module", "nodenext", "--target", "es2023", "--strict", "--skipLibCheck", "--types", "node"];
  const roots = ["--typeRoots", join(project, "node_modules/@types")];
  const ended = spawnSync(join(project, "node_modules/.bin/tsc"), [...flags, ...roots, "user.mts"], {
    cwd: directory,
    encoding: "utf8",
  });
  expect(ended).toMatchObject({ status: 0, stdout: "" });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test.each([
  ["Node", process.execPath],
  ["bun", bun],
])("the package has types, and gives parse, compile, explain, Container and ContainerError to %s", (_, program) => {
  const ended = spawnSync(program, ["user.mjs"], { cwd: directory, encoding: "utf8" });
  expect(ended).toMatchObject({
    status: 0,
    stdout: "executes /bin/true\ntrue\nfunction function function\n",
    stderr: "",
  });
});
