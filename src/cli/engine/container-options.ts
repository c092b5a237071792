import { existsSync, readFileSync } from "node:fs";
import { cpus, hostname as machineName } from "node:os";
import { type Command, InvalidArgumentError } from "commander";
import type { ContainerJson } from "../../engine/config.ts";
import { mergeEnvironment } from "../../engine/definition.ts";
import type { Engine } from "../../engine/engine.ts";
import { chooseMounts } from "../../engine/volumes.ts";
import { ContainerError } from "../../error.ts";
import { familiarReference, parseReference } from "../../image/reference.ts";
import { ImageStore, type ResolvedImage } from "../../image/store.ts";
import { parseSignal } from "../../linux/signals.ts";
import { readBundle } from "../../spec/bundle.ts";
import { chooseDriver } from "../../storage/storage.ts";
import { givenEnvironment } from "./environment.ts";

/** Flags that say what the container is: those of run and explain. */
export interface ContainerOptions {
  name?: string;
  rm?: boolean;
  interactive?: boolean;
  tty?: boolean;
  env: string[];
  envFile: string[];
  workdir?: string;
  user?: string;
  volume: string[];
  hostname?: string;
  memory?: number;
  cpus?: number;
  cpusetCpus?: string;
  pidsLimit?: number;
  network: string;
  publish: string[];
  readOnly?: boolean;
  tmpfs: string[];
  capAdd: string[];
  capDrop: string[];
  securityOpt: string[];
  userns?: string;
  privileged?: boolean;
  entrypoint?: string;
  stopSignal?: string;
  label: string[];
  bundle?: string;
  /** Of run alone. */
  detach?: boolean;
}

const collect = (value: string, before: string[]) => [...before, value];

/** Adds the flags, in Docker's words. */
export function addContainerOptions(command: Command): Command {
  return command
    .option("--name <name>", "name of the container")
    .option("--rm", "remove the container when it ends")
    .option("-i, --interactive", "keep standard input open")
    .option("-t, --tty", "give it a terminal")
    .option("-e, --env <name=value>", "set an environment variable; a name alone takes ours", collect, [])
    .option("--env-file <file>", "set those of a file, one a line", collect, [])
    .option("-w, --workdir <directory>", "working directory")
    .option("-u, --user <user[:group]>", "user, by name or id")
    .option("-v, --volume <[source:]destination[:options]>", "bind a path of the host, or a volume", collect, [])
    .option("-h, --hostname <name>", "name of the machine")
    .option("-m, --memory <bytes>", "memory limit, such as 64m", parseMemory)
    .option("--cpus <number>", "processors' worth of time, such as 1.5", parseCpus)
    .option("--cpuset-cpus <list>", "processors it may use, such as 0-1", parseCpuset)
    .option("--pids-limit <number>", "how many processes it may have", parseCount)
    .option("--net, --network <mode>", "bridge, none, host or container:ID", "bridge")
    .option("-p, --publish <[address:][port:]port[/protocol]>", "make a port reachable from outside", collect, [])
    .option("--read-only", "make the root read-only")
    .option("--tmpfs <destination[:options]>", "mount a tmpfs", collect, [])
    .option("--cap-add <capability>", "add a capability, or ALL", collect, [])
    .option("--cap-drop <capability>", "drop a capability, or ALL", collect, [])
    .option(
      "--security-opt <option>",
      "seccomp=unconfined|builtin|FILE, no-new-privileges, apparmor=PROFILE, label=disable, systempaths=unconfined",
      collect,
      [],
    )
    .option("--userns <mode>", "host, auto, or FIRST:SIZE for a user namespace")
    .option("--privileged", "all capabilities and devices, no filter")
    .option("--entrypoint <command>", "replace the image's entrypoint")
    .option("--stop-signal <signal>", "signal that stop sends")
    .option("-l, --label <name=value>", "set a label", collect, [])
    .option("--bundle <directory>", "run an OCI bundle instead of an image");
}

/** "64m" and its like, as Docker reads them: powers of 1024. */
function parseBytes(text: string): number {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)([bkmgt]?)i?b?$/i.exec(text) ?? [];
  if (number === undefined) throw new InvalidArgumentError("it must be a number with b, k, m or g.");
  return Math.floor(Number(number) * 1024 ** Math.max("bkmgt".indexOf(unit.toLowerCase()), 0));
}

/** Docker's minimum: with less, the container's first process is killed before it can say anything. */
const MIN_MEMORY_BYTES = 6 << 20;

