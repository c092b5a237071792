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
  const header = traceHeader(TRACE_CAPACITY);
  call("write", fd, header, header.length);
  return fd;
}

/** Opens a trace, to append to it. @throws ContainerError */
export function openTrace(directory: number, name: string): number {
  return call("openat", directory, name, O.RDWR | O.NOFOLLOW | O.CLOEXEC, 0);
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
