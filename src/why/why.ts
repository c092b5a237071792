import type { Failure, Recording } from "../container/recording.ts";
import { backgroundOf } from "../plan/reference.ts";
import { says } from "../plan/step.ts";
import { join, type TracedStep } from "../trace/join.ts";
import { type Line, printCall, tell } from "../trace/line.ts";
import { checkOf } from "./check.ts";
import { CONTROL_GROUPS } from "./control-groups.ts";
import { LIMITS } from "./limits.ts";
import { MOUNTS } from "./mounts.ts";
import { NAMESPACE_QUESTIONS } from "./namespaces.ts";
import { NETWORK } from "./network.ts";
import { PATHS } from "./paths.ts";
import { PRIVILEGES } from "./privileges.ts";
import { PROGRAM } from "./program.ts";
import type { Asked, Facts, Finding, Question } from "./question.ts";

/** Why a container did not start: its failed step, at length. */
export interface Why {
  container: string;
  /** RFC 3339. */
  at: string;
  /** The error as it was told then. */
  message: string;
  /** errno's name, or a word of ours. */
  code?: string;
  hint?: string;
  /** The step that failed; absent where none did. */
  step?: {
    name: string;
    /** Its place in the plan, and how many there are. */
    index: number;
    of: number;
    side: "host" | "init";
    says: string;
    why: string;
    read: string;
    /** JSON pointer into the definition. */
    from: string;
    arguments: { [name: string]: string };
  };
  /** The system call that was refused. */
  call?: string;
  /** What the kernel checks there. */
  checks?: string;
  /** What was found to be the reason. */
  causes: { says: string; remedy?: string }[];
  /** What was looked at, and is not. */
  looked: string[];
  /** Where the caller was then and we are not now: what is looked up there can differ. */
  elsewhere: string[];
}

const QUESTIONS: readonly Question[] = [
  ...PRIVILEGES,
  ...NAMESPACE_QUESTIONS,
  ...LIMITS,
  ...MOUNTS,
  ...PATHS,
  ...PROGRAM,
  ...CONTROL_GROUPS,
  ...NETWORK,
];

/** Explains a failure that is kept by what can be seen on this host. */
export function why(recording: Recording, failure: Failure, facts: Facts): Why {
  const { plan, host, machine, reports } = recording;
  const traced = join(plan, reports);
  const index = failure.index ?? traced.find(({ outcome }) => outcome === "failed")?.index;
  const step = index === undefined ? undefined : plan[index];
  const now = facts.self;
  const caller = failure.caller ?? now;
  const whole = {
    container: recording.container,
    at: failure.at,
    message: failure.message,
    ...(failure.code === undefined ? {} : { code: failure.code }),
    ...(failure.hint === undefined ? {} : { hint: failure.hint }),
    elsewhere: Object.entries(caller.namespaces)
      .filter(([file, name]) => name !== now.namespaces[file])
      .map(([file]) => file),
  };
  if (index === undefined || step === undefined) return { ...whole, causes: [], looked: [] };
  const code = failure.code ?? "";
  const own = traced.find((line) => line.index === index && !line.undo);
  const line = own === undefined ? undefined : tell(traced, { machine })[traced.indexOf(own)];
  const refused = own === undefined || line === undefined ? undefined : refusedCall(own, line, code);
  // a few calls of the host's are made by others than the one function that reports them
  const { syscall } = failure;
  const call = refused?.call ?? (syscall === undefined ? undefined : { name: syscall, args: [], shown: [] });
  const asked: Asked = { step, index, plan, code, call, path: failure.path, host, caller };
  const found = QUESTIONS.flatMap((question) => question(asked, facts));
  const checks = checkOf(call?.name, code);
  const { why: reason, read } = backgroundOf(step.name);
  return {
    ...whole,
    step: {
      name: step.name,
      index,
      of: plan.length,
      side: own?.side ?? "host",
      says: says(step),
      why: reason,
      read,
      from: step.from,
      arguments: argumentsOf(step),
    },
    ...(refused === undefined ? {} : { call: refused.shown }),
    ...(checks === undefined ? {} : { checks }),
    causes: found
      .filter(({ refuses }) => refuses)
      .map(({ says: text, remedy }) => (remedy === undefined ? { says: text } : { says: text, remedy })),
    looked: found.filter(({ refuses }: Finding) => !refuses).map(({ says: text }) => text),
  };
}

