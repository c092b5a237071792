import { encode, HEADER_BYTES, STEP_BYTES } from "../plan/encode.ts";
import { INIT_STEPS, isInit, type Plan } from "../plan/step.ts";
import type { TracedStep } from "./join.ts";

const PAGE_BYTES = 4096n;
const BLOB_HEADER_BYTES = 8;

/** Something of the plan that a system call's argument can point at. */
interface Region {
  start: number;
  length: number;
  /** In words, from so many bytes after its start on; undefined where that is the middle of something. */
  text: (offset: number) => string | undefined;
  /** Nothing is there: its place is that of what follows. */
  empty?: boolean;
}

/**
 * What init's pointers pointed at. A report has addresses only; but init reads its strings out of the plan's bytes,
 * and those are known. Where it had mapped them is what the calls agree upon: a page that makes their pointers point
 * at their own steps' arguments.
 * @param secrets whether the environment's variables are told
 * @returns words for an address that a step's call was given; undefined for one that is not the plan's
 */
export function planMemory(
  traced: readonly TracedStep[],
  secrets: boolean,
): (address: bigint, index: number) => string | undefined {
  const plan = traced.filter(({ undo }) => !undo).map(({ step }) => step);
  const regions = regionsOf(plan, secrets);
  const base = baseOf(traced, regions);
  const all = [...regions.values()].flat();
  return (address, index) => {
    if (base === undefined) return;
    const offset = Number(address - base);
    const holds = ({ start, length }: Region) => offset >= start && offset < start + length;
    // an empty blob ends where something of another step's begins
    const region = regions.get(index)?.find(holds) ?? all.find((each) => holds(each) && !each.empty);
    return region?.text(offset - region.start);
  };
}

/** By index of the step. */
function regionsOf(plan: Plan, secrets: boolean): Map<number, Region[]> {
  const bytes = Buffer.from(encode(plan).bytes);
  const word = (at: number) => Number(bytes.readBigUInt64LE(at));
  const regions = new Map<number, Region[]>();
  plan.filter(isInit).forEach((step, at) => {
    const kinds = Object.entries(INIT_STEPS[step.name].args);
    const found = kinds.flatMap(([argument, kind], i): Region[] => {
      const start = word(HEADER_BYTES + at * STEP_BYTES + 8 + i * 8);
      const value: unknown = Reflect.get(step.args, argument);
      if (kind === "string") return [stringRegion(bytes, start)];
      if (kind === "bytes" && value instanceof Uint8Array)
        return [
          {
            start: start + BLOB_HEADER_BYTES,
            length: Math.max(value.length, 1),
            text: () => `<${value.length} bytes>`,
            empty: value.length === 0,
          },
        ];
      if (kind !== "strings" || !Array.isArray(value)) return [];
      const hidden = argument === "environment" && !secrets;
      const text = () => (hidden ? `<${value.length} variables>` : printVector(value.map(String)));
      const vector = { start, length: value.length * 8 + 8, text };
      return hidden ? [vector] : [vector, ...value.map((_, n) => stringRegion(bytes, word(start + n * 8)))];
    });
    regions.set(plan.indexOf(step), found);
  });
  return regions;
}

function stringRegion(bytes: Buffer, start: number): Region {
  const end = bytes.indexOf(0, start);
  return {
    start,
    length: end - start + 1,
    text: (offset) => JSON.stringify(bytes.toString("utf8", start + offset, end)),
  };
}

function printVector(strings: readonly string[]): string {
  return `[${strings.map((text) => JSON.stringify(text)).join(", ")}]`;
}

function baseOf(traced: readonly TracedStep[], regions: ReadonlyMap<number, Region[]>): bigint | undefined {
  const votes = new Map<bigint, number>();
  for (const { index, side, calls } of traced) {
    if (side === "host") continue;
    for (const pointer of calls.flatMap(({ args }) => args))
      for (const { start } of regions.get(index) ?? []) {
        const base = pointer - BigInt(start);
        if (base > 0n && base % PAGE_BYTES === 0n) votes.set(base, (votes.get(base) ?? 0) + 1);
      }
  }
  return [...votes].sort(([, one], [, other]) => other - one)[0]?.[0];
}
