import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ContainerError } from "../../src/error.ts";
import { compile, compileExec } from "../../src/plan/compile.ts";
import { encode } from "../../src/plan/encode.ts";
import { explain } from "../../src/plan/explain.ts";
import type { Plan } from "../../src/plan/step.ts";
import { faultsOf, parse } from "../../src/spec/parse.ts";
import { warningsOf } from "../../src/spec/validate.ts";
import { defined, HOSTS } from "../plan/examples.ts";
import { FUZZ_SEED, fc } from "../support/fuzz.ts";
import { brokenBytes, documents, textOf } from "./specs.ts";

/*
 * Any config.json at all ends in a plan that init accepts, or in an error with the place that is to blame: nothing else,
 * and soon. FUZZ_CASES makes more of them, FUZZ_SEED others.
 */

const CASES = Number(process.env.FUZZ_CASES ?? 10_000);
/** Far more than the worst takes: what is slower has something that grows too fast. */
const SLOW_MS = 3000;

const work = mkdtempSync(join(tmpdir(), "caisson-config-"));
const harness = join(work, "verify");

beforeAll(() => {
  const sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
  const sources = ["test/native/verify_fuzz.c", "native/init/verify.c"];
  execFileSync("clang", ["-std=gnu17", "-g", "-O1", ...sanitizers, ...sources, "-o", harness], {
    cwd: resolve(import.meta.dirname, "../.."),
    stdio: "inherit",
  });
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

interface Outcomes {
  cases: number;
  faults: number;
  refused: number;
  plans: Uint8Array[];
}

/** The one way in which making a plan may fail, but for faults of the document. */
function expectPointer(error: unknown): void {
  if (!(error instanceof ContainerError)) throw error;
  expect(error.message).toMatch(/\w/);
  expect(error.from ?? error.message, `no place is given: ${error.message}`).toMatch(
    /^\/(spec|linux|process|mounts|root|hooks)/,
  );
}

function tryAll(json: string | Uint8Array, outcomes: Outcomes): void {
  const started = performance.now();
  let spec: ReturnType<typeof parse>;
  try {
    spec = parse(json, { runnable: true });
  } catch (error) {
    const faults = faultsOf(error);
    if (faults.length === 0) throw error;
    for (const { pointer, message } of faults) {
      expect(pointer).toMatch(/^(\/|$)/);
      expect(message).toMatch(/\w/);
    }
    outcomes.faults++;
    expect(performance.now() - started).toBeLessThan(SLOW_MS);
    return;
  }
  warningsOf(spec);
  const hosts = Object.values(HOSTS);
  const host = hosts[outcomes.cases++ % hosts.length] ?? HOSTS.v1;
  try {
    const plan: Plan = compile(defined({ spec }), host);
    expect(JSON.stringify(explain(plan))).not.toMatch(/undefined|\[object/);
    outcomes.plans.push(encode(plan).bytes);
    if (spec.process !== undefined)
      compileExec(
        { id: "x", pid: 1, process: spec.process, spec, cgroups: [], preserved: 0, setgroups: "allow" },
        host,
      );
  } catch (error) {
    expectPointer(error);
    outcomes.refused++;
  }
  expect(performance.now() - started).toBeLessThan(SLOW_MS);
}

/** init's own verdict on all of them. */
function expectAccepted(plans: readonly Uint8Array[]): void {
  const input = Buffer.concat(
    plans.flatMap((bytes) => {
      const size = Buffer.alloc(4);
      size.writeUInt32LE(bytes.length);
      return [size, bytes];
    }),
  );
  const { status, stdout, stderr } = spawnSync(harness, ["check-all"], { input, encoding: "utf8", maxBuffer: 1 << 26 });
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "", stderr: "" });
}

test("documents near sound ones", { timeout: 600_000 }, () => {
  const outcomes: Outcomes = { cases: 0, faults: 0, refused: 0, plans: [] };
  fc.assert(
    fc.property(documents(), (document) => {
      tryAll(textOf(document), outcomes);
      if (outcomes.plans.length >= 1000) expectAccepted(outcomes.plans.splice(0));
    }),
    { numRuns: CASES, endOnFailure: true },
  );
  expectAccepted(outcomes.plans);
  console.log(`seed ${FUZZ_SEED}: ${outcomes.faults} documents with faults, ${outcomes.refused} plans refused`);
  // the cases must be of all kinds
  expect(Math.min(outcomes.faults, outcomes.refused)).toBeGreaterThan(CASES / 50);
  expect(outcomes.faults).toBeLessThan(CASES * 0.8);
});

test("bytes that were a document", { timeout: 600_000 }, () => {
  const outcomes: Outcomes = { cases: 0, faults: 0, refused: 0, plans: [] };
  fc.assert(
    fc.property(brokenBytes(), (bytes) => {
      tryAll(bytes, outcomes);
    }),
    { numRuns: CASES / 4, endOnFailure: true },
  );
  expectAccepted(outcomes.plans);
  expect(outcomes.faults).toBeGreaterThan(CASES / 10);
});
