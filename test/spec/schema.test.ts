import { describe, expect, test } from "vitest";
import { faultsOf, parse } from "../../src/spec/parse.ts";
import { fc } from "../support/fuzz.ts";
import { everything, toJson } from "./everything.ts";
import { configSchema, examples, hasSchema, WITHOUT_SCHEMA } from "./oci-schema.ts";

/** Where we accept what the schema refuses, and why. */
const LAXER = [
  { at: /^\/linux\/devices\/\d+\/fileMode$/, keyword: "maximum", why: "clients have sent st_mode with its file type" },
];

/** Where we refuse what the schema accepts: the prose of the specification and the kernel say more than the schema. */
const STRICTER = [
  /^\/ociVersion must be a version/,
  /\/(path|destination|cwd|(masked|readonly)Paths\/\d+) must (not be empty|be an absolute path)/,
  /\/env\/\d+ must have the form NAME=value/,
  /\/(soft|hard) must (be from|not exceed the hard limit)/,
  /\/rlimits\/\d+\/type must be one of RLIMIT_/,
  /\/(rlimits|namespaces)\/\d+\/type "[A-Z_a-z]+" is there twice/,
  /\/(height|width|oomScoreAdj|nice|runtime|deadline|period|major|minor|nanosecs|secs|index|timeout|size) must be from/,
  /\/(swappiness|shares|quota|burst|realtimeRuntime|realtimePeriod|idle|limit|value|valueTwo|rate|kernel|kernelTCP|reservation|swap) must be from/,
  /\/(uid|gid|additionalGids\/\d+|containerID|hostID) must be from 0 to 4294967294/,
  /\/size must (be at least 1|not reach beyond)/,
  /\/(containerID|hostID) overlaps with an earlier mapping/,
  /\/scheduler\/(priority|runtime|deadline|period) (must be|is only for)/,
  /\/ioPriority\/priority must be from 0 to 7/,
  /\/(weight|leafWeight) must be from 10 to 1000/,
  /\/linux\/resources\/devices\/\d+\/(type|access) must be/,
  /\/netDevices\/.* (must be the name of a network interface|is there twice)/,
  /\/linux\/cgroupsPath must not contain/,
  /\/unified\/.* must be a file name/,
  /\/closID must be a file name/,
  /\/sysctl\/.*(must be the name of a setting|is a setting of the whole machine|has a field of its own)/,
  /\/seccomp\/.*(must not be there|must be at most|is required for SCMP_ACT_NOTIFY|must not be SCMP_ACT_NOTIFY)/,
  /\/memoryPolicy\/(mode is required|nodes (is required for|must be empty for|must be a list))/,
  /\/(nodes|initial|final) must be a list/,
  /\/memoryPolicy\/flags must not have both/,
  /\/(hostname|domainname) must not be longer/,
  /^\/annotations\/ must have a key/,
  /needs a namespace of type/,
  /\/(uid|gid)Mappings is required/,
  /^\/mounts\/\d+\/(source is required for a bind|options (must have bind or rbind|has r?idmap))/,
  // a name of the document's own is there for its value
  /\/(annotations|sysctl|unified|netDevices|rdma)\/.* must be (a string|an object), not null/,
  // In a map of strings the schema's ".{1,}" lets the empty name through, and names of line ends, whatever they hold.
  /\/(annotations|sysctl|unified)\/[\\nr]* must be a string/,
];

/** What is null is not there, for us: the schema is asked about the document without it. */
function withoutNulls(value: Json): Json {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).filter(([, member]) => member !== null);
  return Object.fromEntries(members.map(([name, member]) => [name, withoutNulls(member)]));
}

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** A place in a document: how to read it, replace it and remove it. */
function places(value: Json, tokens: (string | number)[] = []): (string | number)[][] {
  const members = typeof value === "object" && value !== null ? Object.entries(value) : [];
  return [tokens, ...members.flatMap(([name, member]) => places(member, [...tokens, name]))];
}

