/**
 * Namespaces by the specification's name: the flag for clone(2), unshare(2) and setns(2), and the name of the file
 * below /proc/pid/ns. namespaces(7).
 */
export const NAMESPACES = {
  user: { flag: 0x10000000, file: "user" },
  pid: { flag: 0x20000000, file: "pid" },
  mount: { flag: 0x00020000, file: "mnt" },
  network: { flag: 0x40000000, file: "net" },
  ipc: { flag: 0x08000000, file: "ipc" },
  uts: { flag: 0x04000000, file: "uts" },
  cgroup: { flag: 0x02000000, file: "cgroup" },
  /** Only for clone3(2), unshare(2) and setns(2); children enter it through the file time_for_children. */
  time: { flag: 0x00000080, file: "time" },
} as const;
