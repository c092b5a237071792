import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { fixtures } from "../../rootfs-fixtures/build.mjs";
import type { Outcome } from "../support/bundle.ts";
import { lastLine } from "../support/engine.ts";
import { missing, PrivateHost } from "./private-host.ts";

const absent = missing(["buildah", "buildah"]);
if (absent !== undefined) console.warn(`buildah's tests are skipped: ${absent}`);

/** buildah raises limits by default, which takes CAP_SYS_RESOURCE. */
const LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"];

let host: PrivateHost;

function buildah(verb: string, ...words: string[]): Outcome {
  const directory = (name: string) => join(host.directory, "buildah", name);
  const storage = ["--root", directory("root"), "--runroot", directory("run"), "--storage-driver", "overlay"];
  return host.run(["buildah", ...storage, verb, ...words]);
}

/** The same, where failure is a failed test. @returns what it printed, without the line's end */
function succeeds(verb: string, ...words: string[]): string {
  const { status, stdout, stderr } = buildah(verb, ...words);
  expect({ verb, words, status, stderr }).toMatchObject({ status: 0 });
  return stdout.trimEnd();
}

/** A working container from scratch, with the shell root in it. @returns its name */
function fromScratch(): string {
  const name = succeeds("from", ...LIMITS, "--cgroup-parent", host.cgroupParent, "scratch");
  succeeds("copy", name, fixtures.roots.shell ?? "", "/");
  succeeds("config", "--env", "PATH=/bin", name);
  return name;
}

function run(name: string, flags: string[], ...command: string[]): Outcome {
  const runtime = ["--runtime", host.runtimeCalled("caisson-runtime")];
  return buildah("run", ...runtime, "--network", "none", ...flags, name, "--", ...command);
}

describe.skipIf(absent !== undefined)("buildah", { timeout: 60_000 }, () => {
  beforeAll(async () => {
    host = await PrivateHost.make({ cgroupParents: ["/buildah"] });
  });

  afterEach(() => {
    succeeds("rm", "--all");
    host.expectEmpty({ mounts: [join(host.directory, "buildah/root/overlay")] });
  });

  afterAll(async () => {
    await host?.close();
  });

  test("run is a container of the working root, with the command's output and status", () => {
    const name = fromScratch();
    expect(run(name, [], "sh", "-c", "echo out; echo err >&2; exit 7")).toMatchObject({ stdout: "out\n", status: 7 });
    const report = lastLine(run(name, ["--user", "app", "--env", "A=b"], "/bin/probe").stdout);
    expect(report).toMatchObject({ uids: { effective: 1000 }, pid: 1, seccomp: { mode: 2 } });
    expect(report.env).toContain("A=b");
  });

  test("a command that is not there is told in runc's words", () => {
    const ended = run(fromScratch(), [], "nosuch");
    expect(ended.status).not.toBe(0);
    expect(ended.stderr).toMatch(/unable to start container process: exec: \\?"nosuch\\?": executable file not found/);
  });

  test("bud runs the steps of a Dockerfile, and what they made is in the image", () => {
    const context = join(host.directory, "context");
    mkdirSync(context);
    const dockerfile = (...lines: string[]) =>
      writeFileSync(join(context, "Dockerfile"), ["FROM scratch", ...lines, ""].join("\n"));
    const bud = () => {
      const own = ["--runtime", host.runtimeCalled("caisson-runtime"), "--cgroup-parent", host.cgroupParent];
      const root = ["--volume", `${fixtures.roots.shell}/bin:/bin:ro`];
      return buildah("bud", ...own, ...LIMITS, ...root, "--network", "none", "--tag", "built", context);
    };
    writeFileSync(join(context, "note"), "copied\n");
    dockerfile(
      "ENV PATH=/bin",
      "COPY note /srv/note",
      "RUN mkdir /made && tr a-z A-Z < /srv/note > /made/file",
      "USER 1000",
      "RUN id -u > /dev/shm/user && cat /dev/shm/user",
    );
    const built = bud();
    expect({ status: built.status, stderr: built.stderr }).toMatchObject({ status: 0 });
    expect(built.stdout).toMatch(/^1000$/m);
    const name = succeeds("from", "built");
    succeeds("copy", name, join(fixtures.roots.shell ?? "", "bin"), "/bin");
    expect(run(name, [], "cat", "/made/file").stdout).toBe("COPIED\n");
    dockerfile("ENV PATH=/bin", "RUN exit 42");
    const failed = bud();
    expect(failed.status).not.toBe(0);
    expect(failed.stderr).toContain("exit status 42");
  });
});
