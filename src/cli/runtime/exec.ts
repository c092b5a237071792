import { Container } from "../../container/container.ts";
import { attend, fitProcess, takeTerminal } from "../../container/foreground.ts";
import { subCgroups } from "../../container/sub-cgroup.ts";
import { ContainerError } from "../../error.ts";
import { Signals } from "../../execute/signals.ts";
import { signal } from "../../kernel/process.ts";
import { readDocument } from "../../spec/bundle.ts";
import { parseProcess } from "../../spec/parse.ts";
import type { Process } from "../../spec/spec.ts";
import { unknownCapabilities } from "../../spec/validate.ts";
import { joinCallersTrace, preservedDescriptors, withActivation, writePid } from "./creation.ts";
import { parseFlags, type Words } from "./flags.ts";
import { openPidfdSocket, PIDFD_SOCKET } from "./pidfd-socket.ts";
import type { Command } from "./runtime.ts";
import { describe } from "./words.ts";

const SIGKILL = 9;

const FLAGS = {
  "console-socket": {
    kind: "string",
    help: "path to an AF_UNIX socket which will receive the master of the console's terminal",
  },
  cwd: { kind: "string", help: "current working directory in the container" },
  env: { kind: "strings", short: "e", help: "set environment variables" },
  tty: { kind: "boolean", short: "t", help: "allocate a pseudo-TTY" },
  user: { kind: "string", short: "u", help: "UID (format: <uid>[:<gid>])" },
  "additional-gids": { kind: "strings", short: "g", help: "additional gids" },
  process: { kind: "string", short: "p", help: "path to the process.json" },
  detach: { kind: "boolean", short: "d", help: "detach from the container's process" },
  "pidfd-socket": PIDFD_SOCKET,
  "pid-file": { kind: "string", help: "specify the file to write the process id to" },
  "process-label": { kind: "string", help: "set the asm process label for the process commonly used with selinux" },
  apparmor: { kind: "string", help: "set the apparmor profile for the process" },
  "no-new-privs": { kind: "boolean", help: "set the no new privileges value for the process" },
  cap: { kind: "strings", short: "c", help: "add a capability to the bounding set for the process" },
  "preserve-fds": {
    kind: "string",
    help: "pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)",
  },
  cgroup: {
    kind: "strings",
    help: "run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>",
  },
  "ignore-paused": { kind: "boolean", help: "allow exec in a paused container" },
} as const;

export const exec: Command = {
  usage: "[command options] <container-id> <command> [command options] || -p process.json <container-id>",
  flags: FLAGS,
  words: [1, Infinity],
  ordered: true,
  failure: { status: 255, says: "exec failed" },
  async run(words, { root, warn }) {
    const { flags, rest } = parseFlags(FLAGS, words);
    const [id = "", ...args] = rest;
    const container = Container.open(root, id);
    const process =
      flags.process === undefined
        ? processFrom(flags, args, container.spec.process)
        : withDefaults(parseProcess(readDocument(flags.process), { path: flags.process }), container.spec.process);
    for (const { pointer, message } of unknownCapabilities(process)) warn(`${pointer} ${message}`);
    const socket = flags["console-socket"];
    if (process.terminal === true && flags.detach && socket === undefined)
      throw new ContainerError({
        message: "cannot allocate tty if runc will detach without setting console socket",
        code: "ERR_USAGE",
      });
    if ((process.terminal !== true || !flags.detach) && socket !== undefined)
      throw new ContainerError({
        message: "cannot use console socket if runc will not detach or allocate tty",
        code: "ERR_USAGE",
      });
    const sendPidfd = openPidfdSocket(flags["pidfd-socket"]);
    let master: number | undefined;
    const signals = new Signals();
    const running = describe(() =>
      container.exec(withActivation(socket === undefined ? fitProcess(process) : process), {
        warn,
        signals,
        preserved: preservedDescriptors(flags["preserve-fds"]),
        console: socket === undefined ? "creator" : { socket },
        ignorePaused: flags["ignore-paused"],
        ...(flags.cgroup.length === 0 ? {} : { cgroups: subCgroups(container.record.cgroups, flags.cgroup) }),
        takeTerminal: (ours) => {
          master = takeTerminal(ours);
        },
      }),
    );
    try {
      sendPidfd(running.pidfd, "setns");
      if (flags["pid-file"] !== undefined) writePid(flags["pid-file"], running.pid);
    } catch (error) {
      signal(running.pidfd, SIGKILL);
      throw error;
    }
    if (running.exec !== undefined) await joinCallersTrace(`${root}/${id}`, running.exec);
    return flags.detach ? 0 : attend(running, signals, master).status;
  },
};

