/** Lines of /proc/pid/status by their names: "CapBnd", "Uid", …. proc_pid_status(5) */
export function parseStatus(text: string): Map<string, string> {
  return new Map(
    text.split("\n").flatMap((line): [string, string][] => {
      const [, name, value] = /^(\w+):\s*(.*)$/.exec(line) ?? [];
      return name === undefined || value === undefined ? [] : [[name, value]];
    }),
  );
}

/** Soft and hard limit by resource ("Max open files"): "unlimited" or a number. proc_pid_limits(5) */
export function parseLimits(text: string): Map<string, [string, string]> {
  return new Map(
    text.split("\n").flatMap((line): [string, [string, string]][] => {
      const [, name, soft, hard] = /^(Max .+?)\s{2,}(\S+)\s+(\S+)/.exec(line) ?? [];
      return name === undefined || soft === undefined || hard === undefined ? [] : [[name, [soft, hard]]];
    }),
  );
}
