import { ContainerError } from "../error.ts";
import type {
  Seccomp,
  SeccompAction,
  SeccompArchitecture,
  SeccompArg,
  SeccompFlag,
  SeccompRule,
} from "../spec/spec.ts";
import { Program, type Target, type Test } from "./program.ts";
import { type Abi, syscallNumbers } from "./syscalls.ts";

export type Machine = "x86_64" | "aarch64";

export interface Filter {
  /** struct sock_filter[], little endian: 8 bytes an instruction. */
  program: Uint8Array;
  /** SECCOMP_FILTER_FLAG_* for seccomp(2). */
  flags: number;
  /** Whether seccomp(2) returns a listener, which answers for the calls with SCMP_ACT_NOTIFY. */
  notify: boolean;
}

/** Who has a profile's filter: compileSeccomp, or somebody who remembers what that has said. */
export type FilterSource = (seccomp: Seccomp, machine: Machine) => Filter;

// linux/seccomp.h, SECCOMP_RET_*: as signed numbers, the smaller is the stricter.
const ACTIONS: Readonly<Record<SeccompAction, number>> = {
  SCMP_ACT_KILL: 0x00000000,
  SCMP_ACT_KILL_THREAD: 0x00000000,
  SCMP_ACT_KILL_PROCESS: 0x80000000,
  SCMP_ACT_TRAP: 0x00030000,
  SCMP_ACT_ERRNO: 0x00050000,
  SCMP_ACT_NOTIFY: 0x7fc00000,
  SCMP_ACT_TRACE: 0x7ff00000,
  SCMP_ACT_LOG: 0x7ffc0000,
  SCMP_ACT_ALLOW: 0x7fff0000,
};
/** What of an answer is the action (SECCOMP_RET_ACTION_FULL); the rest is its data. */
const ACTION_MASK = 0xffff0000;
const EPERM = 1;
const ENOSYS = 38;
const ANSWER_ENOSYS = ACTIONS.SCMP_ACT_ERRNO | ENOSYS;

const FILTER_FLAGS: Readonly<Record<SeccompFlag, number>> = {
  // The filter is loaded by a process of one thread: there is nobody to synchronize with.
  SECCOMP_FILTER_FLAG_TSYNC: 0,
  SECCOMP_FILTER_FLAG_LOG: 1 << 1,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 1 << 2,
  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: 1 << 5,
};
const NEW_LISTENER = 1 << 3;

// Offsets in struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6]; }
const NUMBER_OFFSET_BYTES = 0;
const ARCHITECTURE_OFFSET_BYTES = 4;
const ARGUMENTS_OFFSET_BYTES = 16;

/** x32 calls come with x86_64's architecture and this bit in the number. */
const X32_BIT = 0x40000000;
/** The number that a tracer sets to skip a call. */
const NO_CALL = 0xffffffff;
/** No interface has more calls, arm's own aside. */
const MOST_NUMBERS = 600;
/** Above this, arm has calls of its own (cacheflush, set_tls), which say nothing about the profile's age. */
const ARM_PRIVATE = 0xf0000;

interface Interface {
  architecture: SeccompArchitecture;
  abi: Abi;
  /** AUDIT_ARCH_* of linux/audit.h. */
  audit: number;
  /** Registers are 32 bits wide: the upper half of an argument means nothing. */
  narrow: boolean;
}

/** What programs can be built for on a machine, its own interface first, and x32, whose numbers are higher, after it. */
const INTERFACES: Readonly<Record<Machine, readonly [Interface, ...Interface[]]>> = {
  x86_64: [
    { architecture: "SCMP_ARCH_X86_64", abi: "x86_64", audit: 0xc000003e, narrow: false },
    { architecture: "SCMP_ARCH_X32", abi: "x32", audit: 0xc000003e, narrow: true },
    { architecture: "SCMP_ARCH_X86", abi: "x86", audit: 0x40000003, narrow: true },
  ],
  aarch64: [
    { architecture: "SCMP_ARCH_AARCH64", abi: "aarch64", audit: 0xc00000b7, narrow: false },
    { architecture: "SCMP_ARCH_ARM", abi: "arm", audit: 0x40000028, narrow: true },
  ],
};

// i386's numbers of socketcall(2) and ipc(2)
const SOCKETCALL = 102;
const IPC = 117;

/** A half that any argument matches. */
const ANY: Word = { mask: 0, value: 0 };

