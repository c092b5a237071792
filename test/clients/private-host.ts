import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { expect } from "vitest";
import { build } from "../../rootfs-fixtures/build.mjs";
import { type Outcome, underNode, until } from "../support/bundle.ts";
import type { Keystroke } from "../support/engine.ts";
import { cgroupDirectories, differences, type HostSnapshot, snapshotHost } from "../support/host-snapshot.ts";
import { PATIENCE } from "../support/patience.ts";

const project = resolve(import.meta.dirname, "../..");
const TYPIST = resolve(import.meta.dirname, "../support/typist.py");
const TIMEOUT_MS = 60_000 * PATIENCE;
const DAEMON_START_MS = 30_000;

/**
 * What the first process of a private host does: its own /proc, and nothing of /run, /dev/shm and the like, in which
 * clients keep locks and sockets at fixed places. It is pid 1 there, and reaps what daemons leave to it.
 */
const FIRST_PROCESS = `
set -e
mount -t proc proc /proc
for directory in /run /dev/shm /var/lib/cni /etc/cni; do
	[ ! -d $directory ] || mount -t tmpfs -o mode=755 tmpfs $directory
done
chmod 1777 /dev/shm
ip link set lo up
echo ready
sleep infinity & wait
`;

/** The words of apt that install what a skipped test needs; undefined if all is there. */
export function missing(...packages: [command: string, debian: string][]): string | undefined {
  const absent = packages.filter(([command]) => !isInstalled(command)).map(([, debian]) => debian);
  return absent.length === 0 ? undefined : `apt-get install ${absent.join(" ")}`;
}

