import { restore as restoreFrom } from "../../container/checkpoint.ts";
import { attend } from "../../container/foreground.ts";
import { ContainerError } from "../../error.ts";
import { Signals } from "../../execute/signals.ts";
import { readBundle } from "../../spec/bundle.ts";
import { writePid } from "./creation.ts";
import { CRIU_FLAGS, criuOptions } from "./criu-flags.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

const { cwd } = process;

const FLAGS = {
  ...CRIU_FLAGS,
  bundle: { kind: "string", short: "b", help: "path to the root of the bundle directory" },
  "console-socket": { kind: "string", help: "not for a restore: criu gives a terminal to nobody (use --shell-job)" },
  detach: { kind: "boolean", short: "d", help: "detach from the container's process" },
  "pid-file": { kind: "string", help: "specify the file to write the process id to" },
  "no-subreaper": { kind: "boolean", help: "accepted for runc's sake: this runtime is never a subreaper" },
  "no-pivot": { kind: "boolean", help: "accepted for runc's sake: criu enters the root" },
  "lsm-profile": { kind: "string", help: "specify an LSM profile to be used during restore in the form of TYPE:NAME" },
  "lsm-mount-context": { kind: "string", help: "specify an LSM mount context to be used during restore" },
} as const;

export const restore: Command = {
  usage: "[command options] <container-id>",
  flags: FLAGS,
  words: [1, 1],
  run(words, { root, criu, warn, systemdCgroup }) {
    const { flags, rest } = parseFlags(FLAGS, words);
    const [id = ""] = rest;
    const { spec, bundle } = readBundle(flags.bundle ?? cwd());
    if (spec.process?.terminal === true || flags["console-socket"] !== undefined)
      throw new ContainerError({ message: "cannot restore a container that has a terminal", code: "ENOTSUP" });
    if (systemdCgroup)
      throw new ContainerError({
        message: "cannot restore a container into a unit of systemd's",
        code: "ENOTSUP",
        hint: "leave --systemd-cgroup away: criu makes the cgroups itself",
      });
    const profile = flags["lsm-profile"];
    const context = flags["lsm-mount-context"];
    const signals = new Signals();
    const { container, process } = restoreFrom(
      root,
      { id, spec, bundle, start: "now", preserved: 0 },
      {
        ...criuOptions(flags),
        ...(profile === undefined ? {} : { lsmProfile: profile }),
        ...(context === undefined ? {} : { lsmMountContext: context }),
      },
      criu,
    );
    if (flags["pid-file"] !== undefined) writePid(flags["pid-file"], process.pid);
    if (flags.detach) return 0;
    const { status } = attend(process, signals);
    container.delete({ force: true, warn });
    return status;
  },
};
