import { expect, test } from "vitest";
import { explain, markdownExplanation, renderExplanation } from "../../src/plan/explain.ts";
import type { Plan } from "../../src/plan/step.ts";

const PLAN: Plan = [
  { name: "makeCgroup", args: { path: `/sys/fs/cgroup/memory/${"ab".repeat(32)}` }, from: "/spec/linux/cgroupsPath" },
  { name: "startInit", args: { preserved: 0 }, from: "/spec" },
  { name: "attachRoot", args: { root: "root", at: "/" }, from: "/spec/root" },
  { name: "setHostname", args: { name: "*a_b*" }, from: "/spec/hostname" },
  { name: "execute", args: { arguments: ["true"], environment: [] }, from: "/spec/process/args" },
];

test("phases are named where they begin, and ids are short", () => {
  expect(renderExplanation(explain(PLAN), { phases: true })).toBe(
    `THE HOST PREPARES
the host
    0  makes the cgroup /sys/fs/cgroup/memory/abababababab…  /linux/cgroupsPath

INIT ENTERS NEW NAMESPACES
the host
    1  starts init                                           /

THE ROOT IS BUILT
init
    2  attaches the root to its mount namespace              /root
    3  names the machine *a_b*                               /hostname

THE PROGRAM STARTS
init
    4  executes true                                         /process/args
`,
  );
});

test("verbose says why, where to read on, what it needs and what takes it back", () => {
  const lines = renderExplanation(explain(PLAN), { verbose: true }).split("\n");
  expect(lines.slice(1, 4)).toEqual([
    "    0  makes the cgroup /sys/fs/cgroup/memory/abababababab…  /linux/cgroupsPath",
    "         Limits and accounting belong to a cgroup.",
    "         see cgroups(7); taken back: removes it",
  ]);
});

test("Markdown has sections for phases, and nothing of the container's is markup", () => {
  const page = markdownExplanation(explain(PLAN));
  expect(page.match(/^## .*/gm)).toEqual([
    "## The host prepares",
    "## Init enters new namespaces",
    "## The root is built",
    "## The program starts",
  ]);
  expect(page).toContain("3. Init names the machine \\*a\\_b\\* `/hostname`");
});
