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

/** What those resources are called there, by their names in prlimit(2). */
export const LIMIT_WORDS: { readonly [resource: string]: string } = {
  RLIMIT_CPU: "Max cpu time",
  RLIMIT_FSIZE: "Max file size",
  RLIMIT_DATA: "Max data size",
  RLIMIT_STACK: "Max stack size",
  RLIMIT_CORE: "Max core file size",
  RLIMIT_RSS: "Max resident set",
  RLIMIT_NPROC: "Max processes",
  RLIMIT_NOFILE: "Max open files",
  RLIMIT_MEMLOCK: "Max locked memory",
  RLIMIT_AS: "Max address space",
  RLIMIT_LOCKS: "Max file locks",
  RLIMIT_SIGPENDING: "Max pending signals",
  RLIMIT_MSGQUEUE: "Max msgqueue size",
  RLIMIT_NICE: "Max nice priority",
  RLIMIT_RTPRIO: "Max realtime priority",
  RLIMIT_RTTIME: "Max realtime timeout",
};
