import type { Capabilities, Process, Spec } from "../spec/spec.ts";
import type { Host } from "./host.ts";
import { isShared } from "./namespaces.ts";

type Sets = Required<Capabilities>;

const TOLD = ["bounding", "permitted", "effective", "inheritable", "ambient"] as const;

/**
 * What the kernel grants of the capabilities that a process asks for, by capset(2) and prctl(2): the runtime can give
 * none that it lacks, but in a user namespace it has all. An effective capability must be permitted, an inheritable one
 * in the bounding set, an ambient one permitted and inheritable.
 */
function grantable({ capabilities = {} }: Process, spec: Spec, host: Host): Sets {
  const lacking = isShared(spec, "user") ? host.lacking : [];
  const asked = (set: keyof Capabilities) => (capabilities[set] ?? []).filter((name) => !lacking.includes(name));
  const [bounding, permitted] = [asked("bounding"), asked("permitted")];
  const inheritable = asked("inheritable").filter((name) => bounding.includes(name));
  return {
    bounding,
    permitted,
    inheritable,
    effective: asked("effective").filter((name) => permitted.includes(name)),
    ambient: asked("ambient").filter((name) => permitted.includes(name) && inheritable.includes(name)),
  };
}

/** The process with what can be granted of its capabilities. */
export function grantCapabilities(process: Process, spec: Spec, host: Host): Process {
  return process.capabilities === undefined ? process : { ...process, capabilities: grantable(process, spec, host) };
}

/** A capability that was asked for and cannot be granted. */
export interface Withheld {
  name: string;
  /** JSON pointer into config.json. */
  from: string;
  reason: string;
}

/** What cannot be granted: OCI config.md, "Linux Process". */
export function withheldCapabilities(process: Process, spec: Spec, host: Host): Withheld[] {
  const granted = grantable(process, spec, host);
  return TOLD.flatMap((set) =>
    (process.capabilities?.[set] ?? []).flatMap((name, at) =>
      granted[set].includes(name)
        ? []
        : [{ name, from: `/process/capabilities/${set}/${at}`, reason: reason(name, set, host) }],
    ),
  );
}

/** A line for the log. */
export function sayWithheld({ name, from, reason }: Withheld): string {
  // runc's words
  if (from.includes("/ambient/")) return `can't raise ambient capability ${name}: ${reason} (${from})`;
  return `${from} ${name} cannot be granted: ${reason}`;
}

function reason(name: string, set: (typeof TOLD)[number], { lacking }: Host): string {
  if (lacking.includes(name)) return "the runtime itself does not have it";
  if (set === "ambient") return "it is not permitted and inheritable";
  return set === "effective" ? "it is not permitted" : "it is not in the bounding set";
}
