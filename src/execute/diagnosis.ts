import { close, O, RESOLVE, tryOpenIn } from "../kernel/file.ts";
import { tryCall } from "../kernel/syscall.ts";

const HEAD_BYTES = 4096;
/** e_machine of elf(5), by Node's name of the architecture. */
const MACHINES: { [machine: number]: string } = {
  3: "i386",
  40: "arm",
  62: "x86-64",
  183: "arm64",
  243: "RISC-V",
  22: "s390x",
  21: "ppc64",
};
const OWN_MACHINE = process.arch === "arm64" ? 183 : 62;
const PT_INTERP = 3;

/**
 * Why the kernel refuses to execute a file that is there: found by looking at its first bytes, inside the root.
 * @returns a condition and a remedy, or undefined when nothing is wrong with what can be seen
 */
export function diagnoseExecutable(root: number, path: string): string | undefined {
  const head = readHead(root, path);
  if (head === undefined) return;
  if (head.subarray(0, 2).toString() === "#!") return diagnoseScript(root, head);
  if (head.subarray(0, 4).toString("latin1") === "\x7fELF") return diagnoseElf(root, head);
  return "the file is neither an ELF program nor a script with #! in its first line";
}

function diagnoseScript(root: number, head: Buffer): string | undefined {
  const [line = ""] = head.toString("latin1", 2).split("\n");
  if (line.endsWith("\r")) return "the script's first line ends with a carriage return: save it with Unix line ends";
  const [interpreter = ""] = line.trim().split(/[ \t]/);
  return readHead(root, interpreter) === undefined
    ? `the script's interpreter ${interpreter} is not in the image: install it, or correct the first line`
    : undefined;
}

function diagnoseElf(root: number, head: Buffer): string | undefined {
  const machine = head.readUInt16LE(18);
  if (machine !== OWN_MACHINE)
    return `the program is for ${MACHINES[machine] ?? `machine ${machine}`}, and this machine is ${MACHINES[OWN_MACHINE]}: use an image for this architecture`;
  const interpreter = interpreterOf(head);
  return interpreter !== undefined && readHead(root, interpreter) === undefined
    ? `the program's dynamic loader ${interpreter} is not in the image: install its C library, or use a static program`
    : undefined;
}

/** The path that PT_INTERP of a 64-bit ELF file names. */
function interpreterOf(head: Buffer): string | undefined {
  const table = Number(head.readBigUInt64LE(32));
  const count = head.readUInt16LE(56);
  for (let at = table; at < table + count * 56 && at + 56 <= head.length; at += 56) {
    if (head.readUInt32LE(at) !== PT_INTERP) continue;
    const offset = Number(head.readBigUInt64LE(at + 8));
    return head.toString("latin1", offset, head.indexOf(0, offset));
  }
  return;
}

/** O_NONBLOCK, because the image decides what kind of file it is. */
function readHead(root: number, path: string): Buffer | undefined {
  const file = tryOpenIn(root, path, O.RDONLY | O.NONBLOCK, RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS);
  if (file < 0) return;
  const head = Buffer.alloc(HEAD_BYTES);
  const length = tryCall("read", file, head, head.length);
  close(file);
  return length < 64 && length > 0
    ? Buffer.concat([head.subarray(0, length), Buffer.alloc(64)])
    : length <= 0
      ? undefined
      : head.subarray(0, length);
}