/** i386 programs can make these calls through socketcall(2) and ipc(2) too, the first argument saying which. */
const MULTIPLEXED: ReadonlyMap<string, Multiplexed> = new Map([
  ...multiplex(SOCKETCALL, 0xffffffff, 1, "socket bind connect listen accept getsockname getpeername socketpair send"),
  ...multiplex(SOCKETCALL, 0xffffffff, 10, "recv sendto recvfrom shutdown setsockopt getsockopt sendmsg recvmsg"),
  ...multiplex(SOCKETCALL, 0xffffffff, 18, "accept4 recvmmsg sendmmsg"),
  // ipc's first argument has a version in its upper half.
  ...multiplex(IPC, 0xffff, 1, "semop semget semctl semtimedop"),
  ...multiplex(IPC, 0xffff, 11, "msgsnd msgrcv msgget msgctl"),
  ...multiplex(IPC, 0xffff, 21, "shmat shmdt shmget shmctl"),
]);

interface Multiplexed {
  /** Of socketcall(2) or ipc(2). */
  number: number;
  condition: Condition;
}

function multiplex(number: number, mask: number, first: number, names: string): [string, Multiplexed][] {
  return names.split(" ").map((name, i) => {
    const word = { mask, value: first + i };
    return [name, { number, condition: { index: 0, test: "equal", negated: false, high: ANY, low: word } }];
  });
}

/** One comparison of a 64-bit argument, by its halves: (argument & mask) test value, or its contrary. */
interface Condition {
  index: number;
  test: Test;
  negated: boolean;
  high: Word;
  low: Word;
}

interface Word {
  mask: number;
  value: number;
}

/** A rule of the profile: without conditions it always holds; with some, when all of one of the lists hold. */
interface Rule {
  names: readonly string[];
  answer: number;
  alternatives: readonly Condition[][] | undefined;
}

interface Alternative {
  conditions: readonly Condition[];
  answer: number;
}

/** What happens to a system call: one answer, or that of the first alternative that holds, the default after them. */
type Decision = number | Alternative[];

/** What happens to the numbers from `start` up to the next range. */
interface Range {
  start: number;
  narrow: boolean;
  decision: Decision;
}

/**
 * Compiles linux.seccomp (OCI runtime-spec, config-linux.md#seccomp) into a filter for seccomp(2), with the effect
 * that libseccomp and runc give it:
 * - The machine's own architecture is always filtered, the others if named. Calls of any other kill the process.
 * - A rule without arguments beats those with arguments for the same call; of several, the first counts. Among rules
 *   with arguments the first that holds counts.
 * - A rule's arguments must all hold, except that a rule naming an argument twice holds when any of them does.
 * - Of an argument's 64 bits only the lower 32 are looked at for x86, x32 and arm.
 * - A rule for a call that i386 also offers through socketcall(2) or ipc(2) holds there too. As a filter cannot see
 *   those arguments, a rule with arguments holds there only if it is stricter than the default.
 * - Rules with the default action and names that an architecture lacks are left out.
 * - Unless the default is to allow, log or trace, calls with a higher number than any that the profile names are
 *   younger than the profile and answer ENOSYS, which programs take as "use an older call", instead of the default.
 * - Without `flags`, SECCOMP_FILTER_FLAG_SPEC_ALLOW is set; with an empty list, none.
 *
 * @param seccomp a parsed profile; argument values may be bigint
 * @param machine what the filter is to run on
 * @throws ContainerError if a value is out of range, if SCMP_ACT_NOTIFY would block the runtime itself, or if the
 *   program exceeds the kernel's 4096 instructions
 */
export function compileSeccomp(seccomp: Seccomp, machine: Machine): Filter {
  const { defaultAction, defaultErrnoRet, syscalls = [] } = seccomp;
  refuseBlockingNotify(seccomp);
  const interfaces = selectInterfaces(seccomp, machine);
  const defaultAnswer = answerOf(defaultAction, defaultErrnoRet, "/defaultErrnoRet");
  const rules = syscalls.map(readRule);
  const unknownAnswer = isPermissive(defaultAction) ? defaultAnswer : ANSWER_ENOSYS;

  const sections = new Map<number, Range[]>();
  for (const { abi, audit, narrow } of interfaces) {
    let ranges = sections.get(audit);
    if (ranges === undefined) {
      ranges = [];
      sections.set(audit, ranges);
    }
    appendRanges(ranges, rules, { abi, narrow, defaultAnswer, unknownAnswer });
    if (abi === "x86_64" && !interfaces.some((other) => other.abi === "x32")) {
      appendRange(ranges, X32_BIT, ACTIONS.SCMP_ACT_KILL_PROCESS, narrow);
      appendRange(ranges, NO_CALL, defaultAnswer, narrow);
    }
  }
  const notify = syscalls.some((rule) => rule.action === "SCMP_ACT_NOTIFY");
  return { program: assemble(sections, defaultAnswer), flags: filterFlags(seccomp, notify), notify };
}

