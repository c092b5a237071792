import { join } from "node:path";
import { expect, test } from "vitest";
import { explain } from "../../src/plan/explain.ts";
import { compileMountChange } from "../../src/plan/live-mounts.ts";
import type { Mount } from "../../src/spec/spec.ts";
import { template } from "../../src/spec/template.ts";
import { defined, HOSTS } from "./examples.ts";

const definition = defined({ spec: template() });
const MOUNTS: Mount[] = [
  { destination: "/data", type: "tmpfs", source: "tmpfs", options: ["nosuid", "size=1m"] },
  { destination: "/data/file", type: "bind", source: "file", options: ["bind", "ro"] },
];

test.each(["add", "remove"] as const)("the plan to %s mounts says what it says in golden/", async (change) => {
  const plan = compileMountChange(definition, change, MOUNTS, HOSTS.v1);
  const lines = explain(plan).map(({ side, says, from }) => `${side} ${says}  (${from})\n`);
  await expect(lines.join("")).toMatchFileSnapshot(join(import.meta.dirname, "golden", `mounts-${change}.txt`));
});

test("what is mounted last is taken away first, and the root never", () => {
  const names = compileMountChange(definition, "remove", MOUNTS, HOSTS.v1).flatMap((step) =>
    step.name === "detachMount" ? [`${step.args.directory} ${step.args.name}`] : [],
  );
  expect(names).toEqual(["/data file", "/ data"]);
  expect(() => compileMountChange(definition, "remove", [{ destination: "/a/.." }], HOSTS.v1)).toThrow(/root/);
});

test("without a mount namespace of its own a container's mounts would be the host's", () => {
  const { linux, ...spec } = template();
  expect(() =>
    compileMountChange(
      defined({ spec: { ...spec, linux: { ...linux, namespaces: [{ type: "pid" }] } } }),
      "add",
      MOUNTS,
      HOSTS.v1,
    ),
  ).toThrow(/no mount namespace of its own/);
});
