import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { CLONE } from "../../src/linux/clone-flags.ts";
import { MEMORY_POLICY_FLAGS, MEMORY_POLICY_MODES } from "../../src/linux/memory-policy.ts";
import { MOUNT_ATTR } from "../../src/linux/mount-options.ts";
import { NAMESPACES } from "../../src/linux/namespaces.ts";
import { RLIMITS, rlimitNumber } from "../../src/linux/rlimits.ts";
import { ioPriorityValue, SCHEDULER_FLAGS, SCHEDULER_POLICIES } from "../../src/linux/scheduling.ts";
import { headerNumbers } from "./header.ts";

const prefixed = (prefix: string, table: Record<string, number>) =>
  Object.fromEntries(Object.entries(table).map(([name, number]) => [prefix + name, number]));

test.for<[string, Record<string, number | undefined>, RegExp]>([
  [
    "linux/sched.h",
    {
      ...prefixed("CLONE_", CLONE),
      ...Object.fromEntries(
        Object.entries(NAMESPACES).map(([, { flag, file }]) => [
          `CLONE_NEW${{ mnt: "NS", pid: "PID" }[file as string] ?? file.toUpperCase()}`,
          flag,
        ]),
      ),
    },
    /^#define (CLONE_\w+)\s+(0x[0-9a-f]+)/gm,
  ],
  ["linux/sched.h", SCHEDULER_FLAGS, /^#define (SCHED_FLAG_\w+)\s+(0x[0-9a-f]+)/gm],
  [
    "linux/sched.h",
    { ...SCHEDULER_POLICIES, SCHED_ISO: undefined, SCHED_OTHER: undefined },
    /^#define (SCHED_[A-Z]+)\s+(\d)/gm,
  ],
  ["asm-generic/resource.h", RLIMITS, /^#\s*define (RLIMIT_\w+)\s+(\d+)/gm],
  [
    "linux/mount.h",
    {
      ...prefixed("MOUNT_ATTR_", MOUNT_ATTR),
      MOUNT_ATTR_ATIME_FIELD: undefined,
      MOUNT_ATTR__ATIME: MOUNT_ATTR.ATIME_FIELD,
    },
    /^#define (MOUNT_ATTR_\w+)\s+(0x[0-9a-f]+)/gim,
  ],
])("the constants of %s are the kernel's", ([name, table, expression], { skip }) => {
  const header = headerNumbers(name, expression);
  skip(header === undefined, "needs the kernel's headers (linux-libc-dev)");
  for (const [constant, number] of Object.entries(table))
    if (number !== undefined) expect({ constant, number: header?.[constant] }).toEqual({ constant, number });
});

test("the namespaces are those of /proc/self/ns", () => {
  const files = readdirSync("/proc/self/ns");
  for (const { file } of Object.values(NAMESPACES)) expect(files).toContain(file);
});

test("a resource that nobody knows has no number", () => {
  expect(rlimitNumber("RLIMIT_NOFILE")).toBe(7);
  expect(rlimitNumber("toString")).toBeUndefined();
});

test("an I/O priority is class and level", () => {
  expect(ioPriorityValue("IOPRIO_CLASS_BE", 4)).toBe(0x4004);
  expect(ioPriorityValue("IOPRIO_CLASS_IDLE")).toBe(0x6000);
});

test("modes of memory policies count from 0, flags are the bits above them", () => {
  expect(Object.values(MEMORY_POLICY_MODES).sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(Object.values(MEMORY_POLICY_FLAGS).reduce((sum, flag) => sum | flag, 0)).toBe(0xe000);
});
