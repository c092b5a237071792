import { ContainerError } from "../error.ts";

/**
 * Go's templates (text/template) as far as people use them with --format: fields, variables, parentheses and pipes;
 * if, range and with, each with else; json, index, len, join, upper, lower, println, eq, ne, not, and, or.
 */
export type Template = (value: unknown) => string;

type Scope = { dot: unknown; variables: Map<string, unknown> };
type Part = (scope: Scope) => string;
type Term = (scope: Scope) => unknown;

/** @throws ContainerError ERR_USAGE, also when the template asks for what is not there */
export function parseTemplate(text: string): Template {
  const pieces = text
    .replaceAll("\\t", "\t")
    .replaceAll("\\n", "\n")
    .split(/(\{\{-?(?:"(?:[^"\\]|\\.)*"|`[^`]*`|(?!\}\}).)*\}\})/s);
  const parts = new Parser(pieces).parts([]);
  return (value) => parts({ dot: value, variables: new Map([["$", value]]) });
}

function fault(why: string): ContainerError {
  return new ContainerError({ message: `cannot use the format: ${why}`, code: "ERR_USAGE" });
}

const KEYWORDS = /^(if|range|with|else|end)\b\s*(.*)$/s;

class Parser {
  readonly #pieces: string[];

  constructor(pieces: string[]) {
    this.#pieces = pieces.map((piece, at) => {
      // a dash takes the blanks beside it away
      const before = pieces[at - 1]?.endsWith("-}}") === true ? piece.trimStart() : piece;
      return pieces[at + 1]?.startsWith("{{-") === true ? before.trimEnd() : before;
    });
  }

  /** What comes until one of these words, which stays the next piece; without any, all. */
  parts(ends: readonly string[]): Part {
    const parts: Part[] = [];
    for (;;) {
      const piece = this.#pieces[0];
      if (piece === undefined) {
        if (ends.length > 0) throw fault("an end is missing");
        return (scope) => parts.map((part) => part(scope)).join("");
      }
      const action = inside(piece);
      const [, word = "", rest = ""] = KEYWORDS.exec(action ?? "") ?? [];
      if (ends.includes(word)) return (scope) => parts.map((part) => part(scope)).join("");
      this.#pieces.shift();
      if (action === undefined) {
        if (piece.includes("{{")) throw fault("a {{ is not closed");
        parts.push(() => piece);
      } else if (word === "else" || word === "end") throw fault(`${word} belongs to nothing`);
      else if (word !== "") parts.push(this.#block(word, rest));
      else if (!action.startsWith("/*")) parts.push(print(action));
    }
  }

  #block(word: string, condition: string): Part {
    const [, key, value, source = condition] =
      /^(?:(\$\w+)\s*,\s*)?(\$\w+)\s*:=\s*(.*)$/s.exec(condition) ?? ([] as undefined[]);
    const term = parseTerm(source);
    const body = this.parts(["else", "end"]);
    const next = inside(this.#pieces.shift() ?? "") ?? "";
    let otherwise: Part = () => "";
    const [, nested] = /^else\s+(if\s.*)$/s.exec(next) ?? [];
    if (nested !== undefined) otherwise = this.#block("if", nested.slice(3));
    else if (next.startsWith("else")) {
      otherwise = this.parts(["end"]);
      this.#pieces.shift();
    }
    return (scope) => {
      const found = term(scope);
      if (!isTrue(found)) return otherwise(scope);
      if (word === "if") return body(scope);
      const entries = word === "range" ? entriesOf(found) : [["", found] as const];
      return entries
        .map(([name, dot]) => {
          const variables = new Map(scope.variables);
          if (key !== undefined) variables.set(key, name);
          if (value !== undefined) variables.set(value, dot);
          return body({ dot, variables });
        })
        .join("");
    };
  }
}

function inside(piece: string): string | undefined {
  return /^\{\{-?(.*?)-?\}\}$/s.exec(piece)?.[1]?.trim();
}

function print(action: string): Part {
  const [, name, source = action] = /^(\$\w+)\s*:=\s*(.*)$/s.exec(action) ?? [];
  const term = parseTerm(source);
  return (scope) => {
    const value = term(scope);
    if (name === undefined) return inWords(value);
    scope.variables.set(name, value);
    return "";
  };
}

const WORD = /\s*("(?:[^"\\]|\\.)*"|`[^`]*`|[()|]|[^\s()|"`]+)/y;

function parseTerm(source: string): Term {
  const words: string[] = [];
  WORD.lastIndex = 0;
  for (let at = 0; source.slice(at).trim() !== ""; at = WORD.lastIndex) {
    const [, word] = WORD.exec(source) ?? [];
    if (word === undefined) throw fault(`${source.slice(at).trim()} is not understood`);
    words.push(word);
  }
  const term = pipeline(words);
  if (words.length > 0) throw fault(`${words.join(" ")} is too much`);
  return term;
}

/** Each command's result is the last argument of the next. */
function pipeline(words: string[]): Term {
  let term = command(words);
  while (words[0] === "|") {
    words.shift();
    term = command(words, term);
  }
  return term;
}

function command(words: string[], last?: Term): Term {
  const name = words[0] ?? "";
  const use = FUNCTIONS[name];
  if (use !== undefined) words.shift();
  const terms: Term[] = [];
  while (words.length > 0 && words[0] !== "|" && words[0] !== ")") terms.push(operand(words));
  if (last !== undefined) terms.push(last);
  if (use !== undefined) return (scope) => use(...terms.map((term) => term(scope)));
  const [only] = terms;
  if (only === undefined) throw fault("it is empty somewhere");
  if (terms.length > 1) throw fault(`${name} is no function`);
  return only;
}

function operand(words: string[]): Term {
  const word = words.shift() ?? "";
  if (word === "(") {
    const term = pipeline(words);
    if (words.shift() !== ")") throw fault("a ) is missing");
    return words[0]?.startsWith(".") === true && words[0] !== "." ? fields(term, words.shift() ?? "") : term;
  }
  if (word.startsWith("`")) return () => word.slice(1, -1);
  if (word.startsWith('"')) return literal(word);
  if (/^-?\d+(\.\d+)?$/.test(word)) return () => Number(word);
  if (word === "true" || word === "false") return () => word === "true";
  if (word === "nil") return () => null;
  const [, variable = "", path = ""] = /^(\$\w*)?((?:\.\w*)*)$/.exec(word) ?? [];
  if (variable === "" && path === "") throw fault(`${word} is not understood`);
  return fields((scope) => {
    if (variable === "") return scope.dot;
    if (!scope.variables.has(variable)) throw fault(`there is no variable ${variable}`);
    return scope.variables.get(variable);
  }, path);
}

