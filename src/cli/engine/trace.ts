import { readFileSync, writeFileSync } from "node:fs";
import { type Failure, type Recording, traceName } from "../../container/recording.ts";
import type { Places } from "../../engine/engine.ts";
import { findRecording, listRecordings } from "../../engine/recordings.ts";
import { ContainerError } from "../../error.ts";
import { join } from "../../trace/join.ts";
import { type Line, type Part, parseLines, partOf, tell, traceJson } from "../../trace/line.ts";
import { renderTrace } from "../../trace/render.ts";
import { print, printRaw, printTable, say } from "../print.ts";
import type { Define } from "./engine.ts";
import { ago } from "./time.ts";

interface Options {
  json?: boolean;
  verbose?: boolean;
  format: string;
  output?: string;
  html?: string;
  otlp?: boolean;
  showSecrets?: boolean;
}

const FORMATS = ["table", "json", "chrome", "otlp", "html"];
const WORDS = `CONTAINER is a name or an id, of the engine's or of caisson-runtime's, also of one that failed to start;
CONTAINER:exec is the process that was added to it last, CONTAINER:exec-2 the second one;
and any file in which the JSON of a trace was saved will do as well.`;

export const defineTrace: Define = (program, { engine }) => {
  const trace = program
    .command("trace")
    .description("show how a container was made: every step, its system calls, their results and times")
    .option("--json", "one JSON object a step: short for --format json")
    .option("--verbose", "with every system call")
    .option("--format <format>", `${FORMATS.slice(0, -1).join(", ")} or ${FORMATS.at(-1)}`, "table")
    .option("-o, --output <file>", "write it to a file")
    .option("--html <file>", "write it as a page for the browser: short for --format html --output FILE")
    .option("--otlp", "send it as spans to OTEL_EXPORTER_OTLP_ENDPOINT, as part of the trace that TRACEPARENT names")
    .option("--show-secrets", "with the values of environment variables")
    .argument("[container]", "without one, the traces there are")
    .addHelpText("after", `\n${WORDS}`)
    .action(async (word: string | undefined, options: Options) => {
      const { places } = engine();
      if (word === undefined) return printList(places);
      const found = find(places, word, options.showSecrets === true);
      if (options.otlp === true) return await (await import("../spans.ts")).sendSpans(found.lines);
      const output = options.html ?? options.output;
      const text = await inFormat(options, found);
      if (output === undefined || output === "-") printRaw(text);
      else writeFileSync(output, text, { mode: 0o600 });
    });
  trace
    .command("diff")
    .description("compare two traces: steps that differ, times that differ")
    .option("--json", "one JSON object a step")
    .option("--all", "with the steps that are the same")
    .argument("<before>")
    .argument("<after>")
    .addHelpText("after", `\n${WORDS}`)
    .action(async (before: string, after: string, { json, all }: { json?: boolean; all?: boolean }) => {
      const { diffJson, renderDiff } = await import("../../trace/diff.ts");
      const { places } = engine();
      const [one, other] = [find(places, before, false).lines, find(places, after, false).lines];
      // --json of the command above is taken by that one
      const asJson = json === true || trace.opts<Options>().json === true;
      printRaw(asJson ? diffJson(one, other) : renderDiff(one, other, { all: all === true }));
    });
};

/** For a command's own --trace: the table on the error stream. */
export function sayTrace(recording: Recording, part?: Part): void {
  say(renderTrace(partOf(linesOf(recording, false), part)).trimEnd());
}

interface Found {
  /** What the container is called. */
  title: string;
  lines: Line[];
  failure?: Failure;
}

async function inFormat(options: Options, { title, lines, failure }: Found): Promise<string> {
  const format = options.html !== undefined ? "html" : options.json === true ? "json" : options.format;
  switch (format) {
    case "table":
      return renderTrace(lines, { verbose: options.verbose === true }) + printFailure(failure);
    case "json":
      return traceJson(lines);
    case "chrome":
      return `${(await import("../../trace/chrome.ts")).chromeTrace(lines)}\n`;
    case "otlp": {
      const { otlpTrace, parseTraceparent } = await import("../../trace/otlp.ts");
      return `${otlpTrace(lines, parseTraceparent(process.env.TRACEPARENT))}\n`;
    }
    case "html":
      return (await import("../../trace/page.ts")).tracePage(lines, { title, ...(failure ? { failure } : {}) });
    default:
      throw new ContainerError({
        message: `cannot show a trace as ${format}: it must be one of ${FORMATS.join(", ")}`,
        code: "EINVAL",
      });
  }
}

/** A trace by its word, or out of a file where it was saved as JSON. */
function find(places: Places, word: string, secrets: boolean): Found {
  try {
    const recording = findRecording(places, word);
    const { failure } = recording;
    return { title: word, lines: linesOf(recording, secrets), ...(failure === undefined ? {} : { failure }) };
  } catch (error) {
    const lines = savedIn(word);
    if (lines !== undefined) return { title: lines[0]?.container ?? word, lines };
    throw error;
  }
}

function linesOf(recording: Recording, secrets: boolean): Line[] {
  const { container, machine, epochNs, plan, reports } = recording;
  return tell(join(plan, reports), { container, trace: traceName(recording), machine, epochNs, secrets });
}

function savedIn(path: string): Line[] | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return;
  }
  const lines = parseLines(text);
  if (lines === undefined)
    throw new ContainerError({ message: `${path} is not a trace as trace --json prints it`, code: "EINVAL", path });
  return lines;
}

/** Why it failed, in the words it failed with. */
function printFailure(failure: Failure | undefined): string {
  if (failure === undefined) return "";
  const { message, code, step, index, from, hint } = failure;
  const facts = [
    code === undefined ? undefined : `  kernel   ${code}${step === undefined ? "" : ` (step ${index}, ${step})`}`,
    from === undefined ? undefined : `  because  ${from}`,
    hint === undefined ? undefined : `  hint     ${hint}`,
  ].filter((line) => line !== undefined);
  return [`it failed: ${message}`, ...facts, ""].join("\n");
}

function printList(places: Places): void {
  const kept = listRecordings(places);
  if (kept.length === 0) print("no container has left a trace yet");
  else
    printTable(
      ["TRACE", "OF", "WHEN", "WHAT"],
      kept.map(({ word, kind, at, says }) => [
        word,
        { create: "a container", exec: "an added process", failed: "a failed creation" }[kind],
        at === undefined ? "" : `${ago(at)} ago`,
        says,
      ]),
    );
}
