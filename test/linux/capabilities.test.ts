import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import {
  CAPABILITIES,
  capabilityMask,
  capabilityNames,
  capabilityNumber,
  DEFAULT_CAPABILITIES,
} from "../../src/linux/capabilities.ts";
import { headerNumbers } from "./header.ts";

test("the numbers are those of linux/capability.h", ({ skip }) => {
  const header = headerNumbers("linux/capability.h", /^#define (CAP_[A-Z_]+)\s+(\d+)$/gm);
  skip(header === undefined, "needs the kernel's headers");
  expect(Object.fromEntries(CAPABILITIES.map((name, number) => [name, number]))).toMatchObject(header ?? {});
});

test("there are as many as the running kernel has, or this test is to be updated", () => {
  expect(Number(readFileSync("/proc/sys/kernel/cap_last_cap", "utf8"))).toBe(CAPABILITIES.length - 1);
});

test("names become bits and bits names", () => {
  expect(capabilityNumber("CAP_CHECKPOINT_RESTORE")).toBe(40);
  expect(capabilityNumber("CAP_FLY")).toBeUndefined();
  expect(capabilityMask(["CAP_KILL", "CAP_CHOWN", "CAP_FLY", "CAP_BPF"])).toBe(0x80_0000_0021n);
  expect(capabilityNames(0x80_0000_0021n | (1n << 63n))).toEqual(["CAP_CHOWN", "CAP_KILL", "CAP_BPF"]);
  expect(capabilityNames(capabilityMask(CAPABILITIES))).toEqual(CAPABILITIES);
});

test("the default set is the one that Docker's containers have", () => {
  expect(capabilityMask(DEFAULT_CAPABILITIES)).toBe(0xa80425fbn); // CapBnd of `docker run debian cat /proc/self/status`
});
