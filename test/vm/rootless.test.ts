import { execFileSync, spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdirSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type Bundle,
  cleanUp,
  cleanUpFile,
  type Outcome,
  results,
  runtimeCommand,
  scratchDirectory,
  seenIn,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";
import { GID, rootless, UID, USER } from "../support/ordinary-user.ts";
import { PATIENCE } from "../support/patience.ts";
import { CGROUPS, noSwap, ownCgroup } from "./effects.ts";

// What a user may limit who has been handed a part of the tree: cgroups(7), "Delegation".

const NAME = "caissonlodger";
const systemd = existsSync("/run/systemd/system");
const DELEGATED = `${CGROUPS}/caissontest-lodging`;

let home = "";

beforeEach(() => {
  home = join(scratchDirectory(), "home");
  mkdirSync(home, { recursive: true });
  chownSync(home, UID, GID);
});
afterEach(cleanUp);
afterAll(cleanUpFile);

/** Runs a command of the runtime as the user, through what gives him his cgroup. */
function asUser(through: readonly string[], runtimeDirectory: string, words: readonly string[]): Outcome {
  const [command = "", ...rest] = [...through, ...USER, ...runtimeCommand(), "--root", join(home, "state"), ...words];
  const { status, stdout, stderr } = spawnSync(command, rest, {
    encoding: "utf8",
    timeout: 20_000 * PATIENCE,
    input: "",
    env: { PATH: process.env.PATH, XDG_RUNTIME_DIR: runtimeDirectory, HOME: home },
  });
  return { status: status ?? -1, stdout, stderr };
}

/** The limits that are tried, and what comes of them. */
function expectLimits(runAsUser: (bundle: Bundle) => Outcome): void {
  const forks = rootless((spec) => {
    ownCgroup(spec);
    spec.linux.resources = { pids: { limit: 20 } };
    spec.process.args = ["/bin/probe", "--fork", "100", "--read", `${CGROUPS}/pids.max`];
  });
  expect(results(seenIn(runAsUser(forks)).actions)).toEqual([{ forks: 19, stoppedBy: "EAGAIN" }, "20\n"]);
  const hungry = rootless((spec) => {
    spec.linux.resources = { memory: noSwap };
    spec.process.args = ["/bin/probe", "--allocate", "200"];
  });
  expect(runAsUser(hungry)).toEqual({ status: 137, stdout: "", stderr: "" });
  expect(cgroupDirectories().filter((path) => path.includes(forks.id) || path.includes(hungry.id))).toEqual([]);
}

describe("a user whom root has handed a cgroup", () => {
  const through = ["sh", "-c", `echo $$ >${DELEGATED}/session/cgroup.procs; exec "$@"`, "sh"];

  test("limits containers in it", ({ skip }) => {
    skip(systemd, "systemd hands them over here");
    mkdirSync(join(DELEGATED, "session"), { recursive: true });
    // all that cgroups(7) lists, and no more
    for (const file of ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"])
      chownSync(join(DELEGATED, file), UID, UID);
    // a process moves if one may write to what is above both its cgroups: ours is there already
    chownSync(join(DELEGATED, "session/cgroup.procs"), UID, UID);
    try {
      expectLimits((bundle) => asUser(through, home, ["run", "--bundle", bundle.path, bundle.id]));
    } finally {
      rmdirSync(join(DELEGATED, "session"));
      rmdirSync(DELEGATED);
    }
  });
});

describe("a user whose own systemd runs", () => {
  const runtimeDirectory = `/run/user/${UID}`;

  test("has it make scopes with limits, in what the machine's has handed over", ({ skip }) => {
    skip(!systemd, "needs systemd");
    execFileSync("useradd", ["--uid", String(UID), "--no-create-home", "--home-dir", home, NAME]);
    try {
      execFileSync("systemctl", ["start", `user@${UID}.service`]);
      expectLimits((bundle) =>
        asUser([], runtimeDirectory, ["--systemd-cgroup", "run", "--bundle", bundle.path, bundle.id]),
      );
      const seen = rootless((spec) => {
        spec.linux.cgroupsPath = "caissontest.slice:probe:mine";
      });
      expect(
        seenIn(asUser([], runtimeDirectory, ["--systemd-cgroup", "run", "--bundle", seen.path, seen.id])).cgroup,
      ).toEqual([`0::/user.slice/user-${UID}.slice/user@${UID}.service/caissontest.slice/probe-mine.scope`]);
    } finally {
      execFileSync("systemctl", ["stop", `user@${UID}.service`, `user-${UID}.slice`]);
      execFileSync("userdel", [NAME]);
      rmSync(join(home, "state"), { recursive: true, force: true });
    }
  });
});
