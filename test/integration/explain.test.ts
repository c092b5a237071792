import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import type { Note } from "../../src/plan/note.ts";
import { cleanUp, cleanUpFile, idle, makeBundle, remove, runtime, scratchDirectory, state } from "../support/bundle.ts";
import { engineCommand } from "../support/engine.ts";

/* What explain says of a bundle, beside what is so on this host. */

afterEach(cleanUp);
afterAll(cleanUpFile);

const [command = "", ...own] = engineCommand();

function explained(...words: string[]): string {
  const places = ["--root", join(scratchDirectory(), "none"), "--data", join(scratchDirectory(), "data")];
  const { status, stdout, stderr } = spawnSync(command, [...own, ...places, "explain", ...words], { encoding: "utf8" });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return stdout;
}

test("what is replaced on this host is told in all three forms, and is so", () => {
  const bundle = makeBundle();
  const { steps, notes }: { steps: { index: number; step: string }[]; notes: Note[] } = JSON.parse(
    explained("--json", "--bundle", bundle.path),
  );
  expect(steps.map(({ index }) => index)).toEqual(steps.map((_, index) => index));
  const devices = notes.find(({ from }) => from === "/spec/linux/resources/devices");
  const version1 = existsSync("/sys/fs/cgroup/devices/devices.list");
  expect(devices?.says).toContain(version1 ? "devices.allow and devices.deny" : "eBPF");
  for (const at of devices?.steps ?? []) expect(steps[at]?.step).toBe(version1 ? "writeCgroup" : "filterDevices");
  const table = explained("--bundle", bundle.path);
  const page = explained("--markdown", "--bundle", bundle.path);
  expect(table).toMatch(/^ON THIS HOST$/m);
  expect(page).toMatch(/^## On this host$/m);
  for (const { says } of notes) expect(table).toContain(says);
  const there = idle();
  const cgroup = readFileSync(`/proc/${state(there).pid}/cgroup`, "utf8");
  const entered = /^\d+:devices:(.*)$/m.exec(cgroup)?.[1];
  expect(entered?.endsWith(`/${there.id}`) === true).toBe(version1);
  if (version1) expect(readFileSync(`/sys/fs/cgroup/devices${entered}/devices.list`, "utf8")).not.toContain("a *:*");
  expect(runtime(["kill", there.id, "KILL"]).status).toBe(0);
  expect(remove(there, "--force").status).toBe(0);
});

test("a capability that we lack, and a profile where there is no AppArmor, are skipped, and said to be", () => {
  const bundle = makeBundle((spec) => {
    spec.process.apparmorProfile = "unconfined";
  });
  const words = [...own, "explain", "--json", "--bundle", bundle.path];
  const { stdout } = spawnSync("setpriv", ["--bounding-set=-kill", "--inh-caps=-kill", command, ...words], {
    encoding: "utf8",
  });
  const { notes }: { notes: Note[] } = JSON.parse(stdout);
  expect(notes.filter(({ kind }) => kind === "skipped").map(({ says }) => says)).toEqual(
    expect.arrayContaining(["CAP_KILL is not granted"]),
  );
  const enabled = "/sys/module/apparmor/parameters/enabled";
  const apparmor = existsSync(enabled) && readFileSync(enabled, "utf8").startsWith("Y");
  expect(notes.some(({ from }) => from === "/spec/process/apparmorProfile")).toBe(!apparmor);
});