/** What a profile names and a machine does not have: no filter says anything of that. */
export function absentFrom(
  machine: Machine,
  seccomp: Seccomp,
): { architectures: SeccompArchitecture[]; calls: string[] } {
  const { architectures = [], syscalls = [] } = seccomp;
  const abis = selectInterfaces(seccomp, machine).map(({ abi }) => abi);
  const has = (name: string) =>
    abis.some((abi) => syscallNumbers(abi).has(name) || (abi === "x86" && MULTIPLEXED.has(name)));
  return {
    architectures: architectures.filter((name) => INTERFACES[machine].every((known) => known.architecture !== name)),
    calls: [...new Set(syscalls.flatMap(({ names }) => names))].filter((name) => !has(name)),
  };
}

/**
 * After the filter is loaded the runtime still has to hand over its listener; if that call waited for an answer from
 * the listener, nobody could ever give one.
 */
function refuseBlockingNotify({ defaultAction, syscalls = [] }: Seccomp): void {
  if (defaultAction === "SCMP_ACT_NOTIFY") {
    throw invalid("SCMP_ACT_NOTIFY cannot be the default action", "/defaultAction");
  }
  syscalls.forEach(({ action, names }, i) => {
    const name = action === "SCMP_ACT_NOTIFY" && names.find((name) => name === "write" || name === "sendmsg");
    if (name) throw invalid(`SCMP_ACT_NOTIFY cannot be used for ${name}`, `/syscalls/${i}`);
  });
}

function selectInterfaces({ architectures = [] }: Seccomp, machine: Machine): Interface[] {
  const [native, ...others] = INTERFACES[machine];
  return [native, ...others.filter((entry) => architectures.includes(entry.architecture))];
}

/** A good tracer handles calls that it does not know; ENOSYS would get in its way. */
function isPermissive(action: SeccompAction): boolean {
  return action === "SCMP_ACT_ALLOW" || action === "SCMP_ACT_LOG" || action === "SCMP_ACT_TRACE";
}

/** SECCOMP_RET_* with its data. */
function answerOf(action: SeccompAction, errnoRet: number | undefined, pointer: string): number {
  const takesErrno = action === "SCMP_ACT_ERRNO" || action === "SCMP_ACT_TRACE";
  if (errnoRet === undefined) return takesErrno ? ACTIONS[action] | EPERM : ACTIONS[action];
  if (!takesErrno) throw invalid(`${action} takes no errno`, pointer);
  // The kernel would take any greater errno for 4095; a tracer gets 16 bits.
  const limit = action === "SCMP_ACT_ERRNO" ? 4095 : 65535;
  if (!Number.isInteger(errnoRet) || errnoRet < 0 || errnoRet > limit) {
    throw invalid(`errno ${errnoRet} is not between 0 and ${limit}`, pointer);
  }
  return ACTIONS[action] | errnoRet;
}

function readRule({ names, action, errnoRet, args = [] }: SeccompRule, i: number): Rule {
  const answer = answerOf(action, errnoRet, `/syscalls/${i}/errnoRet`);
  if (args.length === 0) return { names, answer, alternatives: undefined };
  const conditions = args.map((arg, j) => readCondition(arg, `/syscalls/${i}/args/${j}`));
  const repeats = new Set(args.map((arg) => arg.index)).size < args.length;
  return { names, answer, alternatives: repeats ? conditions.map((condition) => [condition]) : [conditions] };
}

const COMPARISONS = {
  SCMP_CMP_EQ: { test: "equal", negated: false },
  SCMP_CMP_NE: { test: "equal", negated: true },
  SCMP_CMP_GE: { test: "atLeast", negated: false },
  SCMP_CMP_LT: { test: "atLeast", negated: true },
  SCMP_CMP_GT: { test: "greater", negated: false },
  SCMP_CMP_LE: { test: "greater", negated: true },
  SCMP_CMP_MASKED_EQ: { test: "equal", negated: false },
} as const satisfies Record<SeccompArg["op"], { test: Test; negated: boolean }>;

