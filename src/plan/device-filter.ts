import type { FullDeviceRule } from "./device-rules.ts";

// linux/bpf.h and linux/bpf_common.h: the few instructions that a device filter needs.
const LOAD_U32 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const RIGHT_SHIFT = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const AND = 0x57;
const MOVE = 0xb7;
const EXIT = 0x95;
const JUMP_IF_NOT_EQUAL = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K: 32 bits, as device numbers are unsigned
const JUMP_IF_ANY_BIT = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const JUMP = 0x05;

const [RESULT, CONTEXT, TYPE, ASKED, MAJOR, MINOR] = [0, 1, 2, 3, 4, 5];
const DEVICE_TYPE = { b: 1, c: 2 } as const; // BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
const EVERY_ACCESS = 7;

type Instruction = { code: number; register: number; source?: number; offset?: number; value?: number };

/**
 * A program for BPF_PROG_TYPE_CGROUP_DEVICE: an array of `struct bpf_insn`, little-endian, 8 bytes each.
 * For each kind of access that is asked for, the last rule that matches decides; without one it is denied.
 * So the rules are tried from the last to the first, with the kinds that are still undecided in a register.
 */
export function deviceFilter(rules: readonly FullDeviceRule[]): Uint8Array {
  // struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }, access_type being access << 16 | type
  const program: Instruction[] = [
    { code: LOAD_U32, register: TYPE, source: CONTEXT, offset: 0 },
    { code: MOVE | 0x08, register: ASKED, source: TYPE },
    { code: RIGHT_SHIFT, register: ASKED, value: 16 },
    { code: AND, register: TYPE, value: 0xffff },
    { code: LOAD_U32, register: MAJOR, source: CONTEXT, offset: 4 },
    { code: LOAD_U32, register: MINOR, source: CONTEXT, offset: 8 },
  ];
  // The kernel refuses programs with instructions that nothing reaches, so a rule for everything ends the program.
  const last = rules.findLastIndex((rule) => isForEverything(rule));
  for (const rule of rules.slice(Math.max(last, 0)).reverse()) program.push(...matchRule(rule));
  if (last === -1) program.push(...finish(false));
  return assemble(program);
}

function matchRule(rule: FullDeviceRule): Instruction[] {
  const verdict = decide(rule);
  const tests: [number, number][] = [];
  if (rule.type !== "a") tests.push([TYPE, DEVICE_TYPE[rule.type]]);
  if (rule.major !== undefined) tests.push([MAJOR, rule.major]);
  if (rule.minor !== undefined) tests.push([MINOR, rule.minor]);
  return [
    ...tests.map(([register, value], index) => ({
      code: JUMP_IF_NOT_EQUAL,
      register,
      value,
      offset: tests.length - index - 1 + verdict.length,
    })),
    ...verdict,
  ];
}

function decide({ allow, access }: FullDeviceRule): Instruction[] {
  if (access === EVERY_ACCESS) return finish(allow);
  if (!allow) {
    return [
      { code: JUMP_IF_ANY_BIT, register: ASKED, value: access, offset: 1 },
      { code: JUMP, register: 0, offset: 2 },
      ...finish(false),
    ];
  }
  return [
    { code: AND, register: ASKED, value: ~access & EVERY_ACCESS },
    { code: JUMP_IF_NOT_EQUAL, register: ASKED, value: 0, offset: 2 },
    ...finish(true),
  ];
}

function finish(allow: boolean): Instruction[] {
  return [
    { code: MOVE, register: RESULT, value: allow ? 1 : 0 },
    { code: EXIT, register: 0 },
  ];
}

function isForEverything({ type, major, minor, access }: FullDeviceRule): boolean {
  return type === "a" && major === undefined && minor === undefined && access === EVERY_ACCESS;
}

function assemble(program: readonly Instruction[]): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(program.length * 8));
  for (const [index, { code, register, source = 0, offset = 0, value = 0 }] of program.entries()) {
    bytes.setUint8(index * 8, code);
    bytes.setUint8(index * 8 + 1, register | (source << 4));
    bytes.setInt16(index * 8 + 2, offset, true);
    bytes.setInt32(index * 8 + 4, value, true);
  }
  return new Uint8Array(bytes.buffer);
}
