/** The System V and POSIX message settings that each IPC namespace has for itself: ipc_namespaces(7). */
const IPC = new Set([
  "kernel/msgmax",
  "kernel/msgmnb",
  "kernel/msgmni",
  "kernel/msg_next_id",
  "kernel/sem",
  "kernel/sem_next_id",
  "kernel/shmall",
  "kernel/shmmax",
  "kernel/shmmni",
  "kernel/shm_next_id",
  "kernel/shm_rmid_forced",
]);

/**
 * The path below /proc/sys of a setting: "net.ipv4.conf.eth0/100.forwarding" → "net/ipv4/conf/eth0.100/forwarding".
 * As sysctl(8): the first separator is the separator, and the other of the two stands for itself the other way round.
 * undefined if the path would leave /proc/sys or is none.
 */
export function sysctlPath(name: string): string | undefined {
  const separator = /[./]/.exec(name)?.[0];
  const path = separator === "." ? name.replace(/[./]/g, (character) => (character === "." ? "/" : ".")) : name;
  const good = path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
  return separator !== undefined && good ? path : undefined;
}

/**
 * The kind of namespace that a setting (as a path) belongs to; undefined means the whole machine, which a container
 * must never change.
 */
export function sysctlNamespace(path: string): "ipc" | "network" | "uts" | "user" | undefined {
  if (IPC.has(path) || path.startsWith("fs/mqueue/")) return "ipc";
  if (path.startsWith("net/")) return "network";
  if (path === "kernel/domainname" || path === "kernel/hostname") return "uts";
  // Limits of a user namespace: user_namespaces(7), namespaces(7) "The /proc/sys/user directory".
  if (path.startsWith("user/")) return "user";
  return undefined;
}
