import { ContainerError } from "../../error.ts";

/** What a flag takes: nothing, one word, or a word each time it is given. */
type Kind = "boolean" | "string" | "strings";

/** Flags of a command: long name → kind, one-letter alias, help. */
export type Flags = {
  readonly [name: string]: { readonly kind: Kind; readonly short?: string; readonly help: string };
};

type Of<F extends Flags> = {
  [N in keyof F]: F[N]["kind"] extends "boolean"
    ? boolean
    : F[N]["kind"] extends "string"
      ? string | undefined
      : string[];
};

export interface Words<F extends Flags> {
  flags: Of<F>;
  rest: string[];
}

/**
 * Splits a command's words into flags and the rest, as runc does: flags end at the first word that is none; long names
 * may have one dash; "--name=value" and "--name value" are the same.
 * @throws ContainerError in runc's words
 */
export function parseFlags<const F extends Flags>(definition: F, words: readonly string[]): Words<F> {
  const flags: { [name: string]: boolean | string | string[] | undefined } = {};
  for (const [name, { kind }] of Object.entries(definition))
    flags[name] = kind === "boolean" ? false : kind === "strings" ? [] : undefined;
  let at = 0;
  for (; at < words.length; at++) {
    const word = words[at] ?? "";
    if (word === "--") {
      at++;
      break;
    }
    if (!word.startsWith("-") || word === "-") break;
    const { given, name, flag, value } = flagOf(definition, word);
    if (name === undefined || flag === undefined)
      throw new ContainerError({ message: `flag provided but not defined: -${given}`, code: "ERR_USAGE" });
    if (flag.kind === "boolean") {
      flags[name] = parseBoolean(given, value ?? "true");
      continue;
    }
    const argument = value ?? words[++at];
    if (argument === undefined)
      throw new ContainerError({ message: `flag needs an argument: -${given}`, code: "ERR_USAGE" });
    const list = flags[name];
    flags[name] = Array.isArray(list) ? [...list, argument] : argument;
  }
  return { flags: flags as Of<F>, rest: words.slice(at) }; // filled according to the definition
}

function flagOf(definition: Flags, word: string) {
  const [, given = "", value] = /^--?([^=]+)(?:=(.*))?$/s.exec(word) ?? [];
  const [name, flag] = Object.entries(definition).find(([long, { short }]) => long === given || short === given) ?? [];
  return { given, name, flag, value };
}

/** strconv.ParseBool */
function parseBoolean(given: string, value: string): boolean {
  if (/^(?:1|t|T|true|TRUE|True)$/.test(value)) return true;
  if (/^(?:0|f|F|false|FALSE|False)$/.test(value)) return false;
  throw new ContainerError({
    message: `invalid boolean value ${JSON.stringify(value)} for -${given}: parse error`,
    code: "ERR_USAGE",
  });
}

/**
 * A command's words with its flags first: with runc they may stand behind the others, too, up to a "--". What looks
 * like a flag there and is none counts as a word.
 */
export function flagsFirst(definition: Flags, words: readonly string[]): string[] {
  const flags: string[] = [];
  const others: string[] = [];
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    if (word === "--") return [...flags, ...others, ...words.slice(at)];
    const { flag, value } = word.startsWith("-") ? flagOf(definition, word) : {};
    if (flag === undefined) others.push(word);
    else flags.push(...(flag.kind === "boolean" || value !== undefined ? [word] : words.slice(at, ++at + 1)));
  }
  return [...flags, ...others];
}

/** A command's help: its flags, one a line. */
export function flagHelp(definition: Flags): string {
  return Object.entries(definition)
    .map(
      ([name, { kind, short, help }]) =>
        `   ${`--${name}${short === undefined ? "" : `, -${short}`}${kind === "boolean" ? "" : " value"}`.padEnd(34)}${help}`,
    )
    .join("\n");
}
