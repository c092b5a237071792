import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { deviceFilter } from "../../src/plan/device-filter.ts";
import { ACCESS, deviceList, deviceRules, deviceText, type FullDeviceRule } from "../../src/plan/device-rules.ts";
import type { DeviceRule } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import { fc } from "../support/fuzz.ts";

type Access = { type: "b" | "c"; major: number; minor: number; access: number };

/** Runs a filter as the kernel would: the few instructions that device filters consist of. */
function run(program: Uint8Array, { type, major, minor, access }: Access): boolean {
  const code = new DataView(program.buffer, program.byteOffset, program.byteLength);
  const context = [(access << 16) | (type === "b" ? 1 : 2), major, minor];
  const registers = Array<number>(11).fill(0);
  for (let at = 0, steps = 0; steps < 100_000; at++, steps++) {
    const to = code.getUint8(at * 8 + 1) & 15;
    const from = code.getUint8(at * 8 + 1) >> 4;
    const offset = code.getInt16(at * 8 + 2, true);
    const value = code.getInt32(at * 8 + 4, true);
    const register = registers[to] ?? 0;
    switch (code.getUint8(at * 8)) {
      case 0x61:
        registers[to] = context[offset / 4] ?? Number.NaN;
        break;
      case 0xbf:
        registers[to] = registers[from] ?? Number.NaN;
        break;
      case 0xb7:
        registers[to] = value;
        break;
      case 0x77:
        registers[to] = register >>> value;
        break;
      case 0x57:
        registers[to] = register & value;
        break;
      case 0x56:
        if (register >>> 0 !== value >>> 0) at += offset;
        break;
      case 0x45:
        if ((register & value) !== 0) at += offset;
        break;
      case 0x05:
        at += offset;
        break;
      case 0x95:
        return registers[0] !== 0;
      default:
        throw new Error(`unknown instruction ${code.getUint8(at * 8)}`);
    }
  }
  throw new Error("the program does not end");
}

/** What the rules mean: for each kind of access the last that matches decides. */
function means(rules: readonly FullDeviceRule[], { type, major, minor, access }: Access): boolean {
  return [1, 2, 4].every((bit) => {
    if ((access & bit) === 0) return true;
    const last = rules.findLast(
      (rule) =>
        (rule.type === "a" || rule.type === type) &&
        (rule.major ?? major) === major &&
        (rule.minor ?? minor) === minor &&
        (rule.access & bit) !== 0,
    );
    return last?.allow === true;
  });
}

const someRule = fc.record(
  {
    allow: fc.boolean(),
    type: fc.constantFrom("a", "b", "c"),
    major: fc.constantFrom(-1, 1, 8),
    minor: fc.constantFrom(-1, 0, 3),
    access: fc.constantFrom("r", "w", "m", "rw", "rwm", "wm"),
  },
  { requiredKeys: ["allow"] },
);
const someAccess = fc.record({
  type: fc.constantFrom("b" as const, "c" as const),
  major: fc.constantFrom(1, 5, 8),
  minor: fc.constantFrom(0, 3, 4),
  access: fc.integer({ min: 1, max: 7 }),
});

test("a filter decides as the last matching rule says", () => {
  covers("linux.resources.devices v2");
  fc.assert(
    fc.property(fc.array(someRule, { maxLength: 8 }), someAccess, (asked, access) => {
      const rules = deviceRules(asked);
      expect(run(deviceFilter(rules), access)).toBe(means(rules, access));
    }),
    { numRuns: 3000 },
  );
});

test("the list of version 1 decides each kind of access as the filter does, or is refused", () => {
  let expressible = 0;
  fc.assert(
    fc.property(fc.array(someRule, { maxLength: 5 }), someAccess, (asked, { type, major, minor, access }) => {
      const rules = deviceRules(asked);
      let list: ReturnType<typeof deviceList>;
      try {
        list = deviceList(rules);
      } catch {
        return;
      }
      expressible++;
      for (const bit of [1, 2, 4].filter((each) => (access & each) !== 0)) {
        const excepted = list.exceptions.some(
          (rule) =>
            rule.type === type &&
            (rule.major ?? major) === major &&
            (rule.minor ?? minor) === minor &&
            (rule.access & bit) !== 0,
        );
        expect(excepted !== list.allow).toBe(means(rules, { type, major, minor, access: bit }));
      }
    }),
    { numRuns: 3000 },
  );
  expect(expressible).toBeGreaterThan(500);
});

test("without rules of its own a container has the devices that every container has, and no other", () => {
  const filter = deviceFilter(deviceRules());
  const rw = ACCESS.r | ACCESS.w;
  expect(run(filter, { type: "c", major: 1, minor: 3, access: rw })).toBe(true);
  expect(run(filter, { type: "c", major: 136, minor: 7, access: rw })).toBe(true);
  expect(run(filter, { type: "b", major: 8, minor: 0, access: ACCESS.m })).toBe(true);
  expect(run(filter, { type: "b", major: 8, minor: 0, access: ACCESS.r })).toBe(false);
  expect(run(filter, { type: "c", major: 10, minor: 229, access: rw })).toBe(false);
});

