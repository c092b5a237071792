import { normalize } from "node:path";
import { capabilityNumber } from "../linux/capabilities.ts";
import { parseIdmap } from "../linux/idmap.ts";
import { mayCoverProc, parseMountOptions } from "../linux/mount-options.ts";
import { sysctlNamespace, sysctlPath } from "../linux/sysctls.ts";
import { type Fault, pointerTo } from "./shape.ts";
import type { Mount, NamespaceType, Process, Spec } from "./spec.ts";

const MAPPED_TOGETHER = "is required: user and group ids are mapped together";

export interface ValidateOptions {
  /** The container is to be created and started from it: `root` and `process.args` are needed, too. */
  runnable?: boolean;
}

/**
 * What the parts of a sound Spec ask for that cannot be had together. Most of it would change the host instead of
 * the container, as there is no namespace to hold it.
 */
export function validate(spec: Spec, { runnable = false }: ValidateOptions = {}): Fault[] {
  const faults: Fault[] = [];
  const { linux = {}, mounts = [] } = spec;
  const has = (type: NamespaceType) => linux.namespaces?.some((namespace) => namespace.type === type) ?? false;
  const isNew = (type: NamespaceType) => has(type) && !isJoined(spec, type);
  const fault = (message: string, ...tokens: (string | number)[]) =>
    faults.push({ pointer: pointerTo(tokens), message });
  const needs = (type: NamespaceType, present: unknown, ...tokens: (string | number)[]) => {
    if (present && !has(type)) fault(`needs a namespace of type ${type} in /linux/namespaces`, ...tokens);
  };

  if (runnable) {
    if (!spec.root) fault("is required", "root");
    if (!spec.process) fault("is required", "process");
    else if (!spec.process.args?.length) fault("must name the program to run", "process", "args");
  }

  needs("uts", spec.hostname, "hostname");
  needs("uts", spec.domainname, "domainname");
  needs("user", linux.uidMappings?.length, "linux", "uidMappings");
  needs("user", linux.gidMappings?.length, "linux", "gidMappings");
  needs("time", linux.timeOffsets?.boottime ?? linux.timeOffsets?.monotonic, "linux", "timeOffsets");
  needs("network", Object.keys(linux.netDevices ?? {}).length, "linux", "netDevices");
  needs("mount", linux.maskedPaths?.length, "linux", "maskedPaths");
  needs("mount", linux.readonlyPaths?.length, "linux", "readonlyPaths");

  if (isNew("user") && Boolean(linux.uidMappings?.length) !== Boolean(linux.gidMappings?.length))
    fault(MAPPED_TOGETHER, "linux", linux.uidMappings?.length ? "gidMappings" : "uidMappings");

  for (const name of Object.keys(linux.sysctl ?? {})) {
    const type = sysctlNamespace(sysctlPath(name) ?? "");
    if (type === undefined) fault("is a setting of the whole machine: no namespace holds it", "linux", "sysctl", name);
    else if (sysctlPath(name) === "kernel/hostname")
      fault("has a field of its own: /hostname", "linux", "sysctl", name);
    else needs(type, true, "linux", "sysctl", name);
  }

  for (const [index, mount] of mounts.entries())
    faultsOfMount(mount, has("user"), (message, ...tokens) => fault(message, "mounts", index, ...tokens));
  return faults;
}

function faultsOfMount(
  { destination, type, options = [], source, uidMappings, gidMappings }: Mount,
  userNamespace: boolean,
  fault: (message: string, ...tokens: string[]) => void,
): void {
  const { bind, idmap, idmapRanges, remount, tmpcopyup } = parseMountOptions(options);
  const bound = bind !== undefined || type === "bind";
  const mapped = Boolean(uidMappings?.length && gidMappings?.length);
  const target = normalize(`/${destination}`).replace(/\/$/, "");
  if (Boolean(uidMappings?.length) !== Boolean(gidMappings?.length))
    fault(MAPPED_TOGETHER, uidMappings?.length ? "gidMappings" : "uidMappings");
  if ((mapped || idmap) && !bound) fault("must have bind or rbind for mapped ids", "options");
  if (idmap && !mapped && idmapRanges === undefined && !userNamespace)
    fault(`has ${idmap}, which needs mappings or a user namespace`, "options");
  if (idmapRanges !== undefined && parseIdmap(idmapRanges) === undefined)
    fault(`has ${idmap}=${idmapRanges}, which must be like ${idmap}=uids=0-1000-10#10-5000-1;gids=@0-0-10`, "options");
  if (tmpcopyup && type !== "tmpfs") fault("has tmpcopyup, which only a tmpfs can have", "options");
  if (bound && !remount && !source) fault("is required for a bind mount", "source");
  // whatever is there would be hidden from those who rely on the kernel's proc: CVE-2019-16884
  if (target.startsWith("/proc/") && type !== "proc" && !remount && !mayCoverProc(target))
    fault(`${JSON.stringify(destination)} cannot be mounted because it is inside /proc`, "destination");
}

/** What a sound Spec says without effect, or in a way that is going out of use. */
export function warningsOf(spec: Spec): Fault[] {
  const warnings: Fault[] = [];
  const { linux = {}, mounts = [] } = spec;
  const warn = (message: string, ...tokens: (string | number)[]) =>
    warnings.push({ pointer: pointerTo(tokens), message });

  mounts.forEach(({ destination }, index) => {
    if (!destination.startsWith("/")) warn("is relative: taken as relative to /", "mounts", index, "destination");
  });
  warnings.push(...unknownCapabilities(spec.process));
  if (linux.personality?.flags?.length)
    warn("are ignored: the specification defines none", "linux", "personality", "flags");
  if (linux.resources?.memory?.kernel !== undefined)
    warn("is ignored: Linux has no such limit any more", "linux", "resources", "memory", "kernel");
  if (linux.timeOffsets && isJoined(spec, "time"))
    warn("are ignored: the clocks of a joined namespace are set already", "linux", "timeOffsets");
  if ((linux.uidMappings || linux.gidMappings) && isJoined(spec, "user"))
    warn(
      "is ignored: the joined user namespace has its own",
      "linux",
      linux.uidMappings ? "uidMappings" : "gidMappings",
    );
  return warnings;
}

/** Capabilities that nobody can grant: the specification has them warned about. */
export function unknownCapabilities(process: Process | undefined): Fault[] {
  return Object.entries<string[] | undefined>({ ...process?.capabilities }).flatMap(([set, names = []]) =>
    names.flatMap((name, index): Fault[] =>
      capabilityNumber(name) === undefined
        ? [
            {
              pointer: pointerTo(["process", "capabilities", set, index]),
              message: `${JSON.stringify(name)} is unknown and ignored`,
            },
          ]
        : [],
    ),
  );
}

function isJoined({ linux }: Spec, type: NamespaceType): boolean {
  return linux?.namespaces?.some((namespace) => namespace.type === type && namespace.path !== undefined) ?? false;
}
