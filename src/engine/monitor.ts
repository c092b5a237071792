import { readFileSync } from "node:fs";
import { ContainerError } from "../error.ts";
import type { Launch } from "../execute/init.ts";
import { nativeFiles } from "../kernel/addon.ts";
import { close, O, open, sealedFile } from "../kernel/file.ts";
import { openProcess, reap, spawn } from "../kernel/process.ts";
import { connectIn, receive, send, socketPair } from "../kernel/socket.ts";
import { kernelError } from "../kernel/syscall.ts";

const { argv, execPath } = process;

/** native/monitor/protocol.h */
const HEADER_BYTES = 16;
const MAX_BYTES = HEADER_BYTES + 32 * 1024;
const CONTAINER = 1;
const TERMINAL = 2;
const PORT = 3;
const STARTED = 4;
const ABORT = 5;
const MEMORY = 6;
const INIT_STARTED = 16;
const FAILED = 18;
const EXITED = 19;
const SUBSCRIBE = 32;
const STDIN = 33;
const STDIN_CLOSE = 34;
const RESIZE = 35;
const SIGNAL = 36;
const UNPUBLISHED = 38;
const STDOUT = 48;
const STDERR = 49;
const STDIN_READY = 50;

const FAILURES = [
  "",
  "its environment",
  "the log",
  "attach.sock",
  "the standard streams",
  "fork",
  "executing init",
  "a message",
];

/** A log is rotated when it has grown to this. */
const LOG_BYTES = 16 << 20;

function message(type: number, value = 0, extra = 0, data?: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(HEADER_BYTES + (data?.length ?? 0));
  bytes.writeUInt32LE(type, 0);
  bytes.writeUInt32LE(value, 4);
  bytes.writeBigUInt64LE(BigInt(extra), 8);
  if (data !== undefined) bytes.set(data, HEADER_BYTES);
  return bytes;
}

export interface MonitorOptions {
  /** Descriptor of the container's directory. */
  directory: number;
  tty: boolean;
  stdin: boolean;
  /** Words of the engine's command line that clean up after the container. */
  cleanup: readonly string[];
}

/** The creator's end of a monitor's control socket. */
export class Monitor {
  readonly #options: MonitorOptions;
  #socket = -1;
  /** Of the monitor itself; 0 until it has started. */
  pid = 0;

  constructor(options: MonitorOptions) {
    this.#options = options;
  }

