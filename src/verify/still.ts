import { existsSync, readFileSync, readlinkSync } from "node:fs";
import type { CgroupLayout } from "../plan/cgroup-layout.ts";
import type { Plan } from "../plan/step.ts";
import type { Seen, Still, Surroundings } from "./area.ts";
import { look } from "./look.ts";

/**
 * Looks at a container that stands still while it is made: at what the plan does on the host, and at its process.
 * @param maker what lookAt saw of whoever makes it
 */
export function lookAround(plan: Plan, pid: number | undefined, layout: CgroupLayout, maker: Seen): Still {
  const made = (path: string) => existsSync(path);
  // a sysfs has the devices of the network namespace that it was mounted in, proc those of whoever asks
  const ours = interfaces("/proc/self");
  return {
    ...(pid === undefined ? {} : { process: lookAt(pid, layout) }),
    maker,
    directories: distinct(plan.flatMap((step) => (step.name === "makeCgroup" ? [step.args.path] : []))).filter(made),
    written: new Map(
      distinct(
        plan.flatMap((step) => (step.name === "writeCgroup" ? [`${step.args.directory}/${step.args.file}`] : [])),
      )
        .map((path): [string, string] => [path, read(path)])
        .filter(([, text]) => text !== ""),
    ),
    devices: plan
      .flatMap((step) => (step.name === "makeEndpoint" ? [step.args.bridge, step.args.hostName] : []))
      .filter((name) => ours.includes(name)),
  };
}

/** Looks at one process. @throws ContainerError ESRCH when there is none */
export function lookAt(pid: number, layout: CgroupLayout): Seen {
  return { ...look(pid, layout, { places: [], joined: [], files: [] }), ...surroundings(pid) };
}

function distinct(paths: readonly string[]): string[] {
  return [...new Set(paths)];
}

/** Some files of cgroups can only be written. */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function surroundings(pid: number): Surroundings {
  const proc = `/proc/${pid}`;
  return {
    root: readlinkSync(`${proc}/root`),
    directory: readlinkSync(`${proc}/cwd`),
    interfaces: interfaces(proc),
    addresses: addresses(read(`${proc}/net/fib_trie`), read(`${proc}/net/if_inet6`)),
    routes: routes(read(`${proc}/net/route`)),
  };
}

function interfaces(proc: string): string[] {
  return read(`${proc}/net/dev`)
    .split("\n")
    .flatMap((line) => /^\s*([^\s:]+):/.exec(line)?.[1] ?? []);
}

/** Local addresses of version 4 out of the kernel's trie, and those of version 6. */
function addresses(trie: string, six: string): string[] {
  const four = [...trie.matchAll(/\|-- (\S+)\n\s+\/32 host LOCAL/g)].map(([, address = ""]) => address);
  const long = [...six.matchAll(/^([0-9a-f]{32}) /gm)].map(([, digits = ""]) => shortened(digits));
  return [...new Set([...four, ...long])];
}

function shortened(digits: string): string {
  const words = (digits.match(/.{4}/g) ?? []).map((word) => Number.parseInt(word, 16).toString(16));
  return words.join(":").replace(/(?:^|:)0(?::0)+(?::|$)/, "::");
}

/** proc_pid_net(5): addresses are numbers in the machine's order. */
function routes(text: string): string[] {
  return text
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [device, destination, gateway, , , , , mask] = line.split("\t");
      if (mask === undefined || destination === undefined || gateway === undefined) return [];
      const bits = Number.parseInt(mask, 16).toString(2).replaceAll("0", "").length;
      const to = bits === 0 ? "default" : `${dotted(destination)}/${bits}`;
      return [`${to}${/^0+$/.test(gateway) ? "" : ` via ${dotted(gateway)}`} dev ${device}`];
    });
}

function dotted(hex: string): string {
  return (hex.match(/../g) ?? [])
    .reverse()
    .map((byte) => Number.parseInt(byte, 16))
    .join(".");
}
