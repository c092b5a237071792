import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { states } from "./bundle.ts";

/** What a container could leave on the host, a line each. */
export interface HostSnapshot {
  lines: string[];
  /** Processes called caisson* or probe, as "pid name". */
  processes: string[];
}

export function snapshotHost(): HostSnapshot {
  const processes = processesNamed(/^caisson|^probe$/);
  return {
    processes,
    lines: [
      ...lines(readFileSync("/proc/self/mountinfo", "utf8")).map((line) => `mount ${line}`),
      ...cgroupDirectories().map((path) => `cgroup ${path}`),
      ...readdirSync("/sys/class/net").map((name) => `link ${name}`),
      ...firewallRules().map((rule) => `rule ${rule}`),
      ...processes.map((process) => `process ${process}`),
      ...states("/run/caisson").map((name) => `state ${name}`),
      `ip_forward ${readFileSync("/proc/sys/net/ipv4/ip_forward", "utf8").trim()}`,
    ],
  };
}

/** What is there now and was not, and what was there and is not now. */
export function differences(before: HostSnapshot, after: HostSnapshot): { added: string[]; removed: string[] } {
  const [was, is] = [new Set(before.lines), new Set(after.lines)];
  return { added: after.lines.filter((line) => !was.has(line)), removed: before.lines.filter((line) => !is.has(line)) };
}

/** Every directory of every mounted cgroup hierarchy. */
export function cgroupDirectories(): string[] {
  const mountPoints = lines(readFileSync("/proc/self/mountinfo", "utf8"))
    .filter((line) => / - cgroup2? /.test(line))
    .map((line) => line.split(" ")[4] ?? "");
  return mountPoints.flatMap((path) => below(path)).sort();
}

function below(path: string): string[] {
  const found = [path];
  for (const directory of found) {
    try {
      for (const entry of readdirSync(directory, { withFileTypes: true }))
        if (entry.isDirectory()) found.push(join(directory, entry.name));
    } catch {
      // it was removed while we looked: then it is not there
    }
  }
  return found;
}

function firewallRules(): string[] {
  try {
    return ["filter", "nat"].flatMap((table) =>
      lines(
        execFileSync("iptables", ["-w", "-t", table, "-S"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }),
      ),
    );
  } catch {
    return []; // no iptables here: nothing can be left in it
  }
}

/**
 * "pid name" of the processes whose name matches: the first word of the command line, as the kernel names what was
 * executed by descriptor after the file. Zombies do not count, they are their parent's to reap.
 */
export function processesNamed(name: RegExp): string[] {
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/status`, "utf8");
        const [word = ""] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        const called = basename(word);
        return name.test(called) && !/^State:\tZ/m.test(status) ? [`${pid} ${called}`] : [];
      } catch {
        return [];
      }
    });
}

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

/** Everything below a directory: names, kinds, modes, owners, devices, targets and contents, as one hash. */
export function digestOf(directory: string): string {
  const hash = createHash("sha256");
  const visit = (path: string) => {
    const facts = lstatSync(path);
    hash.update(`${path}\0${facts.mode}\0${facts.uid}\0${facts.gid}\0${facts.rdev}\0`);
    if (facts.isSymbolicLink()) hash.update(readlinkSync(path));
    else if (facts.isFile()) hash.update(readFileSync(path));
    else if (facts.isDirectory()) for (const name of readdirSync(path).sort()) visit(join(path, name));
  };
  visit(directory);
  return hash.digest("hex");
}
