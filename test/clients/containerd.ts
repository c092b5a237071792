import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { fixtures } from "../../rootfs-fixtures/build.mjs";
import { type Outcome, until } from "../support/bundle.ts";
import { PATIENCE } from "../support/patience.ts";
import { type Daemon, PrivateHost } from "./private-host.ts";

const IMAGE = "docker.io/caisson/quickstart:latest";

/** A containerd in a host of its own, and its client, which asks for our runtime. */
export class Containerd {
  readonly host: PrivateHost;
  #daemon: Daemon | undefined;
  #serial = 0;

  private constructor(host: PrivateHost) {
    this.host = host;
  }

  static async start(): Promise<Containerd> {
    const own = new Containerd(await PrivateHost.make());
    try {
      own.#start();
    } catch (error) {
      await own.close();
      throw error;
    }
    return own;
  }

  #start(): void {
    const configuration = this.file("containerd.toml");
    writeFileSync(
      configuration,
      [
        "version = 2",
        `root = "${this.file("root")}"`,
        `state = "${this.file("state")}"`,
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]',
        `[grpc]\naddress = "${this.file("containerd.sock")}"`,
        `[ttrpc]\naddress = "${this.file("containerd.sock.ttrpc")}"`,
      ].join("\n"),
    );
    const answers = () => existsSync(this.file("containerd.sock")) && this.ctr(["version"]).status === 0;
    this.#daemon = this.host.startDaemon("containerd", ["containerd", "--config", configuration], answers);
    this.succeeds(["image", "import", fixtures.images.quickstart.docker]);
  }

  file(name: string): string {
    return join(this.host.directory, name);
  }

  commandLine(words: readonly string[]): string[] {
    return ["ctr", "--address", this.file("containerd.sock"), "--timeout", `${40 * PATIENCE}s`, ...words];
  }

  ctr(words: readonly string[], input = ""): Outcome {
    return this.host.run(this.commandLine(words), { input });
  }

  /** The same, where failure is a failed test. @returns what it printed, without the line's end */
  succeeds(words: readonly string[]): string {
    const { status, stdout, stderr } = this.ctr(words);
    expect({ words, status, stderr }).toEqual({ words, status: 0, stderr: "" });
    return stdout.trimEnd();
  }

  fresh(): string {
    return `box-${this.#serial++}`;
  }

  /** The words that run a container by our runtime, in a cgroup of the test's. */
  run(id: string, flags: readonly string[], ...command: string[]): string[] {
    const { host } = this;
    const own = ["--runc-binary", host.runtimeCalled("caisson-runtime"), "--cgroup", `${host.cgroupParent}/${id}`];
    return ["run", ...own, ...flags, IMAGE, id, ...command];
  }

  /** What `task ls` says of a container: its pid, and its status. */
  task(id: string): { pid: number; status: string } | undefined {
    const row = this.succeeds(["task", "ls"])
      .split("\n")
      .map((line) => line.split(/\s+/))
      .find(([name]) => name === id);
    return row === undefined ? undefined : { pid: Number(row[1]), status: row[2] ?? "" };
  }

  /** Removes all containers: for afterEach. */
  removeAll(): void {
    const ids = (kind: string) => this.succeeds([kind, "ls", "--quiet"]).split("\n").filter(Boolean);
    for (const id of ids("task")) this.ctr(["task", "rm", "--force", id]);
    for (const id of ids("container")) this.succeeds(["container", "rm", id]);
    until("no container is left", () => this.host.cgroups().length === 0);
  }

  /** Ends the daemon, which must have left nothing: for afterAll. */
  async close(): Promise<void> {
    try {
      await this.#daemon?.end();
      this.host.expectEmpty();
    } finally {
      await this.host.close();
    }
  }
}
