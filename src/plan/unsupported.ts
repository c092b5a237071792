import { ContainerError } from "../error.ts";
import type { Process, Spec } from "../spec/spec.ts";
import type { Host } from "./host.ts";

/**
 * What the specification has and this host, or Caisson, does not. To leave it out would make a container that is less
 * confined than was asked for, so such a spec is refused. Where runc refuses, too, its words are used.
 * @throws ContainerError with the first's pointer, and the others in its message
 */
export function refuseUnsupported({ linux }: Spec, process: Process, host: Host): void {
  const { apparmorProfile = "", selinuxLabel = "" } = process;
  const withoutSelinux = "selinux label is specified in config, but selinux is disabled or not supported";
  const asked: [boolean, string, string][] = [
    [
      apparmorProfile !== "" && apparmorProfile !== "unconfined" && !host.apparmor,
      "apparmor: config provided but apparmor not supported",
      "/spec/process/apparmorProfile",
    ],
    [selinuxLabel !== "" && !host.selinux, withoutSelinux, "/spec/process/selinuxLabel"],
    [(linux?.mountLabel ?? "") !== "" && !host.selinux, withoutSelinux, "/spec/linux/mountLabel"],
    [
      linux?.intelRdt !== undefined && host.resctrl === undefined,
      "intelRdt is specified in config, but Intel RDT is not supported or enabled",
      "/spec/linux/intelRdt",
    ],
  ];
  const [first, ...others] = asked.filter(([present]) => present);
  if (first === undefined) return;
  const [, what, from] = first;
  const rest = others.map(([, message, pointer]) => `\n  ${pointer.replace(/^\/spec/, "")}: ${message}`);
  throw new ContainerError({ message: [what, ...rest].join(""), code: "ENOTSUP", from });
}
