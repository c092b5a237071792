import { ContainerError } from "../error.ts";
import { close, O, open, sealedFile } from "../kernel/file.ts";
import { killGroup, openProcess, reap, signal, spawn, wait } from "../kernel/process.ts";
import type { HookArgs } from "../plan/step.ts";
import type { Signals } from "./signals.ts";

/** What a hook gets to end by itself when we are asked to end. */
const GRACE_MS = 1000;
const SIGKILL = 9;
const SIGTERM = 15;

/**
 * Runs a hook with the container's state on its standard input.
 * @throws ContainerError when it cannot be started, fails, or does not end in time (it is killed then, with all that it
 * has started), or when one of the signals asks us to end
 */
export function runHook(
  { kind, at, path, args, env, timeoutMs }: HookArgs,
  stateJson: string,
  signals?: Signals,
): void {
  // runc's words
  const what = `error running ${kind} hook #${at}`;
  const state = sealedFile("caisson-state", Buffer.from(stateJson));
  // the descriptor that wrote it stands at the end, and the hook reads from the start
  const input = open(`/proc/self/fd/${state}`, O.RDONLY);
  close(state);
  try {
    // only with a limit: without one, it is to get the signals of the terminal that we get
    const leads = timeoutMs > 0;
    const pid = spawn(path, [...args], [...(env ?? ownEnvironment())], [input, 1, 2], leads);
    const pidfd = openProcess(pid);
    const limit = leads ? timeoutMs : -1;
    let ended: number | undefined;
    try {
      [ended] = signals === undefined ? wait([pidfd], limit) : signals.wait([pidfd], limit);
    } catch (error) {
      signal(pidfd, SIGTERM);
      const [late] = wait([pidfd], GRACE_MS);
      if (leads) killGroup(pid);
      else if (late === 0) signal(pidfd, SIGKILL);
      reap(pidfd);
      close(pidfd);
      throw error;
    }
    if (ended === 0) killGroup(pid);
    const ending = reap(pidfd);
    close(pidfd);
    if (ended === 0)
      throw new ContainerError({
        message: `${what}: ${path} ran past its timeout of ${timeoutMs / 1000} s`,
        code: "ETIME",
        path,
      });
    if (ending?.status !== 0)
      throw new ContainerError({ message: `${what}: ${path} ended with exit status ${ending?.status}`, path });
  } finally {
    close(input);
  }
}

/** What a hook gets that names no environment, with every runtime. */
function ownEnvironment(): string[] {
  return Object.entries(process.env).map(([name, value]) => `${name}=${value}`);
}
