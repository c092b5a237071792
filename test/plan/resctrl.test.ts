import { expect, test } from "vitest";
import { compile, compileExec } from "../../src/plan/compile.ts";
import { isInit, type Plan, says } from "../../src/plan/step.ts";
import type { IntelRdt } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import { defined, HOSTS, smallest } from "./examples.ts";

const withRdt = (intelRdt: IntelRdt) => ({ ...smallest(), linux: { cgroupsPath: "/c", intelRdt } });
const planOf = (intelRdt: IntelRdt) => compile(defined({ spec: withRdt(intelRdt) }), HOSTS.v2);
const steps = (plan: Plan) =>
  plan.filter((step) => !isInit(step) && step.from.startsWith("/spec/linux/intelRdt")).map((step) => says(step));

test("a container is put in the class of service that its spec asks for", () => {
  covers("linux.intelRdt");
  // without a name, the class is the container's own
  expect(steps(planOf({ l3CacheSchema: "L3:0=f" }))).toEqual([
    "makes the class of service /sys/fs/resctrl/web with L3:0=f",
    "moves the process into the class of service /sys/fs/resctrl/web",
  ]);
  expect(steps(planOf({}))).toEqual([
    "makes the class of service /sys/fs/resctrl/web",
    "moves the process into the class of service /sys/fs/resctrl/web",
  ]);
  // a name without a description is of one that must exist
  expect(steps(planOf({ closID: "gold" }))).toEqual([
    "moves the process into the class of service /sys/fs/resctrl/gold",
  ]);
  expect(steps(planOf({ closID: "/" }))).toEqual(["moves the process into the class of service /sys/fs/resctrl"]);
  expect(steps(planOf({ closID: "gold", schemata: ["L3:0=f", "MB:0=20"], enableMonitoring: true }))).toEqual([
    "makes the class of service /sys/fs/resctrl/gold with L3:0=f, MB:0=20",
    "moves the process into the class of service /sys/fs/resctrl/gold",
    "monitors the process in /sys/fs/resctrl/gold/mon_groups/web",
  ]);
});

test("of two descriptions of the memory bandwidth, memBwSchema counts", () => {
  expect(steps(planOf({ l3CacheSchema: "L3:0=f\nMB:0=50", memBwSchema: "MB:0=20" }))[0]).toMatch(
    /with L3:0=f, MB:0=20$/,
  );
  expect(steps(planOf({ l3CacheSchema: "L3:0=f\nMB:0=50" }))[0]).toMatch(/with L3:0=f, MB:0=50$/);
});

test("only a class without a name is removed with its container", () => {
  const own = (plan: Plan) => plan.flatMap((step) => (step.name === "makeClass" ? [step.args.own] : []));
  expect(own(planOf({ memBwSchema: "MB:0=20" }))).toEqual([true]);
  expect(own(planOf({ closID: "gold", memBwSchema: "MB:0=20" }))).toEqual([false]);
});

test("it is entered once the process exists, and before anything of the container runs", () => {
  const plan = planOf({ closID: "gold" });
  const at = (name: string) => plan.findIndex((step) => step.name === name);
  expect(at("enterClass")).toBeGreaterThan(at("cloneInto"));
  expect(at("enterClass")).toBeLessThan(at("newSession"));
});

test("a further process enters it, too", () => {
  const exec = (intelRdt: IntelRdt) =>
    steps(
      compileExec(
        {
          id: "web",
          process: { cwd: "/", args: ["sh"] },
          spec: withRdt(intelRdt),
          pid: 1,
          cgroups: [],
          preserved: 0,
          setgroups: "allow",
        },
        HOSTS.v2,
      ),
    );
  expect(exec({ closID: "gold" })).toEqual(["moves the process into the class of service /sys/fs/resctrl/gold"]);
  expect(exec({ enableMonitoring: true })).toEqual([
    "moves the process into the class of service /sys/fs/resctrl/web/mon_groups/web",
  ]);
});

test("without resctrl it is refused", () => {
  expect(() => compile(defined({ spec: withRdt({ closID: "gold" }) }), HOSTS.v1)).toThrow(
    "intelRdt is specified in config, but Intel RDT is not supported or enabled",
  );
});