function readCondition({ index, value, valueTwo = 0, op }: SeccompArg, pointer: string): Condition {
  if (!Number.isInteger(index) || index < 0 || index > 5) {
    throw invalid(`a system call has no argument ${index}, only 0 to 5`, `${pointer}/index`);
  }
  const [high, low] = halves(value, `${pointer}/value`);
  if (op !== "SCMP_CMP_MASKED_EQ") {
    const mask = 0xffffffff;
    return { index, ...COMPARISONS[op], high: { mask, value: high }, low: { mask, value: low } };
  }
  const [highTwo, lowTwo] = halves(valueTwo, `${pointer}/valueTwo`);
  return {
    index,
    ...COMPARISONS[op],
    high: { mask: high, value: (highTwo & high) >>> 0 },
    low: { mask: low, value: (lowTwo & low) >>> 0 },
  };
}

/** The upper and lower 32 bits of an unsigned 64-bit number. */
function halves(value: number | bigint, pointer: string): [high: number, low: number] {
  if (typeof value === "number" ? Number.isSafeInteger(value) && value >= 0 : value >= 0n && value < 1n << 64n) {
    if (typeof value === "number") return [Math.floor(value / 2 ** 32), value >>> 0];
    return [Number(value >> 32n), Number(value & 0xffffffffn)];
  }
  throw invalid(`${value} is not an exact unsigned 64-bit number`, pointer);
}

interface Layout {
  abi: Abi;
  narrow: boolean;
  defaultAnswer: number;
  /** The answer to calls younger than the profile. */
  unknownAnswer: number;
}

/** What the rules say of each number of this interface, and the highest number that they name (−1 if none). */
function decide(rules: readonly Rule[], { abi, defaultAnswer }: Layout) {
  const numbers = syscallNumbers(abi);
  // An array made in one piece is quicker to fill than a Map, or one that grows.
  const decisions = new Array<Decision | undefined>(MOST_NUMBERS);
  let lastNumber = -1;
  for (const { names, answer, alternatives } of rules) {
    const redundant = answer === defaultAnswer;
    // SECCOMP_RET_* as signed numbers: the stricter is the smaller. Their data does not count.
    const stricter = (answer & ACTION_MASK) < (defaultAnswer & ACTION_MASK);
    for (const name of names) {
      const number = numbers.get(name);
      if (number !== undefined) {
        if (number > lastNumber && number < ARM_PRIVATE) lastNumber = number;
        if (!redundant) decisions[number] = extend(decisions[number], answer, alternatives);
      }
      const multiplexed = abi === "x86" ? MULTIPLEXED.get(name) : undefined;
      if (multiplexed !== undefined) {
        const { number, condition } = multiplexed;
        if (number > lastNumber) lastNumber = number;
        if (!redundant && (alternatives === undefined || stricter)) {
          decisions[number] = extend(decisions[number], answer, [[condition]]);
        }
      }
    }
  }
  return { decisions, lastNumber };
}

/** What an earlier decision becomes with one more rule. */
function extend(decision: Decision | undefined, answer: number, alternatives: Rule["alternatives"]): Decision {
  if (typeof decision === "number") return decision;
  if (alternatives === undefined) return answer;
  const added = alternatives.map((conditions) => ({ conditions, answer }));
  return decision === undefined ? added : [...decision, ...added];
}

/** Adds the ranges of one interface, from its number 0 to the end of all numbers. */
function appendRanges(ranges: Range[], rules: readonly Rule[], layout: Layout): void {
  const { abi, narrow, defaultAnswer } = layout;
  const { decisions, lastNumber } = decide(rules, layout);
  // A profile that names no call of an interface says nothing about the age of its calls.
  const unknownAnswer = lastNumber < 0 ? defaultAnswer : layout.unknownAnswer;
  const base = abi === "x32" ? X32_BIT : 0;
  let next = 0;
  const appendGap = (end: number) => {
    if (next <= lastNumber) appendRange(ranges, base + next, defaultAnswer, narrow);
    if (end <= lastNumber + 1) return;
    if (next < ARM_PRIVATE) appendRange(ranges, base + Math.max(next, lastNumber + 1), unknownAnswer, narrow);
    if (abi === "arm" && end > ARM_PRIVATE) appendRange(ranges, Math.max(next, ARM_PRIVATE), defaultAnswer, narrow);
  };
  // The table is in the order of the numbers.
  for (const number of syscallNumbers(abi).values()) {
    const decision = decisions[number];
    // A number with two names comes twice.
    if (decision === undefined || number < next) continue;
    if (number > next) appendGap(number);
    appendRange(ranges, base + number, decision, narrow);
    next = number + 1;
  }
  appendGap(Number.POSITIVE_INFINITY);
}