test("a privileged container has every device", () => {
  const rules = deviceRules([{ allow: true, access: "rwm" }]);
  expect(run(deviceFilter(rules), { type: "b", major: 4095, minor: 2 ** 20 - 1, access: 7 })).toBe(true);
  expect(deviceList(rules)).toEqual({ allow: true, exceptions: [] });
});

test("version 1 has no exception of an exception: the kernel would ignore it, so it is refused", () => {
  const rules = deviceRules([
    { allow: true, type: "c", access: "rwm" },
    { allow: false, type: "c", major: 10, minor: 229, access: "rwm" },
  ]);
  expect(() => deviceList(rules)).toThrowError(expect.objectContaining({ from: "/linux/resources/devices/1" }));
  expect(run(deviceFilter(rules), { type: "c", major: 10, minor: 229, access: ACCESS.r })).toBe(false);
});

test("rules are written as devices.allow reads them", () => {
  expect(deviceRules([{ allow: true, type: "b", major: 8, access: "wr" }]).map(deviceText)[0]).toBe("b 8:* rw");
  expect(
    deviceRules([{ allow: true, major: 8, access: "r" }])
      .map(deviceText)
      .slice(0, 2),
  ).toEqual(["c 8:* r", "b 8:* r"]);
  expect(deviceRules([{ allow: false }]).map(deviceText)[0]).toBe("a");
});

test.each<DeviceRule>([
  { allow: true, type: "p" },
  { allow: true, access: "x" },
  { allow: true, type: "c", major: -2 },
  { allow: true, type: "c", minor: 2 ** 32 },
])("a rule such as %j is refused", (rule) => {
  expect(() => deviceRules([rule])).toThrowError(expect.objectContaining({ from: "/linux/resources/devices/0" }));
});

describe("the kernel's verifier", () => {
  const directory = mkdtempSync(join(tmpdir(), "caisson-device-filter-"));
  const loader = join(directory, "load");
  let refusal = "";

  beforeAll(() => {
    writeFileSync(join(directory, "load.c"), LOADER);
    execFileSync("cc", ["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-o", loader, join(directory, "load.c")]);
    try {
      load(deviceFilter(deviceRules()));
    } catch (error) {
      refusal = String(error);
    }
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  function load(program: Uint8Array): void {
    execFileSync(loader, { input: program, stdio: ["pipe", "pipe", "pipe"] });
  }

  test("accepts the filters of ordinary, privileged and odd containers", ({ skip }) => {
    covers("linux.resources.devices v2");
    skip(/Operation not permitted|Function not implemented/.test(refusal), "needs bpf(2) and CAP_BPF");
    expect(refusal).toBe("");
    load(deviceFilter([]));
    load(deviceFilter(deviceRules([{ allow: true }])));
    load(
      deviceFilter(
        deviceRules([
          { allow: false, access: "r" },
          { allow: true, type: "c", access: "rm" },
        ]),
      ),
    );
    const many = Array.from({ length: 100 }, (_, minor) => ({
      allow: minor % 2 === 0,
      type: "b",
      major: 8,
      minor,
      access: "rw",
    }));
    load(deviceFilter(deviceRules(many)));
  });

  test("accepts whatever rules there are", ({ skip }) => {
    skip(refusal !== "", "needs bpf(2) and CAP_BPF");
    fc.assert(
      fc.property(fc.array(someRule, { maxLength: 12 }), (asked) => load(deviceFilter(deviceRules(asked)))),
      { numRuns: 50 },
    );
  });

  test("is really asked", ({ skip }) => {
    skip(refusal !== "", "needs bpf(2) and CAP_BPF");
    expect(() => load(deviceFilter([]).slice(0, 8))).toThrow(/Invalid argument|fell off|last insn/);
  });
});

const LOADER = `
#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char program[1 << 20], log_text[1 << 16];

int main(void)
{
	size_t size = fread(program, 1, sizeof program, stdin);
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attr.insns = (uintptr_t)program;
	attr.insn_cnt = (unsigned)(size / sizeof(struct bpf_insn));
	attr.license = (uintptr_t)"Apache-2.0";
	attr.log_buf = (uintptr_t)log_text;
	attr.log_size = sizeof log_text;
	attr.log_level = 1;
	if (syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr) < 0 && errno == ENOSPC) {
		/* the verifier's log was too long for us: without it */
		attr.log_buf = 0;
		attr.log_size = attr.log_level = 0;
		errno = 0;
		syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
	}
	if (errno == 0)
		return 0;
	fprintf(stderr, "%s\\n%s", strerror(errno), log_text);
	return 1;
}
`;
