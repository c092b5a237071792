import type { Stats } from "node:fs";
import type { Plan } from "../plan/step.ts";
import { type Facts, type Finding, innocent, type Question, refuses, type Walk } from "./question.ts";

/** Steps whose path belongs to the host. */
const OF_THE_HOST: ReadonlySet<string> = new Set([
  "openRoot",
  "openSource",
  "cloneOwn",
  "openNamespace",
  "openConsoleSocket",
  "sendListener",
  "openOwn",
  "openCgroup",
  "runHostHook",
]);
/** Steps whose path or target is looked up inside the root. */
const OF_THE_ROOT: ReadonlySet<string> = new Set([
  "attachMount",
  "attachOrLink",
  "cloneInRoot",
  "checkProcTarget",
  "remount",
  "setMountPropagation",
  "makeDevice",
  "makeLink",
  "maskPath",
  "protectPath",
  "copyUp",
  "matchDirectory",
  "makeWorkingDirectory",
  "changeDirectory",
  "reconfigure",
]);

/** Where the bundle's root is; undefined for the layers of an image, which are joined nowhere any more. */
export function rootPath(plan: Plan): string | undefined {
  for (const step of plan) {
    if (step.name === "openRoot") return step.args.path;
    if (step.name === "cloneOwn" && step.args.mount === "root") return step.args.path;
  }
  return;
}

const kindOf = ({ found }: Walk) =>
  found === undefined
    ? "nothing"
    : found.isDirectory()
      ? "a directory"
      : found.isFile()
        ? "a file"
        : "neither file nor directory";

/** What stopped the look-up, said of the place where it did. */
function stop({ stopped, parts }: Walk, where: string): Finding[] {
  if (stopped === undefined) return [];
  const { path, code, link } = stopped;
  const above = parts.at(-1)?.path ?? "/";
  if (code === "ENOENT" && link !== undefined)
    return refuses(
      `${path}${where} is a symbolic link to ${link}, and that does not exist${where}`,
      `make ${link}${where}, or correct the link`,
    );
  if (code === "ENOENT")
    return refuses(
      `${path} does not exist${where}: ${above} is there, and has no entry of that name`,
      `make ${path}${where}, or correct the path`,
    );
  if (code === "ENOTDIR")
    return refuses(`${path}${where} is no directory, and the path leads through it`, "correct the path");
  if (code === "ELOOP" && link !== undefined)
    return refuses(
      `${path}${where} is a symbolic link to ${link} that may not be followed, or links to itself`,
      "correct the link",
    );
  if (code === "EACCES")
    return refuses(`${above}${where} may not be searched by us`, `chmod +x ${above}, or run it as its owner`);
  return refuses(`${path}${where} cannot be looked up: ${code}`);
}

const missing: Question = ({ step, code, path: told, caller }, facts) => {
  if (!["ENOENT", "ENOTDIR", "ELOOP", "EACCES"].includes(code) || !OF_THE_HOST.has(step.name)) return [];
  const own: unknown = Reflect.get(step.args, "path");
  const path = typeof own === "string" ? own : told;
  if (path === undefined) return [];
  const walk = facts.walk(path);
  if (walk.stopped !== undefined) return stop(walk, "");
  if (code === "ENOTDIR" && walk.found?.isDirectory() !== true)
    return refuses(`${path} is ${kindOf(walk)}, where a directory is needed`, "give a directory");
  const root = /^0\s/.test(caller.status.Uid ?? "");
  return [...(root ? [] : searchable(walk)), ...innocent(`${path} exists now, and is ${kindOf(walk)}`)];
};

/** Directories on the way that not everybody may search. */
function searchable({ parts }: Walk): Finding[] {
  return parts
    .filter(({ stats }) => stats.isDirectory() && (stats.mode & 0o001) === 0)
    .flatMap(({ path, stats }) =>
      refuses(
        `${path} belongs to user ${stats.uid}, and its mode ${octal(stats.mode)} lets not everybody search it`,
        `chmod o+x ${path}`,
      ),
    );
}

const octal = (mode: number) => (mode & 0o7777).toString(8).padStart(4, "0");

