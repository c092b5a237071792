import { describe, expect, test } from "vitest";
import { compile, compileExec } from "../../src/plan/compile.ts";
import type { Host } from "../../src/plan/host.ts";
import { isInit, type Plan } from "../../src/plan/step.ts";
import type { Process, Spec } from "../../src/spec/spec.ts";
import { template } from "../../src/spec/template.ts";
import { covers } from "../conformance/covers.ts";
import { defined, HOSTS, smallest } from "./examples.ts";

const LABELS = { apparmorProfile: "cage//deep", selinuxLabel: "u:r:t:s0:c1,c2" };

function withProcess(process: Partial<Process>, spec: Spec = smallest()): Spec {
  return { ...spec, process: { cwd: "/", ...spec.process, ...process } };
}

function planOf(process: Partial<Process>, host: Host = HOSTS.v2): Plan {
  return compile(defined({ spec: withProcess(process) }), host);
}

/** What is written to proc, in order. */
const written = (plan: Plan) =>
  plan.flatMap((step) => (step.name === "writeProc" ? [`${step.args.path} ${step.args.text}`] : []));
const position = (plan: Plan, name: string) => plan.findIndex((step) => step.name === name);

describe("what security modules call the process", () => {
  test("an AppArmor profile is asked for in AppArmor's own directory", () => {
    covers("process.apparmorProfile");
    expect(written(planOf({ apparmorProfile: "cage//deep" }))).toEqual(["self/attr/apparmor/exec exec cage//deep"]);
    expect(written(planOf({ apparmorProfile: "unconfined" }))).toEqual(["self/attr/apparmor/exec exec unconfined"]);
  });

  test("a SELinux label is written as it is", () => {
    covers("process.selinuxLabel");
    expect(written(planOf({ selinuxLabel: LABELS.selinuxLabel }))).toEqual(["self/attr/exec u:r:t:s0:c1,c2"]);
  });

  test("both are written to a proc opened before any path is hidden, after the hooks, before privileges are dropped", () => {
    const spec = withProcess(LABELS, {
      ...template(),
      hooks: { createContainer: [{ path: "/bin/a" }], startContainer: [{ path: "/bin/b" }] },
    });
    const plan = compile(defined({ spec: withProcess({ terminal: false }, spec) }), HOSTS.v2);
    const opened = plan.findIndex((step) => step.name === "openProc" && step.args.proc === "labels");
    expect(opened).toBeLessThan(position(plan, "maskPath"));
    expect(opened).toBeGreaterThan(position(plan, "clone"));
    expect(position(plan, "writeProc")).toBeGreaterThan(position(plan, "runHook"));
    expect(position(plan, "writeProc")).toBeLessThan(position(plan, "dropBounding"));
    const closed = plan.findIndex((step) => step.name === "closeSlot" && step.args.file === "labels");
    expect(closed).toBeLessThan(plan.findLastIndex((step) => step.name === "runHook"));
  });

  test("a further process gets its own, whatever the container's is", () => {
    const plan = compileExec(
      {
        id: "web",
        process: { cwd: "/", args: ["sh"], ...LABELS },
        spec: smallest(),
        pid: 1,
        cgroups: [],
        preserved: 0,
        setgroups: "allow",
      },
      HOSTS.v2,
    );
    expect(written(plan)).toEqual(["self/attr/apparmor/exec exec cage//deep", "self/attr/exec u:r:t:s0:c1,c2"]);
    expect(position(plan, "writeProc")).toBeLessThan(position(plan, "dropBounding"));
  });

  test("without labels nothing is written", () => {
    expect(written(planOf({ apparmorProfile: "", selinuxLabel: "" }))).toEqual([]);
  });
});

describe("on a host without the module", () => {
  const refusal = (spec: Spec): unknown => {
    try {
      compile(defined({ spec }), HOSTS.v1);
    } catch (error) {
      return error;
    }
    return;
  };

  test("a profile or label is refused, in runc's words, all at once", () => {
    expect(refusal(withProcess({ apparmorProfile: "cage" }))).toMatchObject({
      code: "ENOTSUP",
      from: "/spec/process/apparmorProfile",
      message: "apparmor: config provided but apparmor not supported",
    });
    const spec = withProcess(LABELS);
    expect(refusal({ ...spec, linux: { ...spec.linux, mountLabel: "label" } })).toMatchObject({
      from: "/spec/process/apparmorProfile",
      message: `apparmor: config provided but apparmor not supported
  /process/selinuxLabel: selinux label is specified in config, but selinux is disabled or not supported
  /linux/mountLabel: selinux label is specified in config, but selinux is disabled or not supported`,
    });
  });

  test("everything is unconfined by AppArmor, so that can be asked for", () => {
    expect(written(planOf({ apparmorProfile: "unconfined" }, HOSTS.v1))).toEqual([]);
  });
});

test("the mounts' label is a parameter of each filesystem that takes one", () => {
  covers("linux.mountLabel");
  const { linux, ...spec } = withProcess({ terminal: false }, template());
  const plan = compile(defined({ spec: { ...spec, linux: { ...linux, mountLabel: "u:r:t:s0:c1,c2" } } }), HOSTS.v2);
  const labelled = plan
    .filter(isInit)
    .flatMap((step) =>
      step.name === "makeFilesystem"
        ? [[step.args.type, step.args.parameters.filter((each) => each.startsWith("context="))]]
        : [],
    );
  const label = ["context=u:r:t:s0:c1,c2"];
  expect(Object.fromEntries(labelled)).toMatchObject({ tmpfs: label, devpts: label, proc: [], sysfs: [], mqueue: [] });
});
