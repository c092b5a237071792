import { closeSync, constants, fstatSync, openSync, readSync, realpathSync } from "node:fs";
import { resolve } from "node:path";
import { ContainerError } from "../error.ts";
import { MAX_SIZE_BYTES, parse } from "./parse.ts";
import type { Fault } from "./shape.ts";
import type { Spec } from "./spec.ts";
import { warningsOf } from "./validate.ts";

export interface Bundle {
  spec: Spec;
  /** Absolute, without symbolic links. */
  bundle: string;
  /** For the log: the container can be made all the same. */
  warnings: Fault[];
}

/**
 * The config.json of an OCI bundle, read and checked for a container that is to be started.
 * @param file counts from the bundle
 * @throws ContainerError if the directory or the file cannot be read; ERR_SPEC as `parse`
 */
export function readBundle(directory: string, file = "config.json"): Bundle {
  const bundle = attempt(`cannot find bundle ${directory}`, directory, () => realpathSync(directory));
  const path = resolve(bundle, file);
  const spec = withRoot(parse(readRegular(path), { path, runnable: true }));
  return { spec, bundle, warnings: warningsOf(spec) };
}

/** As with crun, root of a new user namespace for which nobody is named is the caller: no more than it is already. */
function withRoot(spec: Spec): Spec {
  const { namespaces = [], uidMappings = [], gidMappings = [] } = spec.linux ?? {};
  const isNew = namespaces.some(({ type, path }) => type === "user" && path === undefined);
  if (!isNew || uidMappings.length > 0 || gidMappings.length > 0) return spec;
  const only = (hostID = 0) => [{ containerID: 0, hostID, size: 1 }];
  const mappings = { uidMappings: only(process.geteuid?.()), gidMappings: only(process.getegid?.()) };
  return { ...spec, linux: { ...spec.linux, ...mappings } };
}

/**
 * A document that the caller names: a file, a pipe, or a descriptor.
 * @throws ContainerError EFBIG if there is more to it than a document may have; whatever node:fs says
 */
export function readDocument(path: string | number): Uint8Array {
  const file = typeof path === "number" ? path : openSync(path, constants.O_RDONLY);
  try {
    const parts: Uint8Array[] = [];
    for (let length = 0; length <= MAX_SIZE_BYTES; ) {
      const part = Buffer.allocUnsafe(65_536);
      const got = readSync(file, part, 0, part.length, null);
      if (got === 0) return Buffer.concat(parts);
      parts.push(part.subarray(0, got));
      length += got;
    }
  } finally {
    if (file !== path) closeSync(file);
  }
  throw new ContainerError({
    message: `cannot read ${typeof path === "number" ? "the standard input" : path}: larger than 16 MiB`,
    code: "EFBIG",
  });
}

function readRegular(path: string): Uint8Array {
  // O_NONBLOCK: opening a FIFO would wait for a writer.
  const file = attempt("cannot open config.json", path, () =>
    openSync(path, constants.O_RDONLY | constants.O_NONBLOCK),
  );
  try {
    const facts = fstatSync(file);
    if (!facts.isFile()) throw new ContainerError({ message: `cannot read ${path}: not a regular file`, path });
    if (facts.size > MAX_SIZE_BYTES)
      throw new ContainerError({ message: `cannot read ${path}: larger than 16 MiB`, code: "EFBIG", path });
    // One byte more than it should have: the file may be growing.
    const bytes = Buffer.alloc(facts.size + 1);
    let length = 0;
    attempt(`cannot read ${path}`, path, () => {
      for (let got = 1; got > 0 && length < bytes.length; length += got)
        got = readSync(file, bytes, length, bytes.length - length, null);
    });
    if (length > facts.size) throw new ContainerError({ message: `cannot read ${path}: it is being written`, path });
    return bytes.subarray(0, length);
  } finally {
    closeSync(file);
  }
}

function attempt<T>(message: string, path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    const { code, errno, syscall } = cause as NodeJS.ErrnoException; // node:fs throws nothing else
    const missing = code === "ENOENT" && path.endsWith("/config.json");
    throw new ContainerError({
      // The words of runc, which clients look for.
      message: missing ? "JSON specification file config.json not found" : `${message}: ${code}`,
      code,
      errno: errno === undefined ? undefined : Math.abs(errno),
      syscall,
      path,
      hint: missing ? "`caisson-runtime spec` writes one into the present directory" : undefined,
      cause,
    });
  }
}
