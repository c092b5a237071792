import { writeSync } from "node:fs";
import { ContainerError } from "../error.ts";

/** The only writer to the terminal. writeSync, because the first touch of process.stdout costs milliseconds. */
export function print(text: string): void {
  write(1, `${text}\n`);
}

/** For what must not have a line's end added. */
export function printRaw(text: string): void {
  write(1, text);
}

export function printJson(value: unknown, indent?: number | string): void {
  print(jsonText(value, indent));
}

/** JSON in which a bigint is a number, with all its digits. */
export function jsonText(value: unknown, indent?: number | string): string {
  try {
    return JSON.stringify(value, undefined, indent);
  } catch {
    const marked = JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? `\0${each}` : each), indent);
    return marked.replaceAll(/"\\u0000(-?\d+)"/g, "$1");
  }
}

/** A line for people on the error stream. */
export function say(text: string): void {
  write(2, `${text}\n`);
}

/** One line of progress that the next one replaces; "" ends it. Only for a terminal. */
export function sayOver(text: string): void {
  write(2, `\r\x1b[K${text}`);
}

/** Columns as wide as their widest cell. */
export function printTable(head: readonly string[], rows: readonly (readonly string[])[], stream: 1 | 2 = 1): void {
  const widths = head.map((cell, column) => Math.max(cell.length, ...rows.map((row) => row[column]?.length ?? 0)));
  for (const row of [head, ...rows])
    write(
      stream,
      `${row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("   ")
        .trimEnd()}\n`,
    );
}

/** An error as people read it: what, the kernel's answer, where it comes from, what to do. */
export function sayError(error: unknown): void {
  if (!(error instanceof ContainerError)) {
    say(`error: ${refusal(error) ?? (error instanceof Error ? (error.stack ?? error.message) : String(error))}`);
    return;
  }
  const lines = [`error: ${error.message}`];
  if (error.errno !== undefined) {
    const where = error.syscall === undefined ? "" : ` from ${error.syscall}`;
    const step = error.step === undefined ? "" : ` (step ${error.index}, ${error.step})`;
    lines.push(`  kernel   ${error.code}${where}${step}`);
  }
  if (error.from !== undefined) lines.push(`  because  ${pointer(error.from)}`);
  if (error.hint !== undefined) lines.push(`  hint     ${error.hint}`);
  for (const words of error.left ?? []) lines.push(`  left     ${words}`);
  say(lines.join("\n"));
}

/** What a file operation of Node's was refused, in words; undefined for errors that are faults of ours. */
function refusal(error: unknown): string | undefined {
  if (!(error instanceof Error && "code" in error && "syscall" in error)) return;
  return `cannot ${error.syscall} ${"path" in error ? error.path : ""}: ${error.code}`;
}

function pointer(from: string): string {
  return from.startsWith("/spec") ? `config.json ${from.slice(5) || "/"}` : from;
}

/** A pipe of ours may be non-blocking, and its reader slow or gone. */
function write(stream: 1 | 2, text: string): void {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(stream, bytes, done);
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "EAGAIN") {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
        continue;
      }
      if (code === "EPIPE") return;
      throw error;
    }
  }
}
