import * as fc from "fast-check";

/**
 * What every test with drawn values starts from: the same in each run, so that a failure tells of the change and not of
 * the draw. FUZZ_SEED has another one, and "random" one that nobody has tried yet.
 */
export const FUZZ_SEED =
  process.env.FUZZ_SEED === "random" ? 1 + Math.floor(Math.random() * 2 ** 31) : Number(process.env.FUZZ_SEED ?? 1);

fc.configureGlobal({ seed: FUZZ_SEED });

export { fc };
