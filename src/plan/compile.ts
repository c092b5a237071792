import { NAMESPACES } from "../linux/namespaces.ts";
import { compileSeccomp, type FilterSource } from "../seccomp/compile.ts";
import type { NamespaceType, Process } from "../spec/spec.ts";
import { grantCapabilities } from "./capabilities.ts";
import { cloneIntoCgroups, cloneProcess, createCgroup, openCgroups, openDirectories, startUnit } from "./cgroup.ts";
import type { Definition, ExecDefinition } from "./definition.ts";
import { makeDevices, openDevices, reopenNull } from "./devices.ts";
import { takeTurns } from "./encode.ts";
import { hostHooks, initHooks, openHookStates, promiseHooks } from "./hooks.ts";
import type { Host } from "./host.ts";
import { becomeRoot, mapIdentities, offerMaps, setgroupsDenied, withdrawMaps } from "./identity.ts";
import { mapMounts, mapMountsAsContainer } from "./idmap.ts";
import { openLabels, setLabels } from "./labels.ts";
import { limitResources, listMask, schedule, setMachineView, setOomScore } from "./limits.ts";
import { closeFilesystems, fillVolumes, mountFilesystems, openSources } from "./mounts.ts";
import {
  isJoinedLast,
  isNew,
  isShared,
  joinNamespaces,
  leaveLast,
  nameMachine,
  openNamespaces,
  shiftClocks,
  userPlace,
} from "./namespaces.ts";
import { connectNetwork, moveDevices, raiseLoopback } from "./network.ts";
import { hidePaths } from "./paths.ts";
import { dropPrivileges, filterSyscalls } from "./privileges.ts";
import { enterDirectory, environmentOf, execute, findExecutable } from "./process.ts";
import { joinClass, rejoinClass } from "./resctrl.ts";
import {
  attachRoot,
  changeRoot,
  leaveMounts,
  makeWorkingDirectory,
  openMappedRoot,
  openRoot,
  prepareRoot,
} from "./rootfs.ts";
import { bindSharedViews, cloneInside, refuseUnmapped } from "./rootless.ts";
import type { Plan, Step } from "./step.ts";
import { stepwise } from "./stepwise.ts";
import { setSysctls } from "./sysctl.ts";
import { attachTerminal, openConsole } from "./terminal.ts";
import { refuseUnsupported } from "./unsupported.ts";

/** A container without a process of its own (OCI lets config.json leave it out) can be created, but not started. */
const NO_PROCESS: Process = { cwd: "/" };

/**
 * The order of isolation. Read this to know what happens, and when.
 * @param filterOf what knows the filters of profiles: that they are the same does not depend on it, how long it takes does
 */
export function compile(given: Definition, host: Host, filterOf: FilterSource = compileSeccomp): Plan {
  const definition = { ...given, spec: bindSharedViews(given.spec, host) };
  const { spec, start, preserved, home } = definition;
  const process = grantCapabilities(spec.process ?? NO_PROCESS, spec, host);
  const seccomp = spec.linux?.seccomp;
  refuseUnsupported(spec, process, host);
  refuseUnmapped(spec, process, host);
  const sources = [...openSources(definition), ...openDevices(spec, host)];
  const inside = host.rootless !== undefined;
  // what is mounted in a namespace can only be mounted on what was cloned there
  const joined = !isNew(spec, "mount") && !isShared(spec, "mount");
  const late = inside && isNew(spec, "user");
  const plan = takeTurns([
    ...promiseHooks(spec),
    ...createCgroup(definition, host),
    ...openCgroups(definition, host),
    ...prepareRoot(definition),
    ...(inside || joined ? [] : openRoot(definition)),
    ...(inside ? [] : sources),
    ...openNamespaces(spec),
    ...openConsole(process, definition.console),
    ...listenForStart(start),
    ...startInit(preserved),

    ...startUnit(definition, host),
    ...setOomScore(process),
    ...mapMounts(spec, host),
    ...joinNamespaces(spec, host),
    ...(late ? [] : shiftClocks(spec)),
    ...offerMaps(spec, host),
    ...cloneProcess(definition, host),

    ...mapIdentities(spec, host),
    ...mapMountsAsContainer(spec),
    ...joinClass(definition, host),
    ...openMappedRoot(definition),

    ...(late ? shiftClocks(spec) : []),
    ...withdrawMaps(spec, host),
    anyProcessor,
    ...becomeRoot(spec),
    ...leaveLast(spec),
    ...newSession(definition),
    ...raiseLoopback(definition),
    ...leaveMounts(spec),
    ...(inside || joined ? cloneInside(openRoot(definition)) : []),
    ...(inside ? cloneInside(sources) : []),
    ...attachRoot(definition),
    ...fillVolumes(definition),
    ...mountFilesystems(definition, host),
    ...makeDevices(spec, host),
    ...makeWorkingDirectory(spec),

    ...connectNetwork(definition),
    ...moveDevices(spec),
    ...hostHooks(spec, "prestart", "createRuntime"),
    ...openHookStates(spec),

    ...attachTerminal(process, true),
    ...reopenNull(process, spec),
    ...closeFilesystems(spec),
    ...limitResources(process),
    ...setSysctls(spec),
    ...openLabels(process, host),
    ...hidePaths(spec),
    ...initHooks(spec, "createContainer"),
    ...changeRoot(definition),
    ...nameMachine(spec),
    ...setMachineView(spec),
    ...schedule(process),
    ...setLabels(process, host),
    ...enterDirectory(process),
    ...dropPrivileges(process, seccomp, setgroupsDenied(spec, host)),
    ...findExecutable(process),
    ...waitForStart(start, late && isNew(spec, "pid")),
    ...keepDescriptors(preserved),
    ...filterSyscalls(process, seccomp, host, start === "now" ? "creating" : "created", filterOf),
    ...initHooks(spec, "startContainer", environmentOf(process, home)),
    ...execute(process, home),
    ...hostHooks(spec, "poststart"),
  ]);
  return definition.stepping === undefined ? plan : stepwise(plan, definition.stepping);
}

