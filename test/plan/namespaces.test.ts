import { expect, test } from "vitest";
import { compile, compileExec } from "../../src/plan/compile.ts";
import type { Plan } from "../../src/plan/step.ts";
import type { Namespace, Spec } from "../../src/spec/spec.ts";
import { defined, HOSTS, smallest } from "./examples.ts";

// cgroups(7), nsdelegate: nobody inside a cgroup namespace is born into, or moved to, a cgroup outside of its root.

function withNamespaces(...namespaces: Namespace[]): Spec {
  return { ...smallest(), linux: { namespaces } };
}

/** The order of being born in the cgroup and of joining the namespaces. */
function order(plan: Plan): string[] {
  return plan.flatMap((step) =>
    step.name === "joinNamespace" ? [step.args.namespace] : step.name === "cloneInto" ? ["born"] : [],
  );
}

function execOrder(spec: Spec): string[] {
  const { hierarchies } = HOSTS.v2.cgroups;
  const cgroups = hierarchies.map((hierarchy) => ({ hierarchy, path: "/sys/fs/cgroup/web" }));
  const process = { args: ["true"], cwd: "/", user: { uid: 0, gid: 0 } };
  return order(compileExec({ id: "web", process, spec, pid: 1, cgroups, preserved: 0, setgroups: "allow" }, HOSTS.v2));
}

test("a process that is added joins the container's cgroup namespace once it is in its cgroup", () => {
  expect(execOrder(withNamespaces({ type: "cgroup" }, { type: "uts" }))).toEqual(["uts", "born", "cgroup"]);
  expect(execOrder(withNamespaces({ type: "cgroup" }, { type: "user" }))).toEqual(["user", "born", "cgroup"]);
});

test("a cgroup namespace with a path is joined late, too, unless a user namespace takes the power to do so", () => {
  const shared: Namespace = { type: "cgroup", path: "/run/ns/cgroup" };
  const created = (...more: Namespace[]) =>
    order(compile(defined({ spec: withNamespaces(shared, { type: "mount" }, ...more) }), HOSTS.v2));
  expect(created()).toEqual(["born", "cgroup"]);
  expect(created({ type: "user" })).toEqual(["cgroup", "born"]);
});
