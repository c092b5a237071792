import { execFileSync } from "node:child_process";
import { join } from "node:path";
import type { Bundle } from "./bundle.ts";

/**
 * Words before the runtime's own: in a mount namespace where `directory` is a shared mount, a tmpfs `from-outside` is
 * mounted on its subdirectory `point` when the container waits at its FIFO /gate. How many mounts called `from-inside`
 * came out of the container is the one line of standard error.
 */
export function besideMounts({ rootfs }: Bundle, directory: string, point: string): string[] {
  const gate = join(rootfs, "gate");
  execFileSync("mkfifo", [gate]);
  const script = `
    mount --bind "$1" "$1" && mount --make-shared "$1" || exit
    timeout 60 sh -c 'exec 3> "$1" && mount -t tmpfs from-outside "$2"' sh "$2" "$1/$3" &
    shift 3
    "$@"
    status=$?
    wait
    grep -c from-inside /proc/self/mountinfo >&2
    exit $status`;
  return ["unshare", "--mount", "sh", "-c", script, "sh", directory, gate, point];
}
