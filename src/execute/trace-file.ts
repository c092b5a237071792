import { AT_FDCWD, O } from "../kernel/file.ts";
import { call, tryCall } from "../kernel/syscall.ts";
import { TRACE_CAPACITY, traceBytes, traceHeader } from "../trace/report.ts";

/** Makes an empty trace in a directory, for both sides to map. @returns its descriptor */
export function makeTrace(directory: number, name: string): number {
  return prepare(call("openat", directory, name, O.RDWR | O.CREAT | O.TRUNC | O.NOFOLLOW | O.CLOEXEC, 0o600));
}

/** A trace that nobody can find: it is gone with its last descriptor. */
export function makeAnonymousTrace(): number {
  return prepare(call("memfd_create", "caisson-trace", 1));
}

function prepare(fd: number): number {
  call("ftruncate", fd, traceBytes(TRACE_CAPACITY));
  const header = traceHeader(TRACE_CAPACITY, epochNs());
  call("write", fd, header, header.length);
  return fd;
}

/** Opens a trace, to append to it; -1 where there is none. */
export function tryOpenTrace(path: string): number {
  return Math.max(-1, tryCall("openat", AT_FDCWD, path, O.RDWR | O.NOFOLLOW | O.CLOEXEC, 0));
}

/** The same of one that must be there. @throws ContainerError */
export function openTrace(directory: number, name: string): number {
  return call("openat", directory, name, O.RDWR | O.NOFOLLOW | O.CLOEXEC, 0);
}

/** CLOCK_REALTIME less CLOCK_MONOTONIC, now. */
function epochNs(): bigint {
  return clock(0) - clock(1);
}

function clock(number: number): bigint {
  const time = new BigInt64Array(2);
  call("clock_gettime", number, new Uint8Array(time.buffer));
  return (time[0] ?? 0n) * 1_000_000_000n + (time[1] ?? 0n);
}

/** Reads a whole trace. @returns undefined when there is none */
export function readTrace(path: string): Uint8Array | undefined {
  const fd = tryCall("openat", AT_FDCWD, path, O.RDONLY | O.NOFOLLOW | O.CLOEXEC, 0);
  if (fd < 0) return;
  const bytes = readOpenTrace(fd);
  call("close", fd);
  return bytes;
}

/** The same, of an open one. */
export function readOpenTrace(fd: number): Uint8Array {
  call("lseek", fd, 0, 0);
  const bytes = Buffer.alloc(traceBytes(TRACE_CAPACITY));
  let length = 0;
  for (let got = 1; got > 0 && length < bytes.length; length += got)
    got = call("read", fd, bytes.subarray(length), bytes.length - length);
  return bytes.subarray(0, length);
}
