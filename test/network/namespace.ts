import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readlinkSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { NetlinkSocket, Sysctls } from "../../src/network/endpoint.ts";

const EXCHANGE = fileURLToPath(new URL("../support/netlink_exchange.py", import.meta.url));
/** Not a shim of some version manager: it is started often. */
const PYTHON = "/usr/bin/python3";

/** A network namespace of a test's own, held by a sleeping process. The host's is never touched. */
export class Namespace {
  readonly path: string;
  readonly #end: () => void;

  private constructor(path: string, end: () => void) {
    this.path = path;
    this.#end = end;
  }

  static async make(): Promise<Namespace> {
    const holder = spawn("unshare", ["--net", "sleep", "600"], { stdio: "ignore" });
    await once(holder, "spawn");
    const path = `/proc/${holder.pid}/ns/net`;
    const host = readlinkSync("/proc/self/ns/net");
    while (readlinkSync(path) === host) await new Promise((resolve) => setTimeout(resolve, 2));
    return new Namespace(path, () => holder.kill("SIGKILL"));
  }

  close(): void {
    this.#end();
  }

  /** Runs a command inside, returns what it printed; its failure is an error. */
  run(command: readonly string[], input?: string): string {
    return execFileSync("nsenter", [`--net=${this.path}`, ...command], {
      encoding: "utf8",
      ...(input === undefined ? {} : { input }),
      stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
  }

  /** Starts a command inside that goes on until the function that is returned is called. */
  async start(command: readonly string[]): Promise<() => void> {
    const child = spawn("nsenter", [`--net=${this.path}`, ...command], { stdio: ["ignore", "pipe", "inherit"] });
    await once(child.stdout, "data");
    return () => child.kill("SIGKILL");
  }

  /** A netlink socket inside; requests may name the descriptors given here. */
  socket(descriptors: Readonly<Record<number, Namespace>> = {}): NetlinkSocket {
    const files = Object.entries(descriptors).map(([number, { path }]) => `${number}=${path}`);
    return {
      exchange: (request) => {
        const input = Buffer.from(request).toString("hex");
        const { stdout, stderr, status } = spawnSync("nsenter", [`--net=${this.path}`, PYTHON, EXCHANGE, ...files], {
          input: `${input}\n`,
          encoding: "utf8",
          maxBuffer: 1 << 24,
        });
        if (status !== 0) throw new Error(stderr);
        return new Uint8Array(Buffer.from(stdout.trim(), "hex"));
      },
      close: () => {},
    };
  }

  get sysctls(): Sysctls {
    return {
      read: (path) => {
        const { status, stdout } = spawnSync("nsenter", [`--net=${this.path}`, "cat", `/proc/sys/${path}`], {
          encoding: "utf8",
        });
        return status === 0 ? stdout : undefined;
      },
      write: (path, value) => {
        this.run(["tee", `/proc/sys/${path}`], value);
      },
    };
  }

  /**
   * Links, addresses, routes, rules and the forwarding switch, to compare. Without counters and times of iptables, and
   * without link-local addresses of version 6, which the kernel adds to a link some time after it is up.
   */
  snapshot(): string {
    return [
      this.run(["ip", "-brief", "link"]),
      this.run(["ip", "-brief", "address"]).replace(/ fe80::\S+/g, ""),
      this.run(["ip", "route", "show", "table", "all"]).replace(/^.*\b(fe80|ff00)::.*\n/gm, ""),
      rules(this.run(["iptables-save"])),
      this.sysctls.read("net/ipv4/ip_forward"),
    ].join("\n");
  }
}

/** iptables-save without its comments and counters. */
export function rules(saved: string): string {
  return saved.replace(/^#.*\n/gm, "").replace(/\[\d+:\d+\]/g, "");
}
