import { ContainerError } from "../../error.ts";

/** Docker's statuses: the command's own; ours is 125. */
export const OURS = 125;

/** The one error that everybody makes deserves a plain sentence. */
export function inWords(error: unknown): unknown {
  if (!(error instanceof ContainerError) || (error.step !== "findExecutable" && error.step !== "execute")) return error;
  const { path = "", code = "" } = error;
  const reasons: { [code: string]: string } = {
    ENOENT:
      error.step === "execute"
        ? "a file it needs is missing"
        : path.includes("/")
          ? "there is no such file in the container"
          : "it is not in the container's PATH",
    EACCES: "it is not executable for the container's user",
    EISDIR: "it is a directory",
    ENOEXEC: "its format is not executable",
  };
  const reason = reasons[code];
  if (reason === undefined) return error;
  return new ContainerError({
    ...error,
    message: `cannot run ${path === "" ? '""' : path}: ${reason}`,
    cause: error.cause,
  });
}

/** 126 and 127 as Docker has them: the command is there but cannot be executed; it is not there. */
export function statusOf(error: unknown): number {
  // what has no errno never came to the kernel
  if (!(error instanceof ContainerError) || error.errno === undefined) return OURS;
  const { step, code } = error;
  if (step === "findExecutable") return code === "ENOENT" ? 127 : 126;
  return step === "execute" ? 126 : OURS;
}