function appendRange(ranges: Range[], start: number, decision: Decision, narrow: boolean): void {
  if (ranges[ranges.length - 1]?.decision !== decision) ranges.push({ start, decision, narrow });
}

function assemble(sections: ReadonlyMap<number, readonly Range[]>, defaultAnswer: number): Uint8Array {
  const program = new Program();
  // The machine's own architecture comes first: written last, its section is the nearest.
  const entries = [...sections].reverse().map(([audit, ranges]) => {
    const root = search(program, ranges, 0, ranges.length, defaultAnswer);
    return { audit, section: program.load(NUMBER_OFFSET_BYTES, root) };
  });
  let entry = program.answer(ACTIONS.SCMP_ACT_KILL_PROCESS);
  for (const { audit, section } of entries) entry = program.branch("equal", audit, section, entry);
  return program.bytes(program.load(ARCHITECTURE_OFFSET_BYTES, entry));
}

/** Binary search for the range of the number in the accumulator. */
function search(program: Program, ranges: readonly Range[], from: number, to: number, defaultAnswer: number): Target {
  const middle = (from + to) >> 1;
  const range = ranges[middle];
  if (range === undefined) return program.answer(defaultAnswer);
  if (to - from === 1) return decisionTarget(program, range, defaultAnswer);
  const yes = search(program, ranges, middle, to, defaultAnswer);
  const no = search(program, ranges, from, middle, defaultAnswer);
  return program.branch("atLeast", range.start, yes, no);
}

function decisionTarget(program: Program, { decision, narrow }: Range, defaultAnswer: number): Target {
  if (typeof decision === "number") return program.answer(decision);
  let target = program.answer(defaultAnswer);
  for (const { conditions, answer } of decision.toReversed()) {
    const no = target;
    target = program.answer(answer);
    for (const condition of conditions.toReversed()) target = conditionTarget(program, condition, narrow, target, no);
  }
  return target;
}

function conditionTarget(
  program: Program,
  condition: Condition,
  narrow: boolean,
  holds: Target,
  fails: Target,
): Target {
  const { index, test, negated, high, low } = condition;
  const [yes, no] = negated ? [fails, holds] : [holds, fails];
  const offsetBytes = ARGUMENTS_OFFSET_BYTES + 8 * index;
  const lower = compareWord(program, offsetBytes, low, test, yes, no);
  if (narrow) return lower;
  if (test === "equal") return compareWord(program, offsetBytes + 4, high, "equal", lower, no);
  // Only if the upper halves are equal does the lower half decide.
  const equal = program.branch("equal", high.value, lower, no);
  return program.load(offsetBytes + 4, program.branch("greater", high.value, yes, equal));
}

function compareWord(program: Program, offsetBytes: number, word: Word, test: Test, yes: Target, no: Target): Target {
  if (word.mask === 0) return yes;
  const comparison = program.branch(test, word.value, yes, no);
  // Both ways lead to the same answer: there is nothing to compare.
  if (yes === no) return comparison;
  return program.load(offsetBytes, word.mask === 0xffffffff ? comparison : program.and(word.mask, comparison));
}

function filterFlags({ flags }: Seccomp, notify: boolean): number {
  let bits = notify ? NEW_LISTENER : 0;
  // Without it, kernels before 5.16 slow every filtered process down (Documentation/userspace-api/spec_ctrl.rst).
  for (const flag of flags ?? ["SECCOMP_FILTER_FLAG_SPEC_ALLOW" as const]) {
    // The kernel refuses to make a wait killable that there will never be.
    if (flag !== "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" || notify) bits |= FILTER_FLAGS[flag];
  }
  return bits;
}

function invalid(reason: string, pointer: string): ContainerError {
  return new ContainerError({
    message: `cannot compile the seccomp profile: ${reason}`,
    code: "ERR_SPEC",
    from: `/spec/linux/seccomp${pointer}`,
  });
}
