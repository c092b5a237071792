import { ContainerError } from "../../error.ts";

/** strerror(3) of what engines look for, whatever it was said of: docker tells people what they may have mixed up by it. */
const KERNEL: { [code: string]: string } = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  ENOTDIR: "not a directory",
  EPERM: "operation not permitted",
  ELOOP: "too many levels of symbolic links",
};

/** runc's words for what the kernel said of the executable; engines decide 126 and 127 by them. */
const EXECUTABLE: { [code: string]: string } = {
  ...KERNEL,
  EISDIR: "is a directory: permission denied",
  ENOEXEC: "exec format error",
};

/** Runs an operation of the container; what goes wrong while it starts is told in runc's words, with our own after them. */
export function describe<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof ContainerError) || error.step === undefined) throw error;
    throw new ContainerError({
      ...error,
      message: `unable to start container process: ${wordsFor(error)}`,
      cause: error.cause,
    });
  }
}

function wordsFor(error: ContainerError): string {
  const { step, code = "", message, path: name = "", dest = name } = error;
  if (step === "findExecutable") {
    if (code === "ENOENT" && !name.includes("/"))
      return `exec: ${JSON.stringify(name)}: executable file not found in $PATH`;
    const word = EXECUTABLE[code] ?? code;
    return code === "ENOENT"
      ? `exec: ${JSON.stringify(name)}: stat ${dest}: ${word}`
      : `exec: ${JSON.stringify(name)}: ${word}`;
  }
  if (step === "execute") return `exec ${name}: ${EXECUTABLE[code] ?? code}`;
  if (step === "runHook") {
    const [kind, at] = (error.from ?? "").split("/").slice(-2);
    return `error running ${kind} hook #${at}: ${code === "ETIME" ? "it ran past its timeout" : "it did not succeed"}: ${message}`;
  }
  if (step === "checkProcTarget")
    return `filesystem for ${JSON.stringify(dest)} must be mounted on ordinary directory: ${message}`;
  if (step === "changeDirectory")
    return `chdir to cwd (${JSON.stringify(name)}) set in config.json failed: ${EXECUTABLE[code] ?? code}`;
  const said = error.errno === undefined ? undefined : KERNEL[code];
  return said === undefined ? message : `${message}: ${said}`;
}
