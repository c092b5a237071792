import type { IntelRdt, Spec } from "../spec/spec.ts";
import type { Definition } from "./definition.ts";
import type { Host } from "./host.ts";
import type { Step } from "./step.ts";

const FROM = "/spec/linux/intelRdt";

/**
 * The container's class of service in the resctrl filesystem, and its place in it: OCI config-linux.md, "IntelRdt";
 * the kernel's Documentation/filesystems/resctrl.rst. Without resctrl, `refuseUnsupported` has thrown.
 */
export function joinClass({ spec, id }: Definition, { resctrl }: Host): Step[] {
  const rdt = spec.linux?.intelRdt;
  if (rdt === undefined || resctrl === undefined) return [];
  const path = classPath(resctrl, rdt, id);
  const schemata = schemataOf(rdt);
  const steps: Step[] = [];
  // a class that is named and not described is somebody else's, and must be there
  if (isOwn(rdt) || schemata.length > 0)
    steps.push({ name: "makeClass", args: { path, schemata, own: isOwn(rdt) }, from: FROM });
  steps.push({ name: "enterClass", args: { path }, from: `${FROM}/closID` });
  if (rdt.enableMonitoring === true)
    steps.push({ name: "monitorClass", args: { path: `${path}/mon_groups/${id}` }, from: `${FROM}/enableMonitoring` });
  return steps;
}

/** A class without a name is the container's alone. */
function isOwn({ closID = "" }: IntelRdt): boolean {
  return closID === "";
}

function classPath(resctrl: string, { closID = "" }: IntelRdt, id: string): string {
  return closID === "/" ? resctrl : `${resctrl}/${closID === "" ? id : closID}`;
}

/** The lines for the class's schemata file: a "MB:" line in l3CacheSchema gives way to memBwSchema. */
function schemataOf({ l3CacheSchema = "", memBwSchema = "", schemata = [] }: IntelRdt): string[] {
  const cache = l3CacheSchema
    .split("\n")
    .filter((line) => line !== "" && (memBwSchema === "" || !line.trimStart().startsWith("MB:")));
  return [...cache, ...(memBwSchema === "" ? [] : [memBwSchema]), ...schemata];
}

/** Whether a process of this spec belongs to a class of its own making, which exec must enter, too. */
export function rejoinClass(spec: Spec, id: string, { resctrl }: Host): Step[] {
  const rdt = spec.linux?.intelRdt;
  if (rdt === undefined || resctrl === undefined) return [];
  const path = classPath(resctrl, rdt, id);
  const group = rdt.enableMonitoring === true ? `${path}/mon_groups/${id}` : path;
  return [{ name: "enterClass", args: { path: group }, from: FROM }];
}
