import { engineTemplate, template } from "../../src/spec/template.ts";
import { allSteps, smallest } from "../plan/examples.ts";
import { everything, toJson } from "../spec/everything.ts";
import { fc } from "../support/fuzz.ts";

/** Documents near sound ones: every field of the specification, with members left out, moved, and values at their edges. */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** A number whose digits JSON.parse would lose: it is written as it is. */
const LONG = [
  "9223372036854775807",
  "9223372036854775808",
  "18446744073709551615",
  "18446744073709551616",
  "-9223372036854775809",
];
const NUMBERS = [
  ...[-2, -1, 0, 1, 2, 7, 9, 10, 63, 64, 99, 100, 255, 256, 511, 1000, 1024, 4095, 4096, 65535, 65536, 100_000],
  ...[2 ** 31 - 1, 2 ** 31, 2 ** 32 - 2, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, 2 ** 53, -(2 ** 31), 0.5, 1e21, 1e308],
];
const STRINGS = [
  ...[
    "",
    " ",
    "/",
    "//",
    ".",
    "..",
    "/..",
    "/../..",
    "a/b",
    "/a//b/",
    "./x",
    "/proc/self/fd/7",
    "/dev/null",
    "x".repeat(5000),
  ],
  ...[
    "\0",
    "a\0b",
    "\n",
    "a\nb=c",
    "ü",
    "\ud800",
    "\u202e",
    "%s%n",
    "$(id)",
    "`id`",
    "a=b",
    "=",
    "A=",
    "PATH=",
    "HOME=",
  ],
  ...["0-3", "3-0", "0-4294967295", "0-99999999999999999999", "-", ",", "0,,1", "1-2-3", " 0 ", "4000", "-1"],
  ...[
    "a",
    "b",
    "c",
    "p",
    "u",
    "rwm",
    "mwr",
    "x",
    "2MB",
    "1GB",
    "0MB",
    "L3:0=ff",
    "MB:0=20",
    "system.slice:a:b",
    "a:b:c:d",
  ],
  ...["__proto__", "constructor", "toString", "hasOwnProperty", "$integer", "then", "length"],
  ...[
    "bind",
    "rbind",
    "ro",
    "rro",
    "idmap",
    "ridmap",
    "remount",
    "tmpcopyup",
    "size=1k",
    "mode=",
    "=",
    "gid=5",
    "private",
    "rshared",
  ],
  ...["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay", "none"],
  ...[
    "CAP_SYS_ADMIN",
    "CAP_ALL",
    "cap_kill",
    "ALL",
    "RLIMIT_NOFILE",
    "RLIMIT_X",
    "SCHED_FIFO",
    "SCHED_DEADLINE",
    "SCHED_ISO",
  ],
  ...[
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_KILL",
    "SCMP_CMP_NE",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_ARM",
  ],
  ...[
    "read",
    "execve",
    "clone3",
    "nosuchcall",
    "socket",
    "ipc",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_F_RELATIVE_NODES",
  ],
  ...[
    "net.ipv4.ip_forward",
    "kernel.shmmax",
    "kernel.hostname",
    "user.max_user_namespaces",
    "net..x",
    "net/ipv4/../x",
    "1.0.0",
    "1.3.0",
  ],
];

const anyString = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...STRINGS) },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 40 }) },
);
const anyNumber = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...NUMBERS) },
  { weight: 1, arbitrary: fc.constantFrom(...LONG).map((digits) => `\u0001${digits}`) },
  { weight: 1, arbitrary: fc.integer() },
);
const anything: fc.Arbitrary<Json> = fc.oneof(
  anyString,
  anyNumber,
  fc.boolean(),
  fc.constantFrom<Json>(null, [], {}, [""], { "": "" }),
);

/** Another value of the same kind, mostly. */
function like(value: Json): fc.Arbitrary<Json> {
  if (typeof value === "string") return anyString;
  if (typeof value === "number") return anyNumber;
  return typeof value === "boolean" ? fc.boolean() : anything;
}

/** What is done to one place of a document. */
type Change = "remove" | "alike" | "anything" | "twice" | "many" | "rename" | "another";
const CHANGES: [number, Change][] = [
  [4, "remove"],
  [10, "alike"],
  [2, "anything"],
  [3, "twice"],
  [1, "many"],
  [2, "rename"],
  [2, "another"],
];

