import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { explain } from "../../src/plan/explain.ts";
import { isInit } from "../../src/plan/step.ts";
import { examplePlans } from "./examples.ts";

const plans = examplePlans();

describe.each(Object.entries(plans))("the plan of %s", (name, plan) => {
  test("says what it says in golden/, which a reviewer reads", async () => {
    const lines = explain(plan).map(({ side, says, from }) => `${side} ${says}  (${from})\n`);
    await expect(lines.join("")).toMatchFileSnapshot(
      join(import.meta.dirname, "golden", `${name.replace(" ", "-")}.txt`),
    );
  });

  test("names for every step the part of the definition that asks for it", () => {
    expect(plan.filter(({ from }) => !/^\/(spec|root|files|endpoint)(\/|$)/.test(from))).toEqual([]);
  });

  test("starts init once, and ends by executing; what the host does then is up to poststart hooks", () => {
    expect(plan.filter((step) => step.name === "startInit")).toHaveLength(1);
    expect(plan.findLast(isInit)?.name).toBe("execute");
    const after = plan.slice(plan.findLastIndex(isInit) + 1);
    expect(after.filter((step) => step.name !== "runHostHook" || step.args.kind !== "poststart")).toEqual([]);
  });

  test("lets go of the host's tree before it becomes the user, and checks that, before it executes", () => {
    const at = (...names: string[]) => plan.findIndex((step) => names.includes(step.name));
    const left = at("pivotRoot", "changeRoot");
    const joined = at("joinNamespace");
    expect(left >= 0 || joined >= 0).toBe(true);
    expect(at("setIds")).toBeGreaterThan(Math.max(left, joined));
    expect(at("checkCapabilities")).toBeGreaterThan(at("setCapabilities"));
    expect(at("checkDirectory")).toBeGreaterThan(at("changeDirectory"));
    expect(at("keepDescriptors")).toBeGreaterThan(at("checkDirectory"));
  });
});

test("nothing but what a filter must leave allowed comes after the filter", () => {
  for (const plan of Object.values(plans)) {
    const filter = plan.findIndex((step) => step.name === "loadSeccomp" || step.name === "loadNotifier");
    const after = filter < 0 ? [] : plan.slice(filter + 1).filter(isInit);
    expect(["offerListener", "setCapabilities", "runHook", "execute"]).toEqual(
      expect.arrayContaining(after.map(({ name }) => name)),
    );
  }
  expect(plans.image?.some((step) => step.name === "loadSeccomp")).toBe(true);
  expect(plans.listener?.some((step) => step.name === "loadNotifier")).toBe(true);
});
