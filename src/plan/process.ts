import type { Process } from "../spec/spec.ts";
import { joinPath, normalPath } from "./path.ts";
import type { Step } from "./step.ts";

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * The environment as the process gets it, as runc has it: of a variable given twice the last counts (exec's --env comes
 * after the container's own), and HOME is there, as programs expect, even if it was given empty.
 */
export function environmentOf({ env = [] }: Process, home: string | undefined): string[] {
  const entries = new Map(env.map((entry) => [entry.slice(0, entry.indexOf("=")), entry]));
  if (!hasHome(env)) entries.set("HOME", `HOME=${home ?? "/"}`);
  return [...entries.values()];
}

/** Whether the environment says what HOME is. */
export function hasHome(env: readonly string[]): boolean {
  const home = env.findLast((entry) => entry.startsWith("HOME="));
  return home !== undefined && home !== "HOME=";
}

/** Before privileges are dropped: the user may be let into a directory that is closed to it, as docker's --workdir does. */
export function enterDirectory({ cwd, user: { uid = 0, gid = 0 } = {} }: Process): Step[] {
  return [
    { name: "changeDirectory", args: { path: cwd, uid, gid }, from: "/spec/process/cwd" },
    { name: "checkDirectory", args: {}, from: "/spec/process/cwd" },
  ];
}

/** The last steps of create: what fails here, engines want to know from create. */
export function findExecutable(process: Process): Step[] {
  return [
    {
      name: "findExecutable",
      args: { candidates: candidatesOf(process), name: process.args?.[0] ?? "" },
      from: "/spec/process/args/0",
    },
  ];
}

/** Where execvp(3) would look: the path itself if it has a slash, else each directory of the container's PATH. */
function candidatesOf({ args = [], env = [], cwd }: Process): string[] {
  const [name = ""] = args;
  if (name.includes("/")) return [name];
  const path = env.findLast((entry) => entry.startsWith("PATH="))?.slice(5) ?? DEFAULT_PATH;
  if (name === "") return [];
  return path
    .split(":")
    .map((directory) => (directory === "" ? joinPath(normalPath(cwd), name) : `${directory}/${name}`));
}

/** The container's own program. */
export function execute(process: Process, home: string | undefined): Step[] {
  return [
    {
      name: "execute",
      args: { arguments: process.args ?? [], environment: environmentOf(process, home) },
      from: "/spec/process/args",
    },
  ];
}