const insideRoot: Question = ({ step, code, plan }, facts) => {
  const root = rootPath(plan);
  if (root === undefined || !OF_THE_ROOT.has(step.name)) return [];
  if (!["ENOENT", "ENOTDIR", "EINVAL", "ELOOP", "EEXIST", "EISDIR"].includes(code)) return [];
  const path: unknown = Reflect.get(step.args, "target") ?? Reflect.get(step.args, "path");
  if (typeof path !== "string") return [];
  const walk = facts.walk(path, root);
  const where = ` in the root ${root}`;
  if (walk.stopped !== undefined) return stop(walk, where);
  const kind = kindOf(walk);
  const attaches = step.name === "attachMount" || step.name === "attachOrLink";
  if (attaches && (code === "EINVAL" || (code === "ENOTDIR" && walk.found?.isDirectory() === true)))
    return sourceKinds(plan, step.args.mount, path, kind, facts);
  if (code === "ENOTDIR" && walk.found?.isDirectory() !== true)
    return refuses(`${path}${where} is ${kind}, where a directory is needed`, "use another place, or another image");
  if (code === "ELOOP" || code === "EEXIST")
    return refuses(`${path}${where} is there already, as ${kind}`, "use another place, or remove it from the image");
  return innocent(`${path}${where} exists, and is ${kind}; a mount may cover it when the container is made`);
};

/** A file can be mounted on a file only, and a directory on a directory. */
function sourceKinds(plan: Plan, mount: string, target: string, kind: string, facts: Facts): Finding[] {
  const source = plan.find(({ args }) => Reflect.get(args, "slot") === mount || Reflect.get(args, "mount") === mount);
  const path: unknown = source === undefined ? undefined : Reflect.get(source.args, "path");
  const other = typeof path === "string" ? kindOf(facts.walk(path)) : "a directory";
  return other === kind
    ? innocent(`source and target are both ${kind}`)
    : refuses(
        `${target} in the root is ${kind}, and what is to be mounted there${typeof path === "string" ? `, ${path},` : ""} is ${other}`,
        "mount files on files and directories on directories: choose another destination",
      );
}

/** The container's user is not let through. */
const permission: Question = ({ step, code, plan }, facts) => {
  const root = rootPath(plan);
  if (root === undefined || code !== "EACCES") return [];
  if (!["makeWorkingDirectory", "changeDirectory", "findExecutable"].includes(step.name)) return [];
  // what is made before the change of user is made by root
  const ids = step.name === "makeWorkingDirectory" ? undefined : plan.find(({ name }) => name === "setIds");
  const [uid, gid] = ids?.name === "setIds" ? [Number(ids.args.uid), Number(ids.args.gid)] : [0, 0];
  const who = { uid: mapped(plan, "uid", uid), gid: mapped(plan, "gid", gid) };
  const targets = step.name === "findExecutable" ? step.args.candidates : [String(Reflect.get(step.args, "path"))];
  return targets.flatMap((target) => {
    const { found, parts } = facts.walk(target, root);
    if (found === undefined) return [];
    const barred = parts.filter(
      ({ stats }) => !(uid === 0 && overrules(plan, stats)) && !mayExecute(stats, who.uid, who.gid),
    );
    return barred.flatMap(({ path, stats }) =>
      refuses(
        `${path} in the root ${root} belongs to ${stats.uid}:${stats.gid} with mode ${octal(stats.mode)}, which lets user ${who.uid}:${who.gid} not ${stats.isDirectory() ? "search" : "execute"} it`,
        `chmod +x ${path} in the image, or run as user ${stats.uid}`,
      ),
    );
  });
};

/** Ranges of a new user namespace: inside, outside, how many. */
function rangesOf(plan: Plan, kind: "uid" | "gid"): number[][] | undefined {
  const step = plan.find(
    ({ name, args }) => (name === "mapIds" || name === "mapIdsByHelper") && Reflect.get(args, "kind") === kind,
  );
  const text: unknown = step === undefined ? undefined : Reflect.get(step.args, "map");
  if (typeof text !== "string") return;
  return text
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number));
}

/** An id of the container's as the host has it. */
function mapped(plan: Plan, kind: "uid" | "gid", id: number): number {
  const range = rangesOf(plan, kind)?.find(([inside = 0, , size = 0]) => id >= inside && id - inside < size);
  return range === undefined ? id : (range[1] ?? 0) + id - (range[0] ?? 0);
}

/** Root of a user namespace has power over files only whose owner and group it knows: user_namespaces(7). */
function overrules(plan: Plan, { mode, uid, gid }: Stats): boolean {
  const knows = (kind: "uid" | "gid", id: number) =>
    rangesOf(plan, kind)?.some(([, outside = 0, size = 0]) => id >= outside && id - outside < size) ?? true;
  return knows("uid", uid) && knows("gid", gid) && ((mode & 0o111) !== 0 || (mode & 0o170000) === 0o040000);
}

/** Of owner, group and others only the first that fits counts: path_resolution(7). */
function mayExecute({ mode, uid, gid }: Stats, user: number, group: number): boolean {
  return (mode & (user === uid ? 0o100 : group === gid ? 0o010 : 0o001)) !== 0;
}

export const PATHS: readonly Question[] = [missing, insideRoot, permission];
