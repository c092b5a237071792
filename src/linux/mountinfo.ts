/** One line of /proc/pid/mountinfo; proc_pid_mountinfo(5). */
export interface MountEntry {
  id: number;
  /** Path of the mount's root within its file system. */
  root: string;
  /** Where it is mounted, seen from the process's root. */
  mountPoint: string;
  /** Of this mount: "ro", "nosuid", … */
  options: readonly string[];
  /** "shared:12", "master:3", … */
  propagation: readonly string[];
  type: string;
  source: string;
  /** Of the file system. */
  superOptions: readonly string[];
}

/** In the kernel's order: of two mounts on one place the later covers the earlier. */
export function parseMountinfo(text: string): MountEntry[] {
  return text.split("\n").flatMap((line): MountEntry[] => {
    const [front = "", back] = line.split(" - ");
    if (back === undefined) return [];
    const [id, , , root = "", mountPoint = "", options = "", ...propagation] = front.split(" ");
    const [type = "", source = "", superOptions = ""] = back.split(" ");
    return [
      {
        id: Number(id),
        root: unescaped(root),
        mountPoint: unescaped(mountPoint),
        options: options.split(","),
        propagation,
        type,
        source: unescaped(source),
        superOptions: superOptions.split(","),
      },
    ];
  });
}

/** Space, tab, newline and backslash are written as three octal digits, byte by byte. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
