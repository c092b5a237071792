import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "../../src/spec/parse.ts";
import type { Spec } from "../../src/spec/spec.ts";
import { engineTemplate, OCI_VERSION, template } from "../../src/spec/template.ts";
import { warningsOf } from "../../src/spec/validate.ts";

const hasRunc = spawnSync("runc", ["--version"]).status === 0;
const cgroup2 = existsSync("/sys/fs/cgroup/cgroup.controllers");

function runcSpec(...options: string[]): Spec {
  const directory = mkdtempSync(join(tmpdir(), "caisson-template-"));
  try {
    expect(spawnSync("runc", ["spec", "--bundle", directory, ...options]).status).toBe(0);
    return JSON.parse(readFileSync(join(directory, "config.json"), "utf8"));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** As runc has written it since it warns of ambient capabilities that are not inheritable: without any. */
function written(...options: string[]): Spec {
  const { process: own, ...more } = runcSpec(...options);
  if (own === undefined) throw new Error("runc spec has no process");
  const { ambient: _, ...capabilities } = own.capabilities ?? {};
  return { ...more, process: { ...own, capabilities }, ociVersion: OCI_VERSION };
}

test.skipIf(!hasRunc)("the template is the one that runc writes", () => {
  expect(template({ cgroup2 })).toEqual(written());
});

test.skipIf(!hasRunc)("so is the one for a user without privileges", () => {
  const rootless = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };
  expect(template({ cgroup2, rootless })).toEqual(written("--rootless"));
});

test("the templates are sound and keep nothing in common", () => {
  const root = { path: "/" };
  for (const make of [template, engineTemplate, () => template({ rootless: { uid: 1, gid: 2 }, cgroup2: true })]) {
    const spec = make();
    expect(parse(JSON.stringify(spec))).toEqual(spec);
    expect(warningsOf(spec)).toEqual([]);
    spec.linux?.readonlyPaths?.push("/changed");
    spec.process?.capabilities?.bounding?.push("CAP_CHANGED");
    expect(JSON.stringify(make())).not.toMatch(/changed/i);
  }
  expect(() => parse(JSON.stringify({ ...template(), root }), { runnable: true })).not.toThrow();
});

test("a container of the engine gets no capability by inheritance", () => {
  const { capabilities } = engineTemplate().process ?? {};
  expect(capabilities?.inheritable ?? []).toEqual([]);
  expect(capabilities?.ambient ?? []).toEqual([]);
  expect(capabilities?.bounding).toHaveLength(14);
});
