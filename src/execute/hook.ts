import { ContainerError } from "../error.ts";
import { close, O, open, sealedFile } from "../kernel/file.ts";
import { openProcess, reap, signal, spawn, wait } from "../kernel/process.ts";

/** One OCI hook of the runtime's namespaces. */
export interface HostHook {
  kind: string;
  path: string;
  /** The first is the name, as for execv(3). */
  args: readonly string[];
  env: readonly string[];
  /** 0: without limit. */
  timeoutMs: number;
}

/**
 * Runs a hook with the container's state on its standard input.
 * @throws ContainerError when it cannot be started, fails, or does not end in time (it is killed then)
 */
export function runHook({ kind, path, args, env, timeoutMs }: HostHook, stateJson: string): void {
  const what = `${kind} hook ${path}`;
  const state = sealedFile("caisson-state", Buffer.from(stateJson));
  // the descriptor that wrote it stands at the end, and the hook reads from the start
  const input = open(`/proc/self/fd/${state}`, O.RDONLY);
  close(state);
  try {
    const pidfd = openProcess(spawn(path, [...args], [...env], [input, 1, 2]));
    const [ended] = wait([pidfd], timeoutMs > 0 ? timeoutMs : -1);
    if (ended === 0) signal(pidfd, 9);
    const ending = reap(pidfd);
    close(pidfd);
    if (ended === 0)
      throw new ContainerError({ message: `${what} timed out after ${timeoutMs / 1000} s`, code: "ETIME", path });
    if (ending?.status !== 0)
      throw new ContainerError({ message: `${what} failed: exit status ${ending?.status}`, path });
  } finally {
    close(input);
  }
}