const BASES: Json[] = [
  everything(),
  allSteps(),
  template(),
  engineTemplate(),
  template({ rootless: { uid: 0, gid: 0 } }),
  smallest(),
].map((spec) => JSON.parse(toJson(spec).replace(/[0-9]{16,}/g, "5000")) as Json);

function places(value: Json, tokens: string[] = []): string[][] {
  const members = typeof value === "object" && value !== null ? Object.entries(value) : [];
  return [
    ...(tokens.length > 0 ? [tokens] : []),
    ...members.flatMap(([name, member]) => places(member, [...tokens, name])),
  ];
}

function at(document: Json, tokens: readonly string[]): Json | undefined {
  return tokens.reduce<Json | undefined>(
    (value, token) =>
      typeof value === "object" && value !== null ? (value as { [name: string]: Json })[token] : undefined,
    document,
  );
}

function change(document: Json, tokens: string[], kind: Change, value: Json, name: string): void {
  const holder = at(document, tokens.slice(0, -1)) as { [name: string]: Json };
  const key = tokens.at(-1) ?? "";
  const old = at(document, tokens) ?? null;
  if (kind === "alike" || kind === "anything") holder[key] = value;
  else if (Array.isArray(holder)) {
    if (kind === "remove") holder.splice(Number(key), 1);
    else if (kind === "twice") holder.push(structuredClone(old));
    else if (kind === "many") for (let i = 0; i < 400; i++) holder.push(structuredClone(old));
    else holder.push(value);
  } else if (kind === "remove" || kind === "rename") {
    delete holder[key];
    if (kind === "rename")
      Object.defineProperty(holder, name, { value: old, enumerable: true, configurable: true, writable: true });
  } else Object.defineProperty(holder, `${name}x`, { value, enumerable: true, configurable: true, writable: true });
}

/** A document with up to so many changes. */
export function documents(most = 3): fc.Arbitrary<Json> {
  return fc.gen().map((draw) => {
    const document = structuredClone(draw(() => fc.constantFrom(...BASES)));
    for (let times = draw(fc.nat, { max: most }); times > 0; times--) {
      const all = places(document);
      const tokens = all[draw(fc.nat, { max: all.length - 1 })] ?? [];
      const kind = draw(() => fc.oneof(...CHANGES.map(([weight, word]) => ({ weight, arbitrary: fc.constant(word) }))));
      const value = draw(() => (kind === "alike" ? like(at(document, tokens) ?? null) : anything));
      change(
        document,
        tokens,
        kind,
        // what is drawn may be a constant: changed later in one place, it must not change in all, or hold itself
        structuredClone(value),
        draw(() => anyString),
      );
    }
    return document;
  });
}

/** As text; numbers of many digits with all of them. */
export function textOf(document: Json): string {
  return JSON.stringify(document).replace(/"\\u0001(-?[0-9]+)"/g, "$1");
}

/** Bytes that were a document's. */
export function brokenBytes(): fc.Arbitrary<Uint8Array> {
  const pieces = [
    "1e999",
    "-0",
    "\\u0000",
    "{}",
    "[[",
    '"',
    ",",
    ":",
    "\\",
    "null",
    "\xff",
    "99999999999999999999",
    "1.0e-400",
    "/*",
    "\ufeff",
  ];
  return fc
    .tuple(
      documents(2),
      fc.array(fc.tuple(fc.nat(), fc.nat(), fc.constantFrom(...pieces), fc.nat({ max: 4 })), {
        minLength: 1,
        maxLength: 4,
      }),
    )
    .map(([document, edits]) => {
      let bytes = Buffer.from(textOf(document));
      for (const [where, length, piece, kind] of edits) {
        const from = where % (bytes.length + 1);
        const to = Math.min(bytes.length, from + (kind === 4 ? length % bytes.length : length % 9));
        const middle =
          kind === 0 ? Buffer.from([length & 0xff]) : kind < 3 ? Buffer.from(piece, "latin1") : Buffer.alloc(0);
        bytes = Buffer.concat([bytes.subarray(0, from), middle, bytes.subarray(to)]);
      }
      return new Uint8Array(bytes);
    });
}
