/** AUDIT_ARCH_* of linux/audit.h. */
export const AUDIT = { x86_64: 0xc000003e, x86: 0x40000003, aarch64: 0xc00000b7, arm: 0x40000028, riscv64: 0xc00000f3 };

/** struct seccomp_data, less the instruction pointer. */
export interface Call {
  number: number;
  audit: number;
  args: readonly bigint[];
}

/** Runs a seccomp filter as the kernel would, and returns its answer; throws on anything the kernel would refuse. */
export function answerTo(program: Uint8Array, { number, audit, args }: Call): number {
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, number, true);
  data.setUint32(4, audit, true);
  args.forEach((arg, i) => {
    data.setBigUint64(16 + 8 * i, arg, true);
  });
  const code = new DataView(program.buffer, program.byteOffset, program.byteLength);
  const length = program.byteLength / 8;
  let accumulator = 0;
  for (let at = 0; at < length; ) {
    const opcode = code.getUint16(8 * at, true);
    const k = code.getUint32(8 * at + 4, true);
    const go = (condition: boolean) => at + 1 + code.getUint8(8 * at + (condition ? 2 : 3));
    switch (opcode) {
      case 0x20:
        accumulator = data.getUint32(k, true);
        at++;
        break;
      case 0x54:
        accumulator = (accumulator & k) >>> 0;
        at++;
        break;
      case 0x05:
        at += 1 + k;
        break;
      case 0x15:
        at = go(accumulator === k);
        break;
      case 0x25:
        at = go(accumulator > k);
        break;
      case 0x35:
        at = go(accumulator >= k);
        break;
      case 0x45:
        at = go((accumulator & k) !== 0);
        break;
      case 0x06:
        return k;
      default:
        throw new Error(`instruction ${at} is unknown: ${opcode.toString(16)}`);
    }
  }
  throw new Error("ran past the end of the program");
}

/** Its length in instructions. */
export function programLength(program: Uint8Array): number {
  return program.byteLength / 8;
}
