import { ContainerError } from "../error.ts";
import type { Value, Variant } from "./value.ts";

/** GVariant's words for types, as a prefix of a value. */
const KEYWORDS: { [word: string]: string } = {
  boolean: "b",
  byte: "y",
  int16: "n",
  uint16: "q",
  int32: "i",
  uint32: "u",
  handle: "h",
  int64: "x",
  uint64: "t",
  double: "d",
  string: "s",
  objectpath: "o",
  signature: "g",
};
/** [smallest, largest] */
const RANGES: { [code: string]: readonly [bigint, bigint] } = {
  y: [0n, 255n],
  n: [-(1n << 15n), (1n << 15n) - 1n],
  q: [0n, (1n << 16n) - 1n],
  i: [-(1n << 31n), (1n << 31n) - 1n],
  u: [0n, (1n << 32n) - 1n],
  h: [-(1n << 31n), (1n << 31n) - 1n],
  x: [-(1n << 63n), (1n << 63n) - 1n],
  t: [0n, (1n << 64n) - 1n],
};
const TOKEN =
  /\s*(@[a-z(){}]+|[[\](),<>]|b?'(?:[^'\\]|\\.)*'|b?"(?:[^"\\]|\\.)*"|[-+.0-9][-+.0-9a-zA-Z]*|[a-z][a-z0-9]*)/y;
const ESCAPES: { [letter: string]: string } = { a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };

/**
 * A value in GVariant's text format, which annotations have: true, 5, uint64 5, 1.5, 'text', ['a', 'b'], (1, 'a'),
 * <variant>, @as []. A number without a type is an int32, or a double if it has a point.
 * @throws ContainerError EINVAL
 */
export function parseVariant(text: string): Variant {
  const tokens = tokenize(text);
  const parser = new Parser(tokens, text);
  const variant = parser.value(undefined);
  if (!parser.done) throw wrong(text, "there is something behind the value");
  return variant;
}

function tokenize(text: string): string[] {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  for (let at = 0; text.slice(at).trim() !== ""; at = TOKEN.lastIndex) {
    TOKEN.lastIndex = at;
    const token = TOKEN.exec(text)?.[1];
    if (token === undefined) throw wrong(text, `${JSON.stringify(text.slice(at))} cannot be understood`);
    tokens.push(token);
  }
  return tokens;
}

class Parser {
  readonly #tokens: readonly string[];
  readonly #text: string;
  #at = 0;

  constructor(tokens: readonly string[], text: string) {
    this.#tokens = tokens;
    this.#text = text;
  }

  get done(): boolean {
    return this.#at === this.#tokens.length;
  }

  /** @param wanted the type that the surroundings give it */
  value(wanted: string | undefined): Variant {
    const token = this.#tokens[this.#at++];
    if (token === undefined) throw wrong(this.#text, "it ends too early");
    const keyword = KEYWORDS[token];
    if (keyword !== undefined) return this.value(this.#same(wanted, keyword));
    if (token.startsWith("@")) return this.value(this.#same(wanted, token.slice(1)));
    if (token === "true" || token === "false") return { signature: this.#same(wanted, "b"), value: token === "true" };
    if (token === "[") return this.#array(wanted);
    if (token === "(") return this.#structure(wanted);
    if (token === "<") {
      const variant = this.value(undefined);
      this.#expect(">");
      return { signature: this.#same(wanted, "v"), value: variant };
    }
    if (/^b?['"]/.test(token)) return this.#quoted(token, wanted);
    if (/^[-+.0-9]/.test(token)) return this.#number(token, wanted);
    throw wrong(this.#text, `${token} cannot be understood`);
  }

  #array(wanted: string | undefined): Variant {
    if (wanted !== undefined && !wanted.startsWith("a")) throw wrong(this.#text, `an array is not of type ${wanted}`);
    let element = wanted?.slice(1);
    const items: Value[] = [];
    while (this.#tokens[this.#at] !== "]") {
      if (items.length > 0) this.#expect(",");
      const item = this.value(element);
      element ??= item.signature;
      items.push(item.value);
    }
    this.#at++;
    if (element === undefined) throw wrong(this.#text, "an empty array must have its type before it, such as @as []");
    const bytes = element === "y" ? Uint8Array.from(items, Number) : undefined;
    return { signature: `a${element}`, value: bytes ?? items };
  }

  #structure(wanted: string | undefined): Variant {
    if (wanted !== undefined && !/^\([a-z]+\)$/.test(wanted))
      throw wrong(this.#text, `a structure of type ${wanted} is too much for a property`);
    const types = wanted === undefined ? undefined : [...wanted.slice(1, -1)];
    const fields: Variant[] = [];
    while (this.#tokens[this.#at] !== ")") {
      if (fields.length > 0) this.#expect(",");
      fields.push(this.value(types?.[fields.length]));
    }
    this.#at++;
    const signature = `(${fields.map((field) => field.signature).join("")})`;
    if (fields.length === 0) throw wrong(this.#text, "D-Bus has no structure without fields");
    return { signature: this.#same(wanted, signature), value: fields.map((field) => field.value) };
  }

  #quoted(token: string, wanted: string | undefined): Variant {
    const bytes = token.startsWith("b");
    const inner = token.slice(bytes ? 2 : 1, -1);
    const value = inner.replace(/\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)/gs, (_, what: string) =>
      /^[uU]./.test(what)
        ? String.fromCodePoint(Number.parseInt(what.slice(1), 16))
        : /^[0-7]/.test(what)
          ? String.fromCharCode(Number.parseInt(what, 8))
          : (ESCAPES[what] ?? what),
    );
    if (bytes) return { signature: this.#same(wanted, "ay"), value: Buffer.from(`${value}\0`, "latin1") };
    if (wanted !== undefined && !["s", "o", "g"].includes(wanted))
      throw wrong(this.#text, `a string is not of type ${wanted}`);
    return { signature: wanted ?? "s", value };
  }

  #number(token: string, wanted: string | undefined): Variant {
    const signature = wanted ?? (/^[-+]?(0x[0-9a-fA-F]+|[0-9]+)$/.test(token) ? "i" : "d");
    if (signature === "d") {
      const value = Number(token);
      if (Number.isNaN(value)) throw wrong(this.#text, `${token} is no number`);
      return { signature, value };
    }
    const [, sign = "", digits = ""] = /^([-+]?)(0x[0-9a-fA-F]+|[0-9]+)$/.exec(token) ?? [];
    const range = RANGES[signature];
    if (digits === "" || range === undefined) throw wrong(this.#text, `${token} is not of type ${signature}`);
    // as in C, a leading zero means octal
    const size = BigInt(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
    const value = sign === "-" ? -size : size;
    if (value < range[0] || value > range[1]) throw wrong(this.#text, `${token} is out of the range of ${signature}`);
    return { signature, value: signature === "x" || signature === "t" ? value : Number(value) };
  }

  #same(wanted: string | undefined, given: string): string {
    if (wanted !== undefined && wanted !== given)
      throw wrong(this.#text, `${given} is given where ${wanted} is wanted`);
    return given;
  }

  #expect(token: string): void {
    if (this.#tokens[this.#at++] !== token) throw wrong(this.#text, `${token} is missing`);
  }
}

function wrong(text: string, reason: string): ContainerError {
  return new ContainerError({
    message: `cannot parse ${JSON.stringify(text)} as a GVariant: ${reason}`,
    code: "EINVAL",
  });
}