/** A further process in a container that runs: the same steps, but everything is joined instead of made. */
export function compileExec(definition: ExecDefinition, host: Host, filterOf: FilterSource = compileSeccomp): Plan {
  const { id, spec, cgroups, preserved, home, setgroups } = definition;
  const process = grantCapabilities(definition.process, spec, host);
  const seccomp = spec.linux?.seccomp;
  const { initial = "", final = "" } = process.execCPUAffinity ?? {};
  refuseUnsupported(spec, process, host);
  const namespaces = userPlace(spec.linux?.namespaces ?? [], host);
  const types = namespaces.map(({ type }) => type);
  const join = ({ type }: { type: NamespaceType }): Step => ({
    name: "joinNamespace",
    args: { namespace: type, type: NAMESPACES[type].flag },
    from: "/spec/linux/namespaces",
  });
  return takeTurns([
    ...types.map(
      (type): Step => ({
        name: "openContainer",
        args: { slot: type, file: NAMESPACES[type].file },
        from: "/spec/linux/namespaces",
      }),
    ),
    { name: "openContainerRoot", args: { slot: "root" }, from: "/spec/root" },
    ...openDirectories(cgroups),
    ...openConsole(process, definition.console),
    ...startInit(preserved),

    ...affinity(initial, "initial"),
    ...setOomScore(process),
    ...namespaces.filter((each) => !isJoinedLast(each, namespaces)).map(join),
    ...cloneIntoCgroups(0, cgroups, "/spec/process"),
    ...namespaces.filter((each) => isJoinedLast(each, namespaces)).map(join),
    ...(initial === "" && final === "" ? [anyProcessor] : affinity(final, "final")),
    ...rejoinClass(spec, id, host),

    ...becomeRoot(spec),
    ...newSession(definition),
    ...attachTerminal(process, false),
    ...limitResources(process),
    ...openLabels(process, host),
    ...setLabels(process, host),
    ...(isNew(spec, "mount") ? [] : [{ name: "changeRoot" as const, args: { root: "root" }, from: "/spec/root" }]),
    { name: "closeSlot", args: { file: "root" }, from: "/spec/root" },
    ...setMachineView(spec),
    ...schedule(process),
    ...enterDirectory(process),
    ...dropPrivileges(process, seccomp, setgroups === "deny"),
    ...findExecutable(process),
    { name: "dieWithParent", args: { signal: 0 }, from: "/spec/process" },
    ...keepDescriptors(preserved),
    ...filterSyscalls(process, seccomp, host, "running", filterOf),
    ...execute(process, home),
  ]);
}

function affinity(list: string, which: string): Step[] {
  return list === ""
    ? []
    : [{ name: "setAffinity", args: { mask: listMask(list) }, from: `/spec/process/execCPUAffinity/${which}` }];
}

/** Since Linux 6.2 a process takes the caller's processors along into a cgroup, whatever cpuset is there. */
const anyProcessor: Step = { name: "setAffinity", args: { mask: new Uint8Array() }, from: "/spec/process" };

function listenForStart(start: Definition["start"]): Step[] {
  return start === "later" ? [{ name: "listen", args: { slot: "start" }, from: "/spec" }] : [];
}

function startInit(preserved: number): Step[] {
  return [{ name: "startInit", args: { preserved }, from: "/spec" }];
}

function newSession({ keyring }: Pick<Definition, "keyring">): Step[] {
  const session: Step = { name: "newSession", args: {}, from: "/spec/process" };
  return keyring === undefined
    ? [session]
    : [{ name: "joinKeyring", args: { name: keyring }, from: "/spec/process" }, session];
}

/**
 * From here on the creator may go; the container is there for other commands.
 * @param alone whether no other container sees the process: then its user may open its namespaces, as exec must
 */
function waitForStart(start: Definition["start"], alone: boolean): Step[] {
  const live: Step = { name: "dieWithParent", args: { signal: 0 }, from: "/spec" };
  const open: Step = { name: "setDumpable", args: { dumpable: 1 }, from: "/spec" };
  const record: Step = { name: "recordCreated", args: {}, from: "/spec" };
  return start === "now"
    ? [record, live]
    : [
        live,
        ...(alone ? [open] : []),
        record,
        { name: "awaitStart", args: { listener: "start", started: "starter" }, from: "/spec" },
      ];
}

function keepDescriptors(preserved: number): Step[] {
  return [{ name: "keepDescriptors", args: { count: preserved }, from: "/spec/process" }];
}