function replace(document: Json, [first, ...rest]: (string | number)[], value: Json | undefined): Json | undefined {
  if (first === undefined) return value;
  if (typeof document !== "object" || document === null) return document;
  const copy = (Array.isArray(document) ? [...document] : { ...document }) as { [name: string]: Json };
  const old = copy[first];
  const changed = old === undefined ? undefined : replace(old, rest, value);
  if (changed !== undefined) copy[first] = changed;
  else if (Array.isArray(copy)) copy.splice(Number(first), 1);
  else delete copy[first];
  return copy;
}

/** undefined removes the member. */
const VALUES: (Json | undefined)[] = [
  ...[undefined, null, true, false, [], {}, "", "x", "/x", "..", "a=b", "-", "CAP_KILL"],
  ...[-1, 0, 1, 0.5, 99, 512, 0xffff, 0x10000, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53, 2 ** 63, 2 ** 70, -(2 ** 63)],
  ...[["x"], [1], [null], [[]], { x: 1 }, { "": 1 }, { "\n": 1 }, { path: "/x" }, { type: "pid" }],
  ...["SCMP_ACT_NOTIFY", "SCMP_ACT_ALLOW", "SCHED_FIFO", "MPOL_DEFAULT", "user", "b", "1MB", "1kB", "RLIMIT_X"],
];

/** With numbers that survive JSON.parse: the schema's judge knows no others. */
const GOOD = JSON.parse(toJson(everything()).replace(/[0-9]{16,}/g, "5000")) as Json;

const someChanges = fc.array(
  fc.tuple(fc.nat(), fc.oneof(fc.constantFrom(...VALUES), fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<Json>)),
  { minLength: 2, maxLength: 4 },
);

function changed(changes: [number, Json | undefined][]): Json {
  return changes.reduce((document: Json, [choice, value]) => {
    const all = places(document);
    return replace(document, all[choice % all.length] ?? [], value) ?? null;
  }, GOOD);
}

function faultsIn(json: string) {
  try {
    parse(json);
    return [];
  } catch (error) {
    const faults = faultsOf(error);
    if (faults.length === 0) throw error;
    return faults;
  }
}

describe.skipIf(!hasSchema)(`the OCI's schema and parse agree${hasSchema ? "" : ` (${WITHOUT_SCHEMA})`}`, () => {
  const judge = hasSchema ? configSchema() : undefined;
  const accepts = (document: Json) => judge?.(withoutNulls(document)) ?? false;
  /** The faults that the schema should have found, too. */
  const surprises = (json: string) =>
    faultsIn(json)
      .map(({ pointer, message }) => `${JSON.stringify(pointer).slice(1, -1)} ${message}`)
      .filter((line) => !STRICTER.some((known) => known.test(line)));

  /** Where the two disagree without a known reason. */
  function disagreement(document: Json): string[] {
    const json = JSON.stringify(document);
    if (accepts(document)) return surprises(json).map((line) => `refused although the schema accepts: ${line}`);
    const { instancePath = "", keyword, message } = judge?.errors?.[0] ?? {};
    if (faultsIn(json).length > 0 || LAXER.some((known) => known.at.test(instancePath) && known.keyword === keyword))
      return [];
    return [`accepted although ${instancePath} ${message}`];
  }

  test("about the document with every field", () => {
    expect(accepts(GOOD)).toBe(true);
    expect(faultsIn(JSON.stringify(GOOD))).toEqual([]);
    expect(faultsIn(toJson(everything()))).toEqual([]);
  });

  test("about it with any one member replaced or removed", () => {
    const found = places(GOOD).flatMap((place) =>
      VALUES.flatMap((value) => disagreement(replace(GOOD, place, value) ?? null)),
    );
    expect([...new Set(found)]).toEqual([]);
  });

  test("about it with several members replaced or removed", () => {
    fc.assert(
      fc.property(someChanges, (changes) => {
        expect(disagreement(changed(changes))).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });

  test.each(hasSchema ? examples("good") : [])("the good example %s is accepted", (_, json) => {
    expect(surprises(json)).toEqual([]);
  });

  // FreeBSD's part is none of our business: it is left out like any unknown member.
  test.each((hasSchema ? examples("bad") : []).filter(([name]) => !name.startsWith("freebsd")))(
    "the bad example %s is refused",
    (_, json) => {
      expect(faultsIn(json)).not.toEqual([]);
    },
  );
});