  /** Starts the monitor, and init through it: the container becomes the monitor's child. */
  launch({ file, argv: initArgv, descriptors }: Launch): void {
    const { directory, tty, stdin, cleanup } = this.#options;
    const [ours, theirs] = socketPair();
    this.#socket = ours;
    const executable = sealedFile("caisson-monitor", readFileSync(nativeFiles().monitor), true);
    const nothing = open("/dev/null", O.RDWR);
    // opened anew: a duplicate would share our lock, and keep it for as long as the monitor lives
    const place = open(`/proc/self/fd/${directory}`, O.RDONLY | O.DIRECTORY);
    const program = ownProgram(cleanup);
    const words = [
      "caisson-monitor",
      ...(tty ? ["--tty"] : []),
      ...(stdin ? ["--stdin"] : []),
      "--log-max",
      String(LOG_BYTES),
      "--cleanup-fd",
      String(6 + descriptors.length),
      "--init-fds",
      String(descriptors.length),
      "--",
      ...initArgv,
      "--",
      ...program.argv,
    ];
    const handed = [nothing, nothing, nothing, theirs, file, place, ...descriptors, program.file];
    const environment = program.environment;
    // the monitor detaches at once: what we started ends
    const pidfd = openProcess(spawn(executable, words, environment, handed));
    for (const fd of [theirs, executable, nothing, place, program.file]) close(fd);
    const ending = reap(pidfd);
    close(pidfd);
    if (ending?.status !== 0)
      throw new ContainerError({ message: `the monitor failed to start: status ${ending?.status}`, code: "ECHILD" });
    const packet = receive(this.#socket, HEADER_BYTES);
    const said = packet === undefined ? undefined : decode(packet.bytes);
    if (said?.type !== INIT_STARTED) throw failure(said);
    this.pid = said.extra;
  }

  /** Tells the monitor which of its children is the container. */
  announce(pid: number, pidfd: number): void {
    send(this.#socket, message(CONTAINER, pid), [pidfd]);
  }

  holdPort(socket: number): void {
    send(this.#socket, message(PORT), [socket]);
    close(socket);
  }

  giveTerminal(master: number): void {
    send(this.#socket, message(TERMINAL), [master]);
    close(master);
  }

  /** Gives the file that counts processes killed for want of memory, for the exit record. */
  watchMemory(file: number): void {
    send(this.#socket, message(MEMORY), [file]);
    close(file);
  }

  /** The container runs: from now on its output is read, and we may go. */
  started(): void {
    send(this.#socket, message(STARTED));
    close(this.#socket);
    this.#socket = -1;
  }

  /** Ends a monitor whose container failed to come to be, and waits until all its children are dead. */
  abort(): void {
    if (this.#socket < 0) return;
    send(this.#socket, message(ABORT));
    while (receive(this.#socket, HEADER_BYTES) !== undefined);
    close(this.#socket);
    this.#socket = -1;
  }
}

function failure(said: Message | undefined): ContainerError {
  if (said?.type !== FAILED)
    return new ContainerError({ message: "the monitor ended before init was started", code: "ECHILD" });
  const error = kernelError("monitor", said.value);
  return new ContainerError({
    ...error,
    message: `the monitor failed at ${FAILURES[said.extra] ?? said.extra}: ${error.code}`,
  });
}

/** Ourselves, to be started with the words of a command; the descriptor is the caller's to close. */
export function ownProgram(words: readonly string[]): { file: number; argv: string[]; environment: string[] } {
  const script = argv[1] ?? "";
  const compiled = script.startsWith("/$bunfs/");
  return {
    file: open(compiled ? "/proc/self/exe" : execPath, O.RDONLY),
    argv: compiled ? ["caisson", ...words] : ["node", script, ...words],
    environment: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
  };
}

interface Message {
  type: number;
  value: number;
  extra: number;
  data: Uint8Array;
}

function decode(bytes: Uint8Array): Message {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    type: view.getUint32(0, true),
    value: view.getUint32(4, true),
    extra: Number(view.getBigUint64(8, true)),
    data: bytes.subarray(HEADER_BYTES),
  };
}

/** What a client hears of a container. */
export type Heard =
  | { kind: "output"; stream: 1 | 2; data: Uint8Array }
  /** One more write of input will be taken. */
  | { kind: "ready" }
  /** As a shell says it: 128 + signal for a killed one. */
  | { kind: "exited"; status: number }
  /** The monitor has gone, or was told to forget us. */
  | { kind: "gone" };

/** A client of a running container: what caisson run, attach, wait and logs -f are. */
export class Attachment {
  readonly socket: number;

  private constructor(socket: number) {
    this.socket = socket;
  }

  /** Connects to the monitor of the container with this directory. @returns undefined when there is none */
  static open(
    directory: number,
    wanted: { output?: boolean; input?: boolean; foreground?: boolean },
  ): Attachment | undefined {
    const socket = connectIn(directory, "attach.sock");
    if (socket < 0) return;
    const mask =
      (wanted.output === true ? 1 : 0) | 2 | (wanted.input === true ? 4 : 0) | (wanted.foreground === true ? 8 : 0);
    send(socket, message(SUBSCRIBE, mask));
    return new Attachment(socket);
  }

  /** Waits for the next word. */
  hear(): Heard {
    for (;;) {
      const packet = receive(this.socket, MAX_BYTES);
      if (packet === undefined) return { kind: "gone" };
      const { type, value, data } = decode(packet.bytes);
      if (type === STDOUT || type === STDERR) return { kind: "output", stream: type === STDOUT ? 1 : 2, data };
      if (type === STDIN_READY) return { kind: "ready" };
      if (type === EXITED)
        return { kind: "exited", status: (value & 0x7f) === 0 ? (value >> 8) & 0xff : 128 + (value & 0x7f) };
    }
  }

  input(data: Uint8Array): void {
    send(this.socket, message(STDIN, 0, 0, data));
  }

  endInput(): void {
    send(this.socket, message(STDIN_CLOSE));
  }

  resize(rows: number, columns: number): void {
    send(this.socket, message(RESIZE, rows, columns));
  }

  signal(number: number): void {
    send(this.socket, message(SIGNAL, number));
  }

  /** Of a container that has ended: has its ports closed, now that no rule leads to them. Nothing is heard after it. */
  closePorts(): void {
    send(this.socket, message(UNPUBLISHED));
    while (receive(this.socket, MAX_BYTES) !== undefined);
  }

  close(): void {
    close(this.socket);
  }
}
