import { spawnSync } from "node:child_process";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import { cleanUp, cleanUpFile, type Edit, exec, idle, makeBundle, results, run, seenIn } from "../support/bundle.ts";

// apparmor.d(5): what a profile denies is refused, under us and under our peers.

const CAGE = `caissontest-cage-${process.pid}`;
const CELL = `caissontest-cell-${process.pid}`;
const EVERYTHING = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix,";
const PROFILES = `
profile ${CAGE} flags=(attach_disconnected,mediate_deleted) { ${EVERYTHING} deny /dev/shm/refused w, }
profile ${CELL} flags=(attach_disconnected,mediate_deleted) { ${EVERYTHING} deny /dev/shm/** w, }
`;

function parser(flag: string): void {
  const { status, stderr } = spawnSync("apparmor_parser", [flag, "--skip-cache"], {
    input: PROFILES,
    encoding: "utf8",
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
}

beforeAll(() => parser("--replace"));
afterEach(cleanUp);
afterAll(() => {
  parser("--remove");
  cleanUpFile();
});

const ATTEMPTS = [
  ...["--read", "/proc/self/attr/apparmor/current"],
  ...["--write", "/dev/shm/refused", "text", "--write", "/dev/shm/allowed", "text"],
];

const caged: Edit = (spec) => {
  spec.ociVersion = "1.0.2";
  spec.process.apparmorProfile = CAGE;
  spec.process.args = ["/bin/probe", ...ATTEMPTS];
};

describe.each(["caisson", "runc", "crun"])("under %s", (name) => {
  const how = name === "caisson" ? {} : { program: name };

  test("what the profile denies is refused, and what it allows is not", () => {
    expect(results(seenIn(run(makeBundle(caged), how)).actions)).toEqual([`${CAGE} (enforce)\n`, "EACCES", 4]);
  });
});

test("so it is in a user namespace", () => {
  const bundle = makeBundle((spec) => {
    caged(spec);
    const ids = [{ containerID: 0, hostID: 0, size: 1000 }];
    Object.assign(spec.linux, { uidMappings: ids, gidMappings: ids });
    spec.linux.namespaces?.push({ type: "user" });
  });
  expect(results(seenIn(run(bundle)).actions)).toEqual([`${CAGE} (enforce)\n`, "EACCES", 4]);
});

test("without a profile nothing is denied", () => {
  const bundle = makeBundle((spec) => {
    caged(spec);
    delete spec.process.apparmorProfile;
  });
  expect(results(seenIn(run(bundle)).actions)).toEqual(["unconfined\n", 4, 4]);
});

test("a process that is added has the container's profile, or one of its own", () => {
  covers("exec --apparmor");
  const bundle = idle((spec) => {
    spec.process.apparmorProfile = CAGE;
  });
  const tried = (...flags: string[]) => results(seenIn(exec(bundle, ["/bin/probe", ...ATTEMPTS], { flags })).actions);
  expect(tried()).toEqual([`${CAGE} (enforce)\n`, "EACCES", 4]);
  expect(tried("--apparmor", CELL)).toEqual([`${CELL} (enforce)\n`, "EACCES", "EACCES"]);
});

test("a profile that is not loaded is refused, and nothing runs", () => {
  const bundle = makeBundle((spec) => {
    spec.process.apparmorProfile = "caissontest-absent";
  });
  const { status, stdout, stderr } = run(bundle);
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toMatch(/caissontest-absent.*ENOENT.*\/process\/apparmorProfile/);
});
