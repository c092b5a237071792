import { ContainerError } from "../error.ts";
import { execute } from "../execute/execute.ts";
import type { HostContext } from "../execute/host.ts";
import type { Launcher } from "../execute/init.ts";
import { makeAnonymousTrace } from "../execute/trace-file.ts";
import { detectHost, setgroupsOf } from "../host/host.ts";
import { close } from "../kernel/file.ts";
import { capabilityNames } from "../linux/capabilities.ts";
import { NAMESPACES } from "../linux/namespaces.ts";
import { compileExec } from "../plan/compile.ts";
import type { NamespaceType, Process, Spec } from "../spec/spec.ts";
import { OCI_VERSION } from "../spec/template.ts";
import { insideOf, type Seen } from "../verify/area.ts";
import type { Running } from "./container.ts";
import { fitProcess, takeTerminal } from "./foreground.ts";

export interface Visit {
  /** What the visitor executes, looked up where it is then. */
  args: string[];
  /** Whether it gets a terminal of its own, in the devpts that is there. */
  terminal: boolean;
  launcher: Launcher;
}

/** The slot that compileExec has for it. */
const ROOT = "root";
const PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Starts a process beside one that stands still, as what that one is at this moment: in its namespaces, its root and its
 * cgroups, with its ids and capabilities.
 * @returns the visitor, a child of ours, and its terminal's master @throws ContainerError
 */
export function visit(seen: Seen, { args, terminal, launcher }: Visit): { process: Running; master?: number } {
  const { pid } = seen;
  const spec = specOf(seen);
  const host = detectHost();
  const joined = compileExec(
    {
      id: "visit",
      pid,
      spec,
      process: fitProcess({ ...processOf(seen), args, terminal }),
      cgroups: host.cgroups.hierarchies.flatMap((hierarchy) => {
        const path = seen.cgroups.get(hierarchy.mountPoint);
        return path === undefined || path === hierarchy.mountPoint ? [] : [{ hierarchy, path }];
      }),
      preserved: 0,
      setgroups: setgroupsOf(pid),
      ...(terminal ? { console: "creator" as const } : {}),
    },
    host,
  );
  // joining a mount namespace leads to what covers its root; the one that stands still may be beneath that
  const plan = joined.flatMap((step) =>
    step.name === "closeSlot" && step.args.file === ROOT && !joined.some(({ name }) => name === "changeRoot")
      ? [{ name: "changeRoot" as const, args: { root: ROOT }, from: step.from }, step]
      : [step],
  );
  const context: HostContext = {
    id: "visit",
    directory: -1,
    process: undefined,
    container: { pid },
    slots: new Map(),
    returns: new Map(),
    state: () => "",
    record: () => undefined,
  };
  const trace = makeAnonymousTrace();
  try {
    const process = execute(plan, { trace, context, preserved: [], launcher });
    return context.terminal === undefined ? { process } : { process, master: takeTerminal(context.terminal) };
  } finally {
    close(trace);
  }
}

function specOf({ namespaces, own }: Seen): Spec {
  const differs = (type: NamespaceType) => {
    const { file } = NAMESPACES[type];
    return namespaces.has(file) && namespaces.get(file) !== own.get(file);
  };
  return {
    ociVersion: OCI_VERSION,
    linux: { namespaces: TYPES.filter(differs).map((type) => ({ type })) },
  };
}

/** In the order in which they have to be joined: the user namespace gives the right to the others. */
const TYPES: readonly NamespaceType[] = ["user", "pid", "network", "ipc", "uts", "cgroup", "time", "mount"];

function processOf({ status, uidMap, gidMap }: Seen): Process {
  const uid = idOf(status.get("Uid"), uidMap);
  const gid = idOf(status.get("Gid"), gidMap);
  if (uid === undefined || gid === undefined)
    throw new ContainerError({
      message: "cannot go inside: in its user namespace nobody is anybody yet",
      code: "ERR_USAGE",
      hint: "the maps of users and groups come with the steps mapIds",
    });
  const set = (field: string) => capabilityNames(BigInt(`0x${status.get(field) ?? "0"}`));
  return {
    cwd: "/",
    user: { uid, gid },
    env: [PATH, `TERM=${process.env.TERM ?? "dumb"}`, "PS1=inside# "],
    capabilities: {
      effective: set("CapEff"),
      permitted: set("CapPrm"),
      inheritable: set("CapInh"),
      ambient: set("CapAmb"),
      bounding: set("CapBnd"),
    },
    noNewPrivileges: status.get("NoNewPrivs") === "1",
  };
}

/** The effective one, as the process itself knows it. */
function idOf(field: string | undefined, map: string): number | undefined {
  return insideOf(map, Number((field ?? "").split(/\s+/)[1]));
}
