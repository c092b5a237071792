import { call, tryCall } from "./syscall.ts";

const TCGETS = 0x5401;
const TCSETS = 0x5402;
const TIOCGWINSZ = 0x5413;
const TIOCSWINSZ = 0x5414;
/** struct termios of the kernel is 36 bytes. */
const TERMIOS_BYTES = 64;

export interface TerminalSize {
  rows: number;
  columns: number;
}

/** The size of a terminal; undefined when the descriptor is none. */
export function terminalSize(fd: number): TerminalSize | undefined {
  const size = new Uint16Array(4);
  if (tryCall("ioctl", fd, TIOCGWINSZ, new Uint8Array(size.buffer)) < 0) return;
  return { rows: size[0] ?? 0, columns: size[1] ?? 0 };
}

export function isTerminal(fd: number): boolean {
  return tryCall("ioctl", fd, TCGETS, new Uint8Array(TERMIOS_BYTES)) >= 0;
}

export function resizeTerminal(fd: number, { rows, columns }: TerminalSize): void {
  tryCall("ioctl", fd, TIOCSWINSZ, new Uint8Array(new Uint16Array([rows, columns, 0, 0]).buffer));
}

/** Makes a terminal hand on every byte as it comes, termios(3) cfmakeraw. @returns what to call to put it back */
export function makeRaw(fd: number): () => void {
  const before = new Uint8Array(TERMIOS_BYTES);
  call("ioctl", fd, TCGETS, before);
  const raw = before.slice();
  const flags = new Uint32Array(raw.buffer, 0, 4); // input, output, control, local modes
  flags[0] = (flags[0] ?? 0) & ~0o2753; // IGNBRK BRKINT PARMRK ISTRIP INLCR IGNCR ICRNL IXON
  flags[1] = (flags[1] ?? 0) & ~0o1; // OPOST
  flags[2] = ((flags[2] ?? 0) & ~0o460) | 0o60; // CSIZE PARENB, CS8
  flags[3] = (flags[3] ?? 0) & ~0o100113; // ECHO ECHONL ICANON ISIG IEXTEN
  call("ioctl", fd, TCSETS, raw);
  return () => void tryCall("ioctl", fd, TCSETS, before);
}