function literal(word: string): Term {
  try {
    const text: unknown = JSON.parse(word);
    return () => text;
  } catch {
    throw fault(`${word} is no string`);
  }
}

function fields(of: Term, path: string): Term {
  const names = path.split(".").filter((name) => name !== "");
  return (scope) =>
    names.reduce((value: unknown, name) => {
      if (typeof value === "object" && value !== null && Object.hasOwn(value, name)) return Reflect.get(value, name);
      throw fault(`there is no field ${name}${path === `.${name}` ? "" : ` in ${path}`}`);
    }, of(scope));
}

const FUNCTIONS: { [name: string]: (...values: unknown[]) => unknown } = {
  json: (value) => JSON.stringify(value),
  index: (value, ...keys) =>
    keys.reduce((inner: unknown, key) => {
      if (typeof inner !== "object" || inner === null) return "";
      return Object.hasOwn(inner, String(key)) ? Reflect.get(inner, String(key)) : "";
    }, value),
  len: (value) => (typeof value === "string" ? Buffer.byteLength(value) : entriesOf(value).length),
  join: (value, separator) => (Array.isArray(value) ? value.map(inWords).join(String(separator)) : inWords(value)),
  upper: (value) => inWords(value).toUpperCase(),
  lower: (value) => inWords(value).toLowerCase(),
  println: (...values) => `${values.map(inWords).join(" ")}\n`,
  eq: (value, ...others) => others.some((other) => inWords(other) === inWords(value)),
  ne: (value, other) => inWords(other) !== inWords(value),
  not: (value) => !isTrue(value),
  and: (...values) => values.find((value) => !isTrue(value)) ?? values.at(-1),
  or: (...values) => values.find(isTrue) ?? values.at(-1),
};

function isTrue(value: unknown): boolean {
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

function entriesOf(value: unknown): (readonly [string | number, unknown])[] {
  if (Array.isArray(value)) return value.map((each: unknown, at) => [at, each] as const);
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
}

/** As Go prints a value. */
function inWords(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(inWords).join(" ")}]`;
  if (typeof value !== "object" || value === null)
    return value === null || value === undefined ? "<nil>" : String(value);
  return `map[${entriesOf(value)
    .map(([name, each]) => `${name}:${inWords(each)}`)
    .join(" ")}]`;
}