function parseMemory(text: string): number {
  const sizeBytes = parseBytes(text);
  if (sizeBytes !== 0 && sizeBytes < MIN_MEMORY_BYTES) throw new InvalidArgumentError("it must be at least 6m.");
  return sizeBytes;
}

function parseCpus(text: string): number {
  const number = Number(text);
  if ((number !== 0 && !(number >= 0.01)) || number > cpus().length)
    throw new InvalidArgumentError(`it must be from 0.01 to ${cpus().length}, the processors of this machine.`);
  return number;
}

/** Docker's check, in the place of the kernel's ERANGE. */
function parseCpuset(text: string): string {
  const ranges = [...text.matchAll(/(\d+)-(\d+)/g)];
  if (!/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(text) || ranges.some(([, first, last]) => Number(first) > Number(last)))
    throw new InvalidArgumentError("it must be a list such as 0,2-3.");
  const online = readFileSync("/sys/devices/system/cpu/online", "utf8").trim();
  const there = listedCpus(online);
  if ([...listedCpus(text)].every((cpu) => there.has(cpu))) return text;
  throw new InvalidArgumentError(`the processors of this machine are ${online}.`);
}

function parseCount(text: string): number {
  if (!/^-?\d+$/.test(text)) throw new InvalidArgumentError("it must be a whole number.");
  return Number(text);
}

function listedCpus(list: string): Set<number> {
  return new Set(
    list.split(",").flatMap((part) => {
      const [first = 0, last = first] = part.split("-").map(Number);
      return Array.from({ length: Math.max(Math.min(last, 8191) - first + 1, 0) }, (_, i) => first + i);
    }),
  );
}

/** The container that flags, image and words describe. */
export async function describeContainer(
  engine: Engine,
  options: ContainerOptions,
  words: readonly string[],
): Promise<ContainerJson> {
  const { bundle } = options;
  return bundle === undefined ? fromImage(engine, options, words) : fromBundle(engine, options, bundle);
}

async function fromImage(
  engine: Engine,
  options: ContainerOptions,
  [name, ...command]: readonly string[],
): Promise<ContainerJson> {
  if (name === undefined)
    throw new ContainerError({ message: "an image, or --bundle DIRECTORY, is needed", code: "ERR_USAGE" });
  const driver = chooseDriver(readFileSync("/proc/filesystems", "utf8"));
  const image = await findImage(ImageStore.open(engine.places.data, driver === "aufs" ? "aufs" : "overlay"), name);
  const defaults = image.config.config;
  const entrypoint =
    options.entrypoint === undefined
      ? (defaults.Entrypoint ?? [])
      : options.entrypoint === ""
        ? []
        : [options.entrypoint];
  // an entrypoint of the caller's own does not go with the image's command
  const cmd = command.length > 0 || options.entrypoint !== undefined ? command : (defaults.Cmd ?? []);
  if (entrypoint.length + cmd.length === 0)
    throw new ContainerError({ message: `image ${name} has no command: give one`, code: "ERR_USAGE" });
  const container = describe(engine, options, {
    entrypoint,
    cmd,
    env: defaults.Env ?? [],
    user: defaults.User ?? "",
    cwd: defaults.WorkingDir ?? "",
    stop: defaults.StopSignal ?? "SIGTERM",
    volumes: defaults.Volumes ?? [],
  });
  return {
    ...container,
    image: image.name === undefined ? name : familiarReference(parseReference(image.name)),
    imageId: image.id,
    root: { kind: "image", layers: image.layerDirectories, driver },
  };
}

/** An image of the store by name or id; an archive or a layout directory is loaded first. */
async function findImage(store: ImageStore, name: string): Promise<ResolvedImage> {
  if (/^[./]|\.tar(\.\w+)?$/.test(name) && existsSync(name)) {
    const [loaded] = await store.load(name);
    if (loaded === undefined)
      throw new ContainerError({ message: `there is no image in ${name}`, code: "ERR_NO_IMAGE", path: name });
    return store.resolve(loaded.id);
  }
  return store.resolve(name);
}

function fromBundle(engine: Engine, options: ContainerOptions, path: string): ContainerJson {
  const { spec, bundle } = readBundle(path);
  const { args = [], env = [], cwd = "/", terminal = false } = spec.process ?? {};
  const container = describe(
    engine,
    { ...options, tty: terminal, network: "bundle" },
    { entrypoint: [], cmd: args, env, user: "", cwd, stop: "SIGTERM", volumes: [] },
  );
  return { ...container, root: { kind: "bundle", bundle } };
}

