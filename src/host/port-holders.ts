import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/**
 * Processes of this network namespace that listen on a port, such as "nginx (pid 812)", by proc_pid_net(5): of each line
 * the second field is the local address and port in hexadecimal, the tenth the socket's inode. Those of others are seen
 * by root alone.
 */
export function portHolders(port: number): string[] {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const inodes = new Set(
    ["tcp", "tcp6", "udp", "udp6"].flatMap((table) =>
      (attempt(() => readFileSync(`/proc/net/${table}`, "utf8")) ?? "").split("\n").flatMap((line) => {
        const fields = line.trim().split(/\s+/);
        // 0A: it listens; datagram sockets are in state 07
        return fields[1]?.endsWith(wanted) === true && ["0A", "07"].includes(fields[3] ?? "") ? [fields[9]] : [];
      }),
    ),
  );
  if (inodes.size === 0) return [];
  const processes = readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name) && Number(name) !== process.pid);
  return processes.flatMap((pid) => {
    const links = attempt(() => readdirSync(`/proc/${pid}/fd`)) ?? [];
    const holds = links.some((fd) => {
      const [, inode] = /^socket:\[(\d+)\]$/.exec(attempt(() => readlinkSync(`/proc/${pid}/fd/${fd}`)) ?? "") ?? [];
      return inode !== undefined && inodes.has(inode);
    });
    return holds ? [`${attempt(() => readFileSync(`/proc/${pid}/comm`, "utf8").trim()) ?? "?"} (pid ${pid})`] : [];
  });
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return; // it has ended meanwhile, or is not for us
  }
}
