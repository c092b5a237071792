import { ContainerError } from "../error.ts";

/** Longest program the kernel takes (BPF_MAXINSNS in linux/bpf_common.h). */
const MAX_INSTRUCTIONS = 4096;

// linux/bpf_common.h
const LOAD_WORD = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN = 0x06; // BPF_RET | BPF_K
const JUMP = 0x05; // BPF_JMP | BPF_JA
const TESTS = { equal: 0x15, greater: 0x25, atLeast: 0x35 }; // BPF_JMP | BPF_JEQ, BPF_JGT, BPF_JGE | BPF_K

/** How far a conditional jump may go when it is planned: its other way may still put one instruction in between. */
const REACH = 254;

export type Test = keyof typeof TESTS;

/** A place to go on: an instruction, counted from the end of the program, or, below zero, an answer (a return). */
export type Target = number;

/**
 * A classic BPF program for seccomp(2), written from its last instruction to its first: jumps only go forward, so
 * every target is known when a jump is written. Conditional jumps reach 255 instructions; where that is too short,
 * an unconditional one or another copy of the return is put on the way.
 */
export class Program {
  /** Two words an instruction, in reverse order: code | jt << 16 | jf << 24, then k. */
  readonly #words = new Uint32Array(2 * MAX_INSTRUCTIONS);
  #length = 0;
  readonly #answers: number[] = [];
  /** Where the most recent return of each answer is. */
  readonly #returns: number[] = [];

  /** @param value what the filter returns: SECCOMP_RET_* with its data */
  answer(value: number): Target {
    const index = this.#answers.indexOf(value);
    return ~(index >= 0 ? index : this.#answers.push(value) - 1);
  }

  /** Loads the 32-bit word at this offset of struct seccomp_data into the accumulator, then goes on. */
  load(offsetBytes: number, next: Target): Target {
    this.#follow(next);
    return this.#push(LOAD_WORD, 0, 0, offsetBytes);
  }

  /** Clears the accumulator's bits that are not in the mask, then goes on. */
  and(mask: number, next: Target): Target {
    this.#follow(next);
    return this.#push(AND, 0, 0, mask);
  }

  /** Compares the accumulator, unsigned, with k. */
  branch(test: Test, k: number, yes: Target, no: Target): Target {
    if (yes === no) return yes;
    const yesPosition = this.#approach(yes);
    const noPosition = this.#approach(no);
    const yesSkip = this.#length - yesPosition - 1;
    return this.#push(TESTS[test], yesSkip, this.#length - noPosition - 1, k);
  }

  /** The program as struct sock_filter[], little endian, its first instruction being `entry`. */
  bytes(entry: Target): Uint8Array {
    this.#follow(entry);
    const words = new Uint32Array(2 * this.#length);
    for (let from = 2 * (this.#length - 1), to = 0; from >= 0; from -= 2, to += 2) {
      words[to] = this.#words[from] ?? 0;
      words[to + 1] = this.#words[from + 1] ?? 0;
    }
    // Both machines that the filters are for are little endian, and so is this one.
    return new Uint8Array(words.buffer);
  }

  /** Makes sure that the next instruction to run, which is the one written last, is the target. */
  #follow(target: Target): void {
    if (target < 0) this.#push(RETURN, 0, 0, this.#answers[~target] ?? 0);
    else if (target !== this.#length - 1) this.#push(JUMP, 0, 0, this.#length - target - 1);
  }

  /** A position within reach that leads to the target. */
  #approach(target: Target): number {
    if (target >= 0) {
      return this.#length - target <= REACH ? target : this.#push(JUMP, 0, 0, this.#length - target - 1);
    }
    const position = this.#returns[~target];
    if (position !== undefined && this.#length - position <= REACH) return position;
    const copy = this.#push(RETURN, 0, 0, this.#answers[~target] ?? 0);
    this.#returns[~target] = copy;
    return copy;
  }

  #push(code: number, yesSkip: number, noSkip: number, k: number): number {
    if (this.#length === MAX_INSTRUCTIONS) {
      throw new ContainerError({
        message: `cannot compile the seccomp profile: its filter has more than ${MAX_INSTRUCTIONS} instructions`,
        code: "ERR_SPEC",
        from: "/spec/linux/seccomp",
        hint: "the profile needs fewer rules with arguments",
      });
    }
    const at = 2 * this.#length;
    this.#words[at] = code | (yesSkip << 16) | (noSkip << 24);
    this.#words[at + 1] = k;
    return this.#length++;
  }
}
