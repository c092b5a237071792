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
    const [, given = "", value] = /^--?([^=]+)(?:=(.*))?$/s.exec(word) ?? [];
    const [name, flag] =
      Object.entries(definition).find(([long, { short }]) => long === given || short === given) ?? [];
    if (name === undefined || flag === undefined)
      throw new ContainerError({ message: `flag provided but not defined: -${given}`, code: "ERR_USAGE" });
    if (flag.kind === "boolean") {
      flags[name] = value === undefined || value === "true";
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

/** A command's help: its flags, one a line. */
export function flagHelp(definition: Flags): string {
  return Object.entries(definition)
    .map(
      ([name, { kind, short, help }]) =>
        `   ${`--${name}${short === undefined ? "" : `, -${short}`}${kind === "boolean" ? "" : " value"}`.padEnd(34)}${help}`,
    )
    .join("\n");
}