/** 2^32-1 means "as it is" to the kernel, and what is larger is cut off: both would be root (CVE-2024-40635). */
function isId(text: string): boolean {
  return Number(text) <= 0x7fff_ffff;
}

/** As with runc, what a process.json does not say of these is as it is for the container's own process. */
function withDefaults(process: Process, own: Process = { cwd: "/" }): Process {
  const { capabilities, rlimits, apparmorProfile, selinuxLabel, scheduler, ioPriority, execCPUAffinity } = own;
  const inherited = { capabilities, rlimits, apparmorProfile, selinuxLabel, scheduler, ioPriority, execCPUAffinity };
  const given = Object.fromEntries(Object.entries(inherited).filter(([, value]) => value !== undefined));
  const { umask } = own.user ?? {};
  return { ...given, ...process, user: { ...(umask === undefined ? {} : { umask }), ...process.user } };
}

/** The container's own process, with what the flags change. */
function processFrom(flags: Words<typeof FLAGS>["flags"], args: string[], own: Process = { cwd: "/" }): Process {
  if (args.length === 0) throw new ContainerError({ message: "process args cannot be empty", code: "ERR_USAGE" });
  if (flags.cwd && !flags.cwd.startsWith("/"))
    throw new ContainerError({ message: "Cwd must be an absolute path", code: "ERR_USAGE" });
  const odd = flags.env.find((entry) => !/^[^=]+=/.test(entry));
  if (odd !== undefined)
    throw new ContainerError({
      message: `invalid environment variable: ${odd.startsWith("=") ? "name cannot be empty" : "missing '='"}: ${odd}`,
      code: "ERR_USAGE",
    });
  const [, uid, gid] = /^(\d+)(?::(\d+))?$/.exec(flags.user ?? "") ?? [];
  if (flags.user && (uid === undefined || ![uid, gid ?? uid].every(isId)))
    throw new ContainerError({ message: `bad value for --user: ${flags.user}: use <uid>[:<gid>]`, code: "ERR_USAGE" });
  const gids = flags["additional-gids"].map((text) => {
    if (!/^\d+$/.test(text) || !isId(text))
      throw new ContainerError({ message: `bad value for --additional-gids: ${text}`, code: "ERR_USAGE" });
    return Number(text);
  });
  const { capabilities = {} } = own;
  const withCaps = (set: string[] = []) => [...new Set([...set, ...flags.cap])];
  return {
    ...own,
    args,
    terminal: flags.tty,
    cwd: flags.cwd || own.cwd,
    env: [...(own.env ?? []), ...flags.env],
    user: {
      ...own.user,
      ...(uid === undefined ? {} : { uid: Number(uid) }),
      ...(gid === undefined ? {} : { gid: Number(gid) }),
      ...(gids.length === 0 ? {} : { additionalGids: gids }),
    },
    ...(flags["no-new-privs"] ? { noNewPrivileges: true } : {}),
    ...(flags.apparmor === undefined ? {} : { apparmorProfile: flags.apparmor }),
    ...(flags["process-label"] === undefined ? {} : { selinuxLabel: flags["process-label"] }),
    ...(flags.cap.length === 0
      ? {}
      : {
          capabilities: {
            ...capabilities,
            bounding: withCaps(capabilities.bounding),
            effective: withCaps(capabilities.effective),
            permitted: withCaps(capabilities.permitted),
            // one can be ambient only where it is inheritable, which is the container's to say
            ...(capabilities.inheritable?.length ? { ambient: withCaps(capabilities.ambient) } : {}),
          },
        }),
  };
}
