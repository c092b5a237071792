import { ContainerError } from "../error.ts";
import { parseMountOptions } from "../linux/mount-options.ts";
import type { Process, Spec } from "../spec/spec.ts";

/**
 * What the specification has and Caisson does not do yet. To leave it out would make a container that is less
 * confined than was asked for, so such a spec is refused. @throws ContainerError with the pointer of the first
 */
export function refuseUnsupported({ linux, mounts = [] }: Spec, process: Process): void {
  const asked: [boolean, string, string][] = [
    [
      (process.apparmorProfile ?? "") !== "" && process.apparmorProfile !== "unconfined",
      "AppArmor profiles",
      "/spec/process/apparmorProfile",
    ],
    [(process.selinuxLabel ?? "") !== "", "SELinux labels", "/spec/process/selinuxLabel"],
    [(linux?.mountLabel ?? "") !== "", "SELinux labels", "/spec/linux/mountLabel"],
    [Object.keys(linux?.netDevices ?? {}).length > 0, "network devices of the host", "/spec/linux/netDevices"],
    [linux?.intelRdt !== undefined, "Intel RDT", "/spec/linux/intelRdt"],
    ...mounts.flatMap((mount, at): [boolean, string, string][] => {
      const { idmap, tmpcopyup } = parseMountOptions(mount.options ?? []);
      return [
        [idmap !== undefined || (mount.uidMappings ?? []).length > 0, "idmapped mounts", `/spec/mounts/${at}`],
        [tmpcopyup, "tmpcopyup", `/spec/mounts/${at}/options`],
      ];
    }),
  ];
  const [, what, from] = asked.find(([present]) => present) ?? [];
  if (what !== undefined) throw new ContainerError({ message: `${what} are not supported yet`, code: "ENOTSUP", from });
}