interface Defaults {
  entrypoint: string[];
  cmd: string[];
  env: string[];
  user: string;
  cwd: string;
  stop: string;
  volumes: string[];
}

/** __NEW_UTS_LEN */
const HOSTNAME_LENGTH = 64;

function describe(engine: Engine, options: ContainerOptions, defaults: Defaults): ContainerJson {
  const { publish } = options;
  const network = options.network === "default" ? "bridge" : options.network;
  const namesake = /^container:(.+)$/.exec(network)?.[1];
  if (namesake !== undefined && options.hostname !== undefined)
    throw new ContainerError({
      message: "a container that shares another's network has its host name, too",
      code: "ERR_USAGE",
    });
  if (!/^(bridge|none|host|bundle|container:.+)$/.test(network))
    throw new ContainerError({
      message: `cannot use network ${network}: it must be bridge, none, host or container:ID`,
      code: "ERR_USAGE",
    });
  if (publish.length > 0 && network !== "bridge")
    throw new ContainerError({
      message: `ports can be published on the bridge network only, not on ${network}`,
      code: "ERR_USAGE",
    });
  parseSignal(options.stopSignal ?? defaults.stop);
  if (/[\s/]/.test(options.hostname ?? ""))
    throw new ContainerError({
      message: `cannot use the host name ${JSON.stringify(options.hostname)}: it must be one word`,
      code: "ERR_USAGE",
    });
  if ((options.hostname ?? "").length > HOSTNAME_LENGTH)
    throw new ContainerError({
      message: `cannot use the host name ${options.hostname}: it may have ${HOSTNAME_LENGTH} characters at most`,
      code: "ERR_USAGE",
    });
  const tmpfs = options.tmpfs.map((text) => splitPair(text, ":"));
  for (const path of [options.workdir || undefined, ...tmpfs.map(([destination]) => destination)])
    if (path !== undefined && !path.startsWith("/"))
      throw new ContainerError({
        message: `cannot use directory ${path}: it must be an absolute path`,
        code: "ERR_USAGE",
      });
  const container = engine.describe({
    name: options.name === "" ? undefined : options.name,
    image: "",
    imageId: "",
    root: { kind: "bundle", bundle: "" },
    ...chooseMounts(engine.places.data, {
      binds: options.volume,
      image: defaults.volumes,
      tmpfs: tmpfs.map(([destination]) => destination),
    }),
    config: {
      Hostname: options.hostname ?? "",
      User: options.user ?? defaults.user,
      Tty: options.tty ?? false,
      OpenStdin: options.interactive ?? false,
      StdinOnce: options.interactive === true && options.detach !== true,
      Env: [],
      Entrypoint: defaults.entrypoint,
      Cmd: defaults.cmd,
      WorkingDir: options.workdir || defaults.cwd,
      StopSignal: options.stopSignal ?? defaults.stop,
      Labels: Object.fromEntries(options.label.map((label) => splitPair(label))),
    },
    hostConfig: {
      Binds: options.volume,
      NetworkMode: network,
      PortBindings: publish,
      Memory: options.memory ?? 0,
      NanoCpus: Math.round((options.cpus ?? 0) * 1e9),
      CpusetCpus: options.cpusetCpus ?? "",
      PidsLimit: Math.max(options.pidsLimit ?? 0, 0),
      ReadonlyRootfs: options.readOnly ?? false,
      Tmpfs: Object.fromEntries(tmpfs),
      CapAdd: options.capAdd,
      CapDrop: options.capDrop,
      SecurityOpt: options.securityOpt,
      UsernsMode: options.userns ?? "",
      Privileged: options.privileged ?? false,
      AutoRemove: options.rm ?? false,
    },
  });
  const own = network === "host" ? machineName() : container.id.slice(0, 12);
  const hostname =
    namesake === undefined ? options.hostname || own : engine.containers.find(namesake).config.Hostname || own;
  const config = { ...container.config, Hostname: hostname, Env: environment(options, defaults.env, hostname) };
  return { ...container, config };
}

/** Ours first, then the image's, then the caller's; a later one replaces an earlier of the same name. */
function environment(options: ContainerOptions, image: readonly string[], hostname: string): string[] {
  const all = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    `HOSTNAME=${hostname}`,
    ...(options.tty === true ? ["TERM=xterm"] : []),
    ...image,
    ...givenEnvironment(options),
  ];
  return mergeEnvironment(all);
}

function splitPair(text: string, separator = "="): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
