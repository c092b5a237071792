import { decodeMessage, encodeMessage, MESSAGE, type Message, messageLength, START_BYTES } from "../dbus/message.ts";
import type { Value } from "../dbus/value.ts";
import { ContainerError } from "../error.ts";
import { close } from "../kernel/file.ts";
import { POLLIN, POLLOUT, wait } from "../kernel/process.ts";
import { connectStream } from "../kernel/socket.ts";
import { kernelError, tryCall } from "../kernel/syscall.ts";

/** Where a bus, or a service without one, listens. */
export interface Address {
  path: string;
  /** Whether others are there, too: then one says hello, and asks for signals. */
  shared: boolean;
}

export interface Call {
  destination: string;
  path: string;
  interface: string;
  member: string;
  signature?: string;
  body?: readonly Value[];
}

const BROKER = {
  destination: "org.freedesktop.DBus",
  path: "/org/freedesktop/DBus",
  interface: "org.freedesktop.DBus",
};
const CHUNK_BYTES = 4096;
const MAX_LINE_BYTES = 16 * 1024;

/** A connection to a bus, used by one caller who waits: D-Bus Specification. Each wait has a deadline. */
export class Bus {
  readonly #socket: number;
  readonly #shared: boolean;
  readonly #timeoutMs: number;
  #received = Buffer.alloc(0);
  #serial = 0;
  /** Signals that came while something else was waited for. */
  readonly #signals: Message[] = [];

  private constructor(socket: number, shared: boolean, timeoutMs: number) {
    this.#socket = socket;
    this.#shared = shared;
    this.#timeoutMs = timeoutMs;
  }

  /** Connects to the first address that answers. @throws ContainerError of the last that does not */
  static open(addresses: readonly Address[], timeoutMs: number): Bus {
    let failure: unknown;
    for (const { path, shared } of addresses) {
      let socket: number;
      try {
        socket = connectStream(path);
      } catch (error) {
        failure = error;
        continue;
      }
      const bus = new Bus(socket, shared, timeoutMs);
      try {
        bus.#authenticate();
        if (shared) bus.call({ ...BROKER, member: "Hello" });
        return bus;
      } catch (error) {
        bus.close();
        failure = error;
      }
    }
    throw failure ?? new ContainerError({ message: "there is no bus to connect to", code: "ENOENT" });
  }

  close(): void {
    close(this.#socket);
  }

  /** @throws ContainerError whose code is the name of the D-Bus error */
  call({ signature = "", body = [], ...call }: Call): readonly Value[] {
    const serial = ++this.#serial;
    this.#send(encodeMessage({ type: MESSAGE.call, serial, ...call, signature, body }));
    const deadline = Date.now() + this.#timeoutMs;
    for (;;) {
      const message = this.#receive(deadline, `an answer to ${call.member}`);
      if (message.type === MESSAGE.signal) this.#signals.push(message);
      if (message.replySerial !== serial) continue;
      if (message.type === MESSAGE.reply) return message.body;
      if (message.type !== MESSAGE.error) continue;
      const [words] = message.body;
      throw new ContainerError({
        message: typeof words === "string" ? words : `${call.member} failed`,
        code: message.errorName,
        syscall: call.member,
      });
    }
  }

  /** Has the broker send signals; without one they come anyway. */
  watch(rule: string): void {
    if (this.#shared) this.call({ ...BROKER, member: "AddMatch", signature: "s", body: [rule] });
  }

  /** Waits for a signal, also one that has come already. @throws ContainerError ETIMEDOUT */
  await(what: string, wanted: (signal: Message) => boolean): Message {
    const early = this.#signals.findIndex(wanted);
    if (early >= 0) return this.#signals.splice(early, 1)[0] ?? this.await(what, wanted);
    const deadline = Date.now() + this.#timeoutMs;
    for (;;) {
      const message = this.#receive(deadline, what);
      if (message.type === MESSAGE.signal && wanted(message)) return message;
    }
  }

  /**
   * EXTERNAL without a name: the other side takes the socket's credentials. A number would be that of our user
   * namespace, which means nothing outside. All is sent at once: of a message that systemd reads together with BEGIN it
   * learns only when another one comes.
   */
  #authenticate(): void {
    this.#send(Buffer.from("\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"));
    const deadline = Date.now() + this.#timeoutMs;
    if (this.#line(deadline) !== "DATA")
      throw new ContainerError({ message: "the bus does not take EXTERNAL authentication", code: "EACCES" });
    const answer = this.#line(deadline);
    if (!answer.startsWith("OK"))
      throw new ContainerError({ message: `the bus does not let us in: ${answer}`, code: "EACCES" });
  }

  #line(deadline: number): string {
    for (;;) {
      const end = this.#received.indexOf("\r\n");
      if (end >= 0) {
        const line = this.#received.toString("latin1", 0, end);
        this.#received = this.#received.subarray(end + 2);
        return line;
      }
      if (this.#received.length > MAX_LINE_BYTES)
        throw new ContainerError({ message: "the bus says too much before it begins", code: "EPROTO" });
      this.#fill(deadline, "authentication");
    }
  }

  #receive(deadline: number, what: string): Message {
    while (this.#received.length < START_BYTES) this.#fill(deadline, what);
    const length = messageLength(this.#received);
    while (this.#received.length < length) this.#fill(deadline, what);
    const message = decodeMessage(this.#received.subarray(0, length));
    this.#received = this.#received.subarray(length);
    return message;
  }

  #fill(deadline: number, what: string): void {
    const [ready] = wait([this.#socket], Math.max(deadline - Date.now(), 0), [POLLIN]);
    if (ready === 0) throw new ContainerError({ message: `timeout waiting for ${what} on the bus`, code: "ETIMEDOUT" });
    const chunk = Buffer.alloc(CHUNK_BYTES);
    const length = tryCall("read", this.#socket, chunk, chunk.length);
    if (length < 0) throw kernelError("read", -length);
    if (length === 0) throw new ContainerError({ message: "the bus has hung up", code: "ECONNRESET" });
    this.#received = Buffer.concat([this.#received, chunk.subarray(0, length)]);
  }

  #send(bytes: Uint8Array): void {
    const deadline = Date.now() + this.#timeoutMs;
    for (let done = 0; done < bytes.length; ) {
      const [ready] = wait([this.#socket], Math.max(deadline - Date.now(), 0), [POLLOUT]);
      if (ready === 0) throw new ContainerError({ message: "timeout writing to the bus", code: "ETIMEDOUT" });
      const wrote = tryCall("write", this.#socket, bytes.subarray(done), bytes.length - done);
      if (wrote < 0) throw kernelError("write", -wrote);
      done += wrote;
    }
  }
}
