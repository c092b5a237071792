/** One thing wrong with a document. */
export interface Fault {
  /** JSON pointer (RFC 6901); "" is the whole document. */
  pointer: string;
  /** Follows the pointer in a sentence: "must be a string, not 5". */
  message: string;
}

/** Where a shape is reading, and what it has found wrong so far. */
export interface Place {
  readonly tokens: (string | number)[];
  readonly faults: Fault[];
  /** Of all faults, also those beyond the first MOST_FAULTS. */
  faultCount: number;
}

/** Reads an unknown value: a sound one is returned, without unknown members; otherwise faults are noted. */
export type Shape<T> = (value: unknown, place: Place) => T | undefined;

/** Notes a fault, at a member of the present value if tokens are given. */
export type Complain = (message: string, ...tokens: (string | number)[]) => void;

/** A document with a fault on every line is not worth listing in full. */
const MOST_FAULTS = 100;

/** What JSON.parse would round is kept as text behind this sign, which no sound string contains. See `parse`. */
export const LONG_NUMBER = "\0";

/** Reads a whole document. value is undefined exactly if there are faults. */
export function read<T>(shape: Shape<T>, document: unknown): { value: T | undefined; faults: Fault[] } {
  const place: Place = { tokens: [], faults: [], faultCount: 0 };
  const value = shape(document, place);
  return { value: place.faults.length > 0 ? undefined : value, faults: place.faults };
}

export const string: Shape<string> = (value, place) => {
  if (typeof value !== "string") return wrong(place, "must be a string", value);
  if (!value.includes("\0")) return value;
  if (longNumber(value) !== undefined) return wrong(place, "must be a string", value);
  return fault(place, "must not contain a NUL character: the kernel would stop reading there");
};

export const boolean: Shape<boolean> = (value, place) =>
  typeof value === "boolean" ? value : wrong(place, "must be true or false", value);

export function integer(min: number, max: number): Shape<number> {
  return (value, place) => {
    if (Number.isInteger(value) && Number(value) >= min && Number(value) <= max) return Number(value);
    const isNumber = Number.isInteger(value) || longNumber(value) !== undefined;
    return wrong(place, isNumber ? `must be from ${min} to ${max}` : "must be an integer", value);
  };
}

export function integer64(min: bigint, max: bigint): Shape<number | bigint> {
  return (value, place) => {
    const digits = longNumber(value);
    if (digits === undefined && !Number.isInteger(value)) return wrong(place, "must be an integer", value);
    const exact = digits === undefined ? Number(value) : BigInt(digits);
    if (exact < min || exact > max) return wrong(place, `must be from ${min} to ${max}`, value);
    return Number.isSafeInteger(Number(exact)) ? Number(exact) : BigInt(exact);
  };
}

export function oneOf<T extends string>(words: readonly T[]): Shape<T> {
  return (value, place) =>
    words.find((word) => word === value) ??
    wrong(place, `must be ${words.length > 1 ? "one of " : ""}${words.join(", ")}`, value);
}

export function pattern(expression: RegExp, description: string): Shape<string> {
  return check(string, (value, complain) => {
    if (!expression.test(value)) complain(`must be ${description}, not ${describe(value)}`);
  });
}

export function array<T>(item: Shape<T>, { min = 0 } = {}): Shape<T[]> {
  return (value, place) => {
    if (!Array.isArray(value)) return wrong(place, "must be an array", value);
    if (value.length < min) return fault(place, `must have at least ${min} item${min > 1 ? "s" : ""}`);
    const result: T[] = [];
    for (let index = 0; index < value.length; index++) {
      place.tokens.push(index);
      const member = item(value[index], place);
      place.tokens.pop();
      if (member !== undefined) result.push(member);
    }
    return result.length === value.length ? result : undefined;
  };
}

/** An object with members of any name, all of one shape. */
export function map<T>(item: Shape<T>): Shape<Record<string, T>> {
  return (value, place) => {
    if (!isObject(value)) return wrong(place, "must be an object", value);
    const result: [string, T][] = [];
    const names = Object.keys(value);
    for (const name of names) {
      place.tokens.push(name);
      const member = item(value[name], place);
      place.tokens.pop();
      if (member !== undefined) result.push([name, member]);
    }
    // Object.fromEntries defines members, so that "__proto__" is only another name.
    return result.length === names.length ? Object.fromEntries(result) : undefined;
  };
}

type OptionalKeys<T> = { [K in keyof T]-?: Record<never, never> extends Pick<T, K> ? K : never }[keyof T];
type Required<T> = { [K in Exclude<keyof T, OptionalKeys<T>>]: Shape<T[K]> };
type Optional<T> = { [K in OptionalKeys<T>]-?: Shape<Exclude<T[K], undefined>> };

/**
 * An object with exactly the members of T (the compiler counts them); members of other names are left out, and so are
 * those that are null: programs in Go write that for what is not there, and runc reads it so.
 */
export function object<T extends object>(required: Required<T>, optional: Optional<T>): Shape<T> {
  const fields = new Map(Object.entries<Shape<unknown>>({ ...required, ...optional }));
  const needed = Object.keys(required);
  return (value, place) => {
    if (!isObject(value)) return wrong(place, "must be an object", value);
    const before = place.faultCount;
    const result: Record<string, unknown> = {};
    for (const name of Object.keys(value)) {
      const shape = fields.get(name);
      if (shape === undefined || value[name] === null) continue;
      place.tokens.push(name);
      result[name] = shape(value[name], place);
      place.tokens.pop();
    }
    for (const name of needed) if (!Object.hasOwn(result, name)) fault(place, "is required", name);
    return place.faultCount === before ? (result as T) : undefined; // the types of the two tables are made from T
  };
}

/** A rule on top of a shape, asked only about values that have it. */
export function check<T>(shape: Shape<T>, rule: (value: T, complain: Complain) => void): Shape<T> {
  return (value, place) => {
    const result = shape(value, place);
    if (result === undefined) return undefined;
    const before = place.faultCount;
    rule(result, (message, ...tokens) => fault(place, message, ...tokens));
    return place.faultCount === before ? result : undefined;
  };
}

/** A value for an error message: short, on one line, and without control characters. */
export function describe(value: unknown): string {
  const digits = longNumber(value);
  if (digits !== undefined) return digits;
  if (Array.isArray(value)) return "an array";
  if (isObject(value)) return "an object";
  const text = typeof value === "string" ? JSON.stringify(value.slice(0, 61)) : String(value);
  return text.length > 63 ? `${text.slice(0, 60)}…"` : text;
}

export function pointerTo(tokens: readonly (string | number)[]): string {
  return tokens.map((token) => `/${String(token).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
}

function wrong(place: Place, expected: string, value: unknown): undefined {
  return fault(place, `${expected}, not ${describe(value)}`);
}

function fault(place: Place, message: string, ...tokens: (string | number)[]): undefined {
  if (++place.faultCount <= MOST_FAULTS)
    place.faults.push({ pointer: pointerTo([...place.tokens, ...tokens]), message });
  return undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The digits of an integer that a number cannot hold. */
function longNumber(value: unknown): string | undefined {
  const isLong = typeof value === "string" && value.startsWith(LONG_NUMBER) && /^\0-?[0-9]+$/.test(value);
  return isLong ? value.slice(LONG_NUMBER.length) : undefined;
}
