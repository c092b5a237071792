import { chownSync, lstatSync, mkdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { Container, type Running, type Start } from "../container/container.ts";
import { attend, takeTerminal } from "../container/foreground.ts";
import type { Launcher } from "../execute/init.ts";
import { Signals } from "../execute/signals.ts";
import { readTrace } from "../execute/trace-file.ts";
import { detectHost } from "../host/host.ts";
import { AT_FDCWD, close, O, open } from "../kernel/file.ts";
import { openProcess, POLLHUP, POLLIN, reap, signal, spawn, wait } from "../kernel/process.ts";
import { pipe, tryCall } from "../kernel/syscall.ts";
import { makeEndpoint, publishPorts, removeEndpoint, reserveEndpoint } from "../network/connection.ts";
import type { Plan } from "../plan/step.ts";
import { defaultProfile } from "../seccomp/default-profile.ts";
import type { Mount, NamespaceType, Seccomp, Spec } from "../spec/spec.ts";
import { engineTemplate } from "../spec/template.ts";
import { DRIVERS } from "../storage/storage.ts";
import { join, type TracedStep } from "../trace/join.ts";
import { decodeReports } from "../trace/report.ts";
import type { Session } from "./session.ts";

const { arch } = process;

/** A container for a lesson, told as what is different about it. */
export interface Wanted {
  /** Changes the spec of an ordinary one. */
  spec?: (spec: LessonSpec) => void;
  /** Changes its plan. */
  alter?: (plan: Plan) => Plan;
  /** Its root is the lesson's own user 0 of the host, and not of a user namespace that is thrown away. */
  hostUsers?: boolean;
  /** Its root is a layer, with an upper directory over it. */
  layers?: boolean;
  /** A cable to the bridge. */
  network?: boolean;
  /** A directory inside that is furnished as another root. */
  jail?: string;
  /** Our descriptors that it gets as 3, 4, …; closed by the caller. */
  preserved?: readonly number[];
}

/** A spec with everything that lessons change in place. */
export type LessonSpec = Spec & {
  process: NonNullable<Spec["process"]> & { args: string[] };
  mounts: Mount[];
  linux: NonNullable<Spec["linux"]>;
};

/** Where root of a lesson's container is somebody whom the host does not know. */
export const FIRST_ID = 100_000;
const IDS = 65_536;

/** The host's programs, read-only: a lesson needs no image. */
const SHARED = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix", "/etc/alternatives", "/etc/ld.so.cache"];
const OUTPUT_BYTES = 64 * 1024;
/** What a command of a learner's gets. */
const PATIENCE_MS = 30_000;

/** A container that lives while it is looked at. */
export class Specimen {
  readonly container: Container;
  /** As the kernel was asked to carry it out: with what the lesson left out or added. */
  readonly plan: Plan;
  readonly pid: number;
  /** Its own directory, in which its root is. */
  readonly directory: string;
  readonly #session: Session;

  private constructor(container: Container, plan: Plan, pid: number, directory: string, session: Session) {
    this.container = container;
    this.plan = plan;
    this.pid = pid;
    this.directory = directory;
    this.#session = session;
  }

  /** Makes one. Its first process sleeps. @throws ContainerError */
  static make(session: Session, id: string, wanted: Wanted): Specimen {
    const { spec: change, alter, hostUsers = false, layers = false, network = false, jail, preserved } = wanted;
    const { data } = session.places;
    const directory = `${session.directory}/${id}`;
    const spec = ordinary(id, hostUsers);
    const first = hostUsers || detectHost().rootless !== undefined ? undefined : FIRST_ID;
    mkdirSync(directory, { mode: 0o700 });
    for (const place of ["", ...(jail === undefined ? [] : [jail])])
      spec.mounts.push(...furnish(`${directory}/rootfs`, place, first));
    change?.(spec);
    const union = { layers: [`${directory}/rootfs`], container: directory };
    let plan: Plan = [];
    const nothing = open("/dev/null", O.RDWR);
    try {
      const { container, process } = launched([nothing, nothing, nothing], (launcher) =>
        Container.create(
          session.root,
          {
            id,
            spec,
            bundle: directory,
            start: "now",
            ...(layers ? { root: { ...union, driver: "overlay" as const } } : {}),
            ...(network ? { endpoint: reserveEndpoint(data, id, []) } : {}),
          },
          {
            launcher,
            services: {
              prepareRoot: (root) => DRIVERS[root.driver].prepare(root),
              mountUnion: (root, userns) => DRIVERS[root.driver].mount(root, userns),
              makeEndpoint: (endpoint, pid) => makeEndpoint(endpoint, pid, data),
              publishPorts: (endpoint) => publishPorts(endpoint, data),
              removeEndpoint: (endpoint) => removeEndpoint(endpoint, data),
            },
            ...(preserved === undefined ? {} : { preserved }),
            alter: (compiled) => {
              plan = alter === undefined ? compiled : alter(compiled);
              return plan;
            },
          },
        ),
      );
      close(process.pidfd);
      return new Specimen(container, plan, process.pid, directory, session);
    } finally {
      close(nothing);
    }
  }

  /** How it was made: every step with its system calls. */
  trace(): TracedStep[] {
    const bytes = readTrace(`${this.#session.root}/${this.container.id}/trace`) ?? new Uint8Array();
    return join(this.plan, decodeReports(bytes));
  }

  /** A file of its first process's in /proc: the kernel's own word on it. */
  proc(file: string): string {
    return readFileSync(`/proc/${this.pid}/${file}`, "utf8");
  }

  /** The target of a link there, such as "ns/pid". */
  link(file: string): string {
    return readlinkSync(`/proc/${this.pid}/${file}`);
  }

  /** The value of a field of its status. */
  status(field: string): string {
    return new RegExp(`^${field}:\\s*(.*)$`, "m").exec(this.proc("status"))?.[1] ?? "";
  }

  /** A path inside, as the host can reach it. */
  path(inside: string): string {
    return `/proc/${this.pid}/root${inside}`;
  }

  /** Runs a shell's line inside. @returns its status, and the end of what it printed; all of it goes to `hear` */
  run(
    line: string,
    hear: (text: string) => void = () => undefined,
    start: Start = {},
  ): { status: number; output: string } {
    return capture(
      hear,
      (streams) =>
        launched(streams, (launcher) => ({
          process: this.container.exec(this.#process(line), { ...start, launcher }),
        })).process,
    );
  }

  /** A shell inside, at our terminal. */
  shell(): void {
    let master: number | undefined;
    const signals = new Signals();
    const running = this.container.exec(
      { ...this.#process(""), args: ["/bin/sh"], terminal: true },
      {
        console: "creator",
        signals,
        takeTerminal: (socket) => {
          master = takeTerminal(socket);
        },
      },
    );
    attend(running, signals, master);
    close(running.pidfd);
    if (master !== undefined) close(master);
  }

  #process(line: string): NonNullable<Spec["process"]> & { args: string[] } {
    return { ...(this.container.spec.process ?? { cwd: "/" }), args: ["/bin/sh", "-c", line] };
  }
}

/** Runs a shell's line on the host; $PID is the specimen's first process. */
export function runOnHost(
  line: string,
  { pid }: Specimen,
  hear: (text: string) => void = () => undefined,
): { status: number; output: string } {
  const { PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" } = process.env;
  return capture(hear, (streams) => {
    const started = spawn("/bin/sh", ["sh", "-c", line], [`PATH=${PATH}`, `PID=${pid}`], streams);
    return { pid: started, pidfd: openProcess(started) };
  });
}

/** Runs a process with its output in a pipe of ours, and nothing to read. */
function capture(
  hear: (text: string) => void,
  start: (streams: [number, number, number]) => Running,
): { status: number; output: string } {
  const nothing = open("/dev/null", O.RDONLY);
  const [ours, theirs] = pipe();
  let running: Running;
  try {
    running = start([nothing, theirs, theirs]);
  } catch (error) {
    close(ours);
    throw error;
  } finally {
    close(nothing);
    close(theirs);
  }
  const { pidfd } = running;
  const deadline = Date.now() + PATIENCE_MS;
  const buffer = Buffer.alloc(OUTPUT_BYTES);
  const decoder = new TextDecoder();
  let output = "";
  const take = () => {
    const length = tryCall("read", ours, buffer, buffer.length);
    if (length <= 0) return false;
    const text = decoder.decode(buffer.subarray(0, length), { stream: true });
    hear(text);
    output = (output + text).slice(-OUTPUT_BYTES);
    return true;
  };
  try {
    for (let open = true; ; ) {
      const [ended = 0, said = 0] = wait([pidfd, open ? ours : -1], Math.max(0, deadline - Date.now()));
      // what it has left behind may keep the pipe open for long: its own end is enough, once the pipe is empty
      if ((said & POLLIN) !== 0) take();
      else if ((said & POLLHUP) !== 0) open = false;
      else if (ended !== 0) break;
      if (ended === 0 && Date.now() >= deadline) signal(pidfd, 9);
    }
    return { status: reap(pidfd)?.status ?? 0, output };
  } finally {
    close(pidfd);
    close(ours);
  }
}

/** Has init started with standard streams of its own; its first stage is ours to reap. */
function launched<T>(streams: readonly number[], work: (launcher: Launcher) => T): T {
  let stage = -1;
  try {
    return work(({ file, argv, descriptors }) => {
      stage = openProcess(spawn(file, argv, [], [...streams, ...descriptors]));
      return undefined;
    });
  } finally {
    if (stage >= 0) {
      signal(stage, 9); // it has ended by itself, unless it failed
      reap(stage);
      close(stage);
    }
  }
}

/** What the engine would make, with less in it, and root somebody else outside. */
function ordinary(id: string, hostUsers: boolean): LessonSpec {
  const { process: { oomScoreAdj: _, ...process } = { cwd: "/" }, mounts = [], linux } = engineTemplate();
  const { rootless } = detectHost();
  const { resources, ...rest } = linux ?? {};
  const ids = (own: number | undefined) =>
    own === undefined ? [{ containerID: 0, hostID: FIRST_ID, size: IDS }] : [{ containerID: 0, hostID: own, size: 1 }];
  const types: NamespaceType[] = ["mount", "network", "uts", "pid", "ipc", "cgroup"];
  return {
    ociVersion: "1.3.0",
    root: { path: "rootfs" },
    hostname: "lesson",
    process: {
      ...process,
      cwd: "/",
      args: ["/bin/sleep", "2147483647"],
      user: { uid: 0, gid: 0, umask: 0o022 },
      env: [...(process.env ?? []), "HOME=/root", "PS1=lesson# ", "LC_ALL=C"],
    },
    mounts: mounts
      .filter(({ destination }) => ["/proc", "/dev", "/dev/pts", "/dev/shm", "/sys"].includes(destination))
      // who has one id has no group for terminals
      .map(({ options = [], ...mount }) => ({
        ...mount,
        options: rootless === undefined ? options : options.filter((option) => !option.startsWith("gid=")),
      })),
    linux: {
      ...rest,
      ...(rootless === undefined && resources !== undefined ? { resources, cgroupsPath: `/caisson/${id}` } : {}),
      namespaces: [...types, ...(hostUsers ? [] : ["user" as const])].map((type) => ({ type })),
      // what a user namespace keeps from the host, a filter must
      ...(hostUsers
        ? { seccomp: ordinaryFilter() }
        : { uidMappings: ids(rootless?.uid), gidMappings: ids(rootless?.gid) }),
    },
  };
}

/** The filter that the engine's containers have. */
export function ordinaryFilter(): Seccomp {
  const capabilities = engineTemplate().process?.capabilities?.bounding ?? [];
  return defaultProfile(capabilities, arch === "arm64" ? "aarch64" : "x86_64");
}

/**
 * Makes a root of directories, links and a few files.
 * @param place where it is in the container @returns the mounts that put the host's programs in it
 */
function furnish(rootfs: string, place: string, owner: number | undefined): Mount[] {
  const root = `${rootfs}${place}`;
  for (const path of ["", "/dev", "/etc", "/mnt", "/proc", "/root", "/run", "/sys", "/tmp"]) {
    mkdirSync(`${root}${path}`, { mode: 0o755 });
    if (owner !== undefined) chownSync(`${root}${path}`, owner, owner);
  }
  writeFileSync(`${root}/etc/passwd`, "root:x:0:0:root:/root:/bin/sh\nlearner:x:1000:1000::/:/bin/sh\n");
  writeFileSync(`${root}/etc/letter`, "from the image\n");
  writeFileSync(`${root}/etc/group`, "root:x:0:\nlearner:x:1000:\n");
  const shared = SHARED.flatMap((path): Mount[] => {
    const there = lstatSync(path, { throwIfNoEntry: false });
    if (there === undefined) return [];
    if (there.isSymbolicLink()) {
      symlinkSync(readlinkSync(path), `${root}${path}`);
      return [];
    }
    return [
      { destination: `${place}${path}`, type: "bind", source: path, options: ["rbind", "rro", "nosuid", "nodev"] },
    ];
  });
  return place === ""
    ? shared
    : [...shared, { destination: `${place}/proc`, type: "bind", source: "/proc", options: ["rbind", "rro"] }];
}

/** For lessons on what only the host's root may do, or may give. */
export function lacksRoot(): string | undefined {
  return detectHost().rootless === undefined ? undefined : "the host's root";
}

/** A plan without its steps of a kind. */
export function without(plan: Plan, ...kinds: string[]): Plan {
  return plan.filter(({ name }) => !kinds.includes(name));
}

/** Descriptor of a directory of the host's, for whoever wants to leak it. */
export function openDirectory(path: string): number {
  return tryCall("openat", AT_FDCWD, path, O.RDONLY | O.DIRECTORY | O.CLOEXEC, 0);
}
