import { Container } from "../../container/container.ts";
import type { Engine } from "../../engine/engine.ts";
import { ContainerError } from "../../error.ts";
import { detectHost } from "../../host/host.ts";
import { readBundle } from "../../spec/bundle.ts";
import { look } from "../../verify/look.ts";
import { type Expectation, verify, wanted } from "../../verify/verify.ts";
import { print, printJson, printTable } from "../print.ts";
import type { Define } from "./engine.ts";

interface Options {
  bundle?: string;
  pid?: string;
  json?: boolean;
}

export const defineVerify: Define = (program, { engine, exit }) => {
  program
    .command("verify")
    .description("compare a running container with its plan, through /proc and cgroupfs; status 1 when they differ")
    .option("--bundle <directory>", "of another runtime's container: its bundle")
    .option("--pid <pid>", "of another runtime's container: its process")
    .option("--json", "as JSON")
    .argument("[container]", "name or id; with --root, of caisson-runtime too")
    .addHelpText(
      "after",
      "\nWhat a program may have done to itself is no difference when it confines it further. Not compared, because it" +
        "\ncannot be seen from outside: sysctls, host and domain name, the filter's program, umask and working directory.",
    )
    .action((name: string | undefined, options: Options) => {
      const { pid, ...expectation } = subject(engine(), name, options);
      const host = detectHost();
      const { cgroups } = expectation;
      const sight = look(pid, host.cgroups, {
        ...wanted(expectation),
        ...(cgroups === undefined ? {} : { cgroups: cgroups.map(({ path }) => path) }),
      });
      const { compared, differences } = verify(expectation, host, sight);
      if (options.json === true) printJson({ pid, compared, differences }, 2);
      else if (differences.length === 0) print(`nothing differs: ${compared} comparisons`);
      else
        printTable(
          ["WHAT", "EXPECTED", "FOUND", "FROM"],
          differences.map(({ what, expected, found, from }) => [what, expected, found, from]),
        );
      if (differences.length > 0) exit(1);
    });
};

function subject(engine: Engine, name: string | undefined, { bundle, pid }: Options): Expectation & { pid: number } {
  if (bundle !== undefined || pid !== undefined) {
    if (bundle === undefined || name !== undefined || !/^[1-9]\d{0,9}$/.test(pid ?? ""))
      throw new ContainerError({
        message: "cannot verify: give a container, or --bundle DIRECTORY and --pid PID",
        code: "EINVAL",
      });
    return { pid: Number(pid), spec: readBundle(bundle).spec, preserved: 0 };
  }
  if (name === undefined)
    throw new ContainerError({ message: "cannot verify: give a container, or --bundle and --pid", code: "EINVAL" });
  const container = oci(engine, name);
  const { pid: process, cgroups } = container.record;
  const { status } = container;
  if (status !== "running" && status !== "paused")
    throw new ContainerError({
      message: `container ${name} is ${status}: only what runs can be compared with its plan`,
      code: "ERR_STATUS",
    });
  return { pid: process, spec: container.spec, preserved: container.preserved, cgroups };
}

/** One of the engine's, or one that caisson-runtime made beneath the same state root. */
function oci(engine: Engine, name: string): Container {
  try {
    return engine.running(engine.containers.find(name));
  } catch (error) {
    if (!(error instanceof ContainerError) || error.code !== "ENOENT") throw error;
    try {
      return Container.open(engine.places.root, name);
    } catch {
      throw error;
    }
  }
}