function isInstalled(command: string): boolean {
  return [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/sbin"].some((directory) => {
    try {
      accessSync(join(directory, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

interface How {
  input?: string;
  env?: NodeJS.ProcessEnv;
  timeoutMs?: number;
}

/** A program that stays: what it wrote, and how to end it. */
export interface Daemon {
  log: string;
  /** SIGTERM, and waits for the end. */
  end: () => Promise<void>;
}

/**
 * A host for a file's tests: network, mount, IPC and pid namespaces in which clients and their daemons can do as they
 * like; control groups are this computer's, below one parent. Whatever is left in it ends with it.
 */
export class PrivateHost {
  readonly directory: string;
  /** For clients, as the parent of all their containers' control groups. */
  readonly cgroupParent: string;
  readonly #holder: ChildProcess;
  readonly #pid: number;
  readonly #before: HostSnapshot;
  readonly #cgroupParents: string[];
  #mounts: string[] = [];

  private constructor(holder: ChildProcess, pid: number, before: HostSnapshot, cgroupParents: string[]) {
    this.directory = mkdtempSync(join(tmpdir(), "caisson-clients-"));
    // a container's user must be able to reach what is bound from here
    chmodSync(this.directory, 0o755);
    this.cgroupParent = `/caisson-clients-${process.pid}`;
    this.#holder = holder;
    this.#pid = pid;
    this.#before = before;
    this.#cgroupParents = [this.cgroupParent, ...cgroupParents];
  }

  /** `cgroupParents` are those that the client makes by itself, and leaves: they are removed at the end, if empty. */
  static async make({ cgroupParents = [] as string[] } = {}): Promise<PrivateHost> {
    build();
    const before = snapshotHost();
    const words = ["--net", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private"];
    const holder = spawn("unshare", [...words, "bash", "-c", FIRST_PROCESS], { stdio: ["ignore", "pipe", "inherit"] });
    await once(holder.stdout, "data");
    const pid = Number.parseInt(readFileSync(`/proc/${holder.pid}/task/${holder.pid}/children`, "utf8"), 10);
    const host = new PrivateHost(holder, pid, before, cgroupParents);
    host.#mounts = host.mounts();
    return host;
  }

  /** A path of the private host, as this process reaches it: its /proc and its /run are others than ours. */
  path(path: string): string {
    return `/proc/${this.#pid}/root${path}`;
  }

  /** Caisson's runtime under a name: a link to the executable, or a script for the Node build. */
  runtimeCalled(name: string): string {
    const bin = join(this.directory, "bin");
    const path = join(bin, name);
    if (existsSync(path)) return path;
    mkdirSync(bin, { recursive: true });
    if (underNode) {
      // Node tells the program its script's name, which is how it knows what it is called
      const scripts = join(this.directory, "scripts");
      mkdirSync(scripts, { recursive: true });
      symlinkSync(join(project, "dist/js/cli/main.js"), join(scripts, name));
      writeFileSync(path, `#!/bin/sh\nexec ${process.execPath} ${join(scripts, name)} "$@"\n`, { mode: 0o755 });
    } else symlinkSync(realpathSync(process.env.CAISSON_BIN ?? join(project, "dist/bin/caisson-runtime")), path);
    return path;
  }

  /** The words that run a command here. */
  commandLine(words: readonly string[]): string[] {
    return ["nsenter", "--target", String(this.#pid), "--net", "--mount", "--ipc", "--pid", ...words];
  }

  #environment(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
    // no configuration of whoever runs the tests
    return { PATH: process.env.PATH, HOME: this.directory, LANG: "C.UTF-8", ...more };
  }

  /** Runs a command to its end. */
  run(words: readonly string[], { input = "", env, timeoutMs = TIMEOUT_MS }: How = {}): Outcome {
    const [command = "", ...rest] = this.commandLine(words);
    const options = { input, timeout: timeoutMs, maxBuffer: 1 << 27, env: this.#environment(env) };
    const { error, status, stdout, stderr } = spawnSync(command, rest, { encoding: "utf8", ...options });
    if (error !== undefined) throw error;
    return { status: status ?? -1, stdout, stderr };
  }

  /** The same under a terminal, with what a person does there. */
  atTerminal(
    words: readonly string[],
    keystrokes: readonly Keystroke[],
    size = { rows: 24, columns: 80 },
  ): { status: number; output: string } {
    const { status, stdout, stderr } = spawnSync("/usr/bin/python3", [TYPIST], {
      encoding: "utf8",
      timeout: TIMEOUT_MS,
      env: this.#environment(),
      input: JSON.stringify({ command: this.commandLine(words), keystrokes, ...size }),
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    return JSON.parse(stdout);
  }

  /** Starts a command and leaves it alone. */
  start(words: readonly string[], env?: NodeJS.ProcessEnv): ChildProcess {
    const [command = "", ...rest] = this.commandLine(words);
    return spawn(command, rest, { stdio: ["ignore", "pipe", "pipe"], env: this.#environment(env) });
  }

  /** Starts a daemon, and waits until `ready` says so. */
  startDaemon(name: string, words: readonly string[], ready: () => boolean): Daemon {
    const log = join(this.directory, `${name}.log`);
    const pidFile = join(this.directory, `${name}.pid`);
    rmSync(pidFile, { force: true });
    const [command = "", ...rest] = this.commandLine(["sh", "-c", `echo $$ > ${pidFile}; exec "$@"`, "sh", ...words]);
    const output = openSync(log, "a");
    const child = spawn(command, rest, { stdio: ["ignore", output, output], env: this.#environment() });
    closeSync(output);
    const ended = once(child, "exit");
    const failed = () => !existsSync(`/proc/${child.pid}/ns/pid`);
    try {
      until(`${name} is ready`, () => failed() || ready(), DAEMON_START_MS);
      if (failed()) throw new Error(`${name} has ended`);
    } catch (error) {
      throw new Error(`${name}: ${readFileSync(log, "utf8").slice(-2000)}`, { cause: error });
    }
    return {
      log,
      end: async () => {
        // nsenter would take a signal for itself
        this.run(["kill", "-TERM", readFileSync(pidFile, "utf8").trim()]);
        await ended;
      },
    };
  }

  /** What lives here beside the first process: "pid command line". */
  processes(): string[] {
    const proc = this.path("/proc");
    return readdirSync(proc).flatMap((pid) => {
      if (!/^\d+$/.test(pid) || pid === "1") return [];
      try {
        const words = readFileSync(join(proc, pid, "cmdline"), "utf8")
          .replaceAll("\0", " ")
          .trim();
        return words === "" || words === "sleep infinity" ? [] : [`${pid} ${words}`];
      } catch {
        return [];
      }
    });
  }

  /** The mount points here. */
  mounts(): string[] {
    const table = readFileSync(`/proc/${this.#pid}/mountinfo`, "utf8").trimEnd().split("\n");
    return table.map((line) => line.split(" ")[4] ?? "").sort();
  }

  /** Control groups below the parent, relative to it, whatever the hierarchy. */
  cgroups(): string[] {
    const found = cgroupDirectories().flatMap((path) => path.split(`${this.cgroupParent}/`).slice(1));
    return [...new Set(found)].sort();
  }

  /**
   * Nothing is left of the containers: no process, no mount, no control group but those that the client itself keeps.
   * What clients clean up after their last answer is waited for.
   */
  expectEmpty({ cgroups = [] as string[], mounts = [] as string[] } = {}): void {
    const left = () => ({
      processes: this.processes(),
      mounts: this.mounts().filter((path) => !this.#mounts.includes(path) && !mounts.includes(path)),
      cgroups: this.cgroups().filter((path) => !cgroups.includes(path)),
    });
    const isEmpty = () => Object.values(left()).every((list) => list.length === 0);
    try {
      until("everything is gone", isEmpty, 15_000);
    } catch {
      expect(left()).toEqual({ processes: [], mounts: [], cgroups: [] });
    }
  }

  /** Ends all that is here, and compares the computer with what it was before. */
  async close(): Promise<void> {
    const ended = once(this.#holder, "exit");
    this.#holder.kill("SIGKILL");
    await ended;
    until("its processes are gone", () => !existsSync(`/proc/${this.#pid}/ns/pid`));
    const isOurs = (path: string) => this.#cgroupParents.some((parent) => `${path}/`.includes(`${parent}/`));
    const left = cgroupDirectories().filter((path) => isOurs(path) && !this.#before.lines.includes(`cgroup ${path}`));
    // the innermost first; a cgroup that is not empty cannot be removed
    for (const path of left.reverse()) rmdirSync(path);
    rmSync(this.directory, { recursive: true, force: true });
    expect(differences(this.#before, snapshotHost())).toEqual({ added: [], removed: [] });
  }
}
