import { spawnSync } from "node:child_process";
import { mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { cleanUp, cleanUpFile } from "../support/bundle.ts";
import { causes, only } from "../support/why.ts";

// `caisson why`, where it takes AppArmor or pure cgroup v2 to bring the reason about

const CONFINED = `caissontest-confined-${process.pid}`;
/** Everything but mounts. */
const PROFILE = `profile ${CONFINED} flags=(attach_disconnected,mediate_deleted) {
  file, capability, network, umount, pivot_root, signal, ptrace, unix, userns, mqueue, io_uring, dbus,
}`;
const PARENT = `/sys/fs/cgroup/caissontest-why-${process.pid}`;

function parser(flag: string): void {
  const { status, stderr } = spawnSync("apparmor_parser", [flag, "--skip-cache"], {
    input: PROFILE,
    encoding: "utf8",
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
}

beforeAll(() => {
  parser("--replace");
  mkdirSync(PARENT);
});
afterEach(cleanUp);
afterAll(() => {
  parser("--remove");
  rmdirSync(PARENT);
  cleanUpFile();
});

test("a profile that is not loaded is looked for among those that are", () => {
  const found = only((spec) => {
    spec.process.apparmorProfile = "caissontest-absent";
  });
  expect(causes(found)).toContain("no AppArmor profile caissontest-absent is loaded");
});

test("a caller's profile is found, with what it refused", () => {
  const found = only(() => undefined, { asking: `echo 'exec ${CONFINED}' > /proc/self/attr/apparmor/exec;` });
  expect(found).toMatchObject({ code: "EACCES" });
  expect(causes(found)).toMatch(new RegExp(`profile ${CONFINED}, .*apparmor="DENIED" operation="mount" `));
});

test("a cgroup above that may have no more processes is found", () => {
  writeFileSync("/sys/fs/cgroup/cgroup.subtree_control", "+pids");
  writeFileSync(`${PARENT}/pids.max`, "0");
  const found = only((spec) => {
    spec.linux.cgroupsPath = `/${PARENT.split("/").at(-1)}/inner`;
  });
  expect(found).toMatchObject({ code: "EAGAIN", step: { name: "cloneInto" } });
  expect(causes(found)).toBe(`${PARENT} has 0 processes, and its pids.max is 0`);
});
