import { deviceFilterDirectory, resourceWrites } from "./cgroup-files.ts";
import { type CgroupDirectory, cgroupDirectories } from "./cgroup-layout.ts";
import type { Definition } from "./definition.ts";
import { deviceFilter } from "./device-filter.ts";
import { deviceRules } from "./device-rules.ts";
import type { Host } from "./host.ts";
import type { Step } from "./step.ts";

const FROM = "/spec/linux/cgroupsPath";

function directoriesOf({ spec, id }: Definition, host: Host): CgroupDirectory[] {
  return cgroupDirectories(host.cgroups, spec.linux?.cgroupsPath, id);
}

/** The container's cgroup in every hierarchy, with its limits set before anything is in there. */
export function createCgroup(definition: Definition, host: Host): Step[] {
  const directories = directoriesOf(definition, host);
  const resources = definition.spec.linux?.resources ?? {};
  const filtered = deviceFilterDirectory(directories);
  return [
    ...directories.map(({ path }): Step => ({ name: "makeCgroup", args: { path }, from: FROM })),
    ...resourceWrites(host.cgroups, directories, resources).map(
      ({ from, ...write }): Step => ({ name: "writeCgroup", args: write, from: `/spec${from}` }),
    ),
    ...(filtered === undefined
      ? []
      : [
          {
            name: "filterDevices" as const,
            args: { path: filtered, program: deviceFilter(deviceRules(resources.devices)) },
            from: "/spec/linux/resources/devices",
          },
        ]),
  ];
}

export function enterCgroup(definition: Definition, host: Host): Step[] {
  return directoriesOf(definition, host).map(({ path }) => ({ name: "enterCgroup", args: { path }, from: FROM }));
}
