import { closeSync, existsSync, openSync, readSync } from "node:fs";
import { InvalidArgumentError } from "commander";
import { UNREAD, writeAll } from "./client.ts";
import type { Define } from "./engine.ts";
import { parseMoment } from "./time.ts";

interface Options {
  follow?: boolean;
  timestamps?: boolean;
  tail: number;
  /** Milliseconds since the epoch. */
  since?: number;
  until?: number;
}

interface Line {
  log: string;
  stream: "stdout" | "stderr";
  time: string;
}

function parseTail(text: string): number {
  if (text === "all" || /^-\d+$/.test(text)) return Number.POSITIVE_INFINITY;
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError("it must be a number, or all.");
  return Number(text);
}

export const defineLogs: Define = (program, { engine, exit }) => {
  program
    .command("logs")
    .description("print what a container has written")
    .option("-f, --follow", "go on until it ends")
    .option("-t, --timestamps", "with times")
    .option("-n, --tail <lines>", "only the last ones", parseTail, Number.POSITIVE_INFINITY)
    .option("--since <time>", "only what was written from then on: a date, or how long ago, such as 10m", parseMoment)
    .option("--until <time>", "only what was written before", parseMoment)
    .argument("<container>")
    .action((name: string, { follow, timestamps, tail, since = 0, until = Number.POSITIVE_INFINITY }: Options) => {
      const container = engine().containers.find(name);
      const directory = engine().containers.directory(container.id);
      // connected before the log is read, so that nothing falls between
      const attachment = follow === true ? engine().tryAttach(container, { output: true }) : undefined;
      const reader = new LogReader(`${directory}/log`);
      const earlier = existsSync(`${directory}/log.1`) ? new LogReader(`${directory}/log.1`).read() : [];
      const wanted = (lines: readonly Line[]) =>
        lines.filter(({ time }) => Date.parse(time) >= since && Date.parse(time) < until);
      const lines = wanted([...earlier, ...reader.read()]);
      if (!printLines(tail === 0 ? [] : lines.slice(-tail), timestamps === true)) return exit(UNREAD);
      while (attachment !== undefined && Date.now() < until) {
        const { kind } = attachment.hear();
        if (!printLines(wanted(reader.read()), timestamps === true)) return exit(UNREAD);
        if (kind === "exited" || kind === "gone") return;
      }
    });
};

/** @returns whether somebody reads them still */
function printLines(lines: readonly Line[], timestamps: boolean): boolean {
  return lines.every(({ log, stream, time }) =>
    writeAll(stream === "stderr" ? 2 : 1, Buffer.from(timestamps ? `${time} ${log}` : log)),
  );
}

/** Reads a log of JSON lines on from where it stopped. */
class LogReader {
  readonly #path: string;
  #offset = 0;

  constructor(path: string) {
    this.#path = path;
  }

  read(): Line[] {
    if (!existsSync(this.#path)) return [];
    const file = openSync(this.#path, "r");
    const chunks: Buffer[] = [];
    try {
      for (let got = 1; got > 0; ) {
        const chunk = Buffer.alloc(1 << 16);
        got = readSync(
          file,
          chunk,
          0,
          chunk.length,
          this.#offset + chunks.reduce((sum, { length }) => sum + length, 0),
        );
        chunks.push(chunk.subarray(0, got));
      }
    } finally {
      closeSync(file);
    }
    const bytes = Buffer.concat(chunks);
    const whole = bytes.lastIndexOf(10) + 1; // a line that is being written is left for the next time
    this.#offset += whole;
    return bytes
      .toString("utf8", 0, whole)
      .split("\n")
      .filter((line) => line !== "")
      .map((line): Line => JSON.parse(line));
  }
}