/** The last call of a step that was answered with its errno; init's word to the host comes after that. */
function refusedCall(
  { calls }: TracedStep,
  line: Line,
  code: string,
): { call: NonNullable<Asked["call"]>; shown: string } | undefined {
  const at = line.calls.findLastIndex(({ error }) => error === code);
  const [call, report] = [line.calls[at], calls[at]];
  if (call === undefined || report === undefined) return;
  return {
    call: { name: call.name, args: report.args, shown: call.shown },
    shown: `${printCall(call)} = -${code}`,
  };
}

/** Values of the environment stay hidden: they may be secrets. */
function argumentsOf({ args }: Asked["step"]): { [name: string]: string } {
  return Object.fromEntries(
    Object.entries(args).map(([name, value]: [string, unknown]) => [
      name,
      name === "environment" || name === "env"
        ? `${Array.isArray(value) ? value.length : 0} variables`
        : value instanceof Uint8Array
          ? `${value.length} bytes`
          : typeof value === "string"
            ? value.trim()
            : (JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? each.toString() : each)) ?? ""),
    ]),
  );
}

/** For people. */
export function renderWhy(why: Why): string {
  const { step, call, checks, causes, looked, elsewhere } = why;
  const sections: [string, string[]][] = [
    ["", [`${why.container}: ${why.message}`, ...(why.code === undefined ? [] : [`answered ${why.code}, ${why.at}`])]],
    [
      "what was asked",
      step === undefined
        ? ["no step of the plan failed: the error came before or between them"]
        : [
            `step ${step.index} of ${step.of}, ${step.name}, on the side of ${step.side}: ${step.says}`,
            `because of ${step.from.replace(/^\/spec(?=\/|$)/, "config.json ")}`,
            ...Object.entries(step.arguments).map(([name, value]) => `${name} = ${shortened(value)}`),
            step.why,
          ],
    ],
    ["what the kernel was called with", call === undefined ? [] : [call]],
    ["what the kernel checks there", checks === undefined ? [] : [checks]],
    [
      causes.length === 0 ? "what this host says" : "what makes it refuse, on this host",
      causes.length === 0
        ? [looked.length === 0 ? "there is nothing that we know to look at" : "none of what was looked at explains it"]
        : causes.map(({ says: text }) => text),
    ],
    [
      "what to do",
      [
        ...new Set(
          causes.flatMap(({ remedy }) => remedy ?? []).concat(causes.length === 0 && why.hint ? [why.hint] : []),
        ),
      ],
    ],
    ["looked at as well, and not to blame", looked],
    [
      "to be doubted",
      elsewhere.length === 0
        ? []
        : [
            `the caller was in other namespaces than we are now (${elsewhere.join(", ")}): for what it saw, run caisson why from there`,
          ],
    ],
    ["to read", step === undefined ? [] : [step.read]],
  ];
  return sections
    .filter(([, lines]) => lines.length > 0)
    .map(([title, lines]) =>
      title === "" ? `${lines.join("\n")}\n` : `\n${title}\n${lines.flatMap((line) => wrapped(line)).join("\n")}\n`,
    )
    .join("");
}

const WIDTH = 110;

function shortened(text: string): string {
  return text.length > 200 ? `${text.slice(0, 199)}…` : text.replaceAll("\n", ", ");
}

/** Paragraphs with a hanging indent. */
function wrapped(text: string): string[] {
  const lines: string[] = [];
  let line = "  -";
  for (const word of text.split(" ")) {
    if (line.length + word.length + 1 > WIDTH && line.trim() !== "-") {
      lines.push(line);
      line = "   ";
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}
