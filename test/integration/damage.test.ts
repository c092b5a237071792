import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  create,
  idle,
  kill,
  makeBundle,
  remove,
  rewrite,
  runtime,
  state,
  stateRoot,
  untilStopped,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";

// What an older build recorded, or a full disk cut off: the container must not stay for ever.

afterEach(cleanUp);
afterAll(cleanUpFile);

function fileOf({ id }: Bundle, name: string): string {
  return join(stateRoot(), id, name);
}

function expectGone(bundle: Bundle): void {
  expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
  expect(cgroupDirectories().filter((path) => path.includes(bundle.id))).toEqual([]);
}

test("a container of a build that recorded less is shown, started, killed and deleted", () => {
  const bundle = makeBundle();
  const mark = join(bundle.path, "stopped");
  rewrite(bundle, (spec) => {
    spec.process.args = ["/bin/probe", "--sleep", "60"];
    spec.hooks = { poststop: [{ path: "/bin/sh", args: ["sh", "-c", `: > ${mark}`] }] };
  });
  expect(create(bundle).status).toBe(0);
  const record = JSON.parse(readFileSync(fileOf(bundle, "state.json"), "utf8"));
  for (const field of ["steps", "promises", "resumes", "annotations", "unit"]) delete record[field];
  writeFileSync(fileOf(bundle, "state.json"), JSON.stringify(record));
  expect(state(bundle)).toMatchObject({ status: "created", pid: record.pid });
  expect(runtime(["list", "--quiet"]).stdout).toContain(bundle.id);
  expect(runtime(["start", bundle.id])).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(state(bundle).status).toBe("running");
  expect(kill(bundle, "KILL").status).toBe(0);
  untilStopped(bundle);
  expect(remove(bundle)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(existsSync(mark)).toBe(true);
  expectGone(bundle);
});

test.each([
  ["cut off", '{"version":1,"id":"'],
  ["empty", ""],
  ["of another form", '{"version":1,"pid":"7"}'],
])("a record that is %s hides no other container, and is deleted by force with what it was about", (_, text) => {
  const bundle = idle();
  const other = idle();
  const { pid } = state(bundle);
  writeFileSync(fileOf(bundle, "state.json"), text);
  for (const words of [
    ["state", bundle.id],
    ["kill", bundle.id],
    ["delete", bundle.id],
  ]) {
    const { status, stderr } = runtime(words);
    expect(status, words.join(" ")).toBe(1);
    expect(stderr).toMatch(/state\.json is damaged: delete --force/);
    expect(stderr).not.toMatch(/SyntaxError|\.ts:|\.js:/);
  }
  const listed = runtime(["list", "--format", "json"]);
  expect(listed.status).toBe(0);
  expect(JSON.parse(listed.stdout)).toMatchObject([{ id: other.id, status: "running" }]);
  expect(listed.stderr).toContain(`load container ${bundle.id}`);
  expect(runtime(["run", "--bundle", bundle.path, bundle.id]).stderr).toContain("already exists");
  expect(alive(pid)).toBe(true);
  expect(remove(bundle, "--force")).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(alive(pid)).toBe(false);
  expectGone(bundle);
});

test("where its definition is damaged it is deleted all the same, and what was not done is said", () => {
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--sleep", "60"];
    spec.hooks = { poststop: [{ path: "/bin/true" }] };
  });
  expect(create(bundle).status).toBe(0);
  writeFileSync(fileOf(bundle, "definition.json"), "{");
  const { status, stderr } = remove(bundle, "--force");
  expect(status).toBe(0);
  expect(stderr).toMatch(/level=warning .*nothing is known of the hooks.*definition\.json is damaged/);
  expectGone(bundle);
});

test("a record of a newer build is left alone", () => {
  const bundle = idle();
  const text = readFileSync(fileOf(bundle, "state.json"), "utf8");
  writeFileSync(fileOf(bundle, "state.json"), JSON.stringify({ ...JSON.parse(text), version: 2 }));
  expect(remove(bundle, "--force")).toMatchObject({ status: 1, stderr: expect.stringContaining("is of version 2") });
  writeFileSync(fileOf(bundle, "state.json"), text);
});
