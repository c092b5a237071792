import type { Plan, Step } from "../../plan/step.ts";
import type { Lesson } from "../lesson.ts";
import { lacksRoot, type Specimen, type Wanted, without } from "../specimen.ts";

export const propagation: Lesson = {
  name: "propagation",
  title: "Mounts that come back",
  steps: ["setPropagation"],
  attack: "A container's mounts appear on the host, over the host's own directories.",
  // without privileges the root can be cloned only inside, where the machine's mounts are and the host's are not
  lacks: lacksRoot,
  play(stage) {
    stage.tell(
      `A copy of a mount namespace is not cut off from what it was copied from. Where a mount is shared (systemd makes
       all of them so), what is mounted below it appears below every copy. We do not try that with your host: here is a
       container that stands for it, with a root that is shared.`,
    );
    const host = stage.make({
      spec: ({ linux }) => {
        linux.rootfsPropagation = "shared";
      },
    });
    stage.ask(host, {
      asks: "How many mounts does this machine have?",
      look: { host: "wc -l < /proc/$PID/mountinfo" },
      seenIn: `/proc/${host.pid}/mountinfo`,
      truth: () => String(mounts(host)),
      help: "Each line of /proc/PID/mountinfo is a mount of that process's namespace.",
    });
    const before = mounts(host);
    stage.tell("Now a container is made on that machine, by the whole plan:");
    const proper = stage.make(inside(host, (plan) => plan));
    stage.show(proper, "setPropagation");
    stage.check("the machine's mounts are as many as before", () => ({
      held: mounts(host) === before,
      seen: `/proc/${host.pid}/mountinfo has ${mounts(host)}; ${before} before`,
    }));
    stage.tell("And one by the same plan, but without that step:");
    const error = stage.refused(inside(host, (plan) => without(plan, "setPropagation")));
    stage.check("the kernel refuses to change the root below a shared mount", () => ({
      held: error?.code === "EINVAL" && error.step === "pivotRoot",
      seen: error === undefined ? "it refused nothing" : `it answered ${error.code} to the step ${error.step}`,
    }));
    stage.tell(
      "So there is no such container. But before it came to that, it had mounted its root, and all that is in it.",
    );
    stage.ask(host, {
      asks: "How many mounts does the machine have now?",
      look: { host: "wc -l < /proc/$PID/mountinfo" },
      seenIn: `/proc/${host.pid}/mountinfo`,
      truth: () => String(mounts(host)),
      help: "Count again. What the container mounted has come back to the machine, and stays there although it has ended.",
    });
    stage.check("the container's mounts have come back to the machine", () => ({
      held: mounts(host) > before,
      seen: `/proc/${host.pid}/mountinfo has ${mounts(host)}; ${before} before`,
    }));
  },
};

function mounts(machine: Specimen): number {
  return machine.proc("mountinfo").trim().split("\n").length;
}

/** A container whose mount namespace is a copy of a machine's, and not of the host's. */
function inside({ pid }: Specimen, change: (plan: Plan) => Plan): Wanted {
  const from = "/spec/linux/namespaces";
  const open: Step = { name: "openNamespace", args: { path: `/proc/${pid}/ns/mnt`, slot: "machine" }, from };
  const join: Step = { name: "joinNamespace", args: { namespace: "machine", type: CLONE_NEWNS }, from };
  return {
    spec: ({ linux }) => {
      const others = (linux.namespaces ?? []).filter(({ type }) => type !== "user");
      linux.namespaces = [...others, { type: "user", path: `/proc/${pid}/ns/user` }];
      delete linux.uidMappings;
      delete linux.gidMappings;
    },
    alter: (plan) => {
      const start = plan.findIndex(({ name }) => name === "startInit");
      const first = plan.findIndex(({ name }) => name === "joinNamespace");
      return change([...plan.slice(0, start), open, ...plan.slice(start, first), join, ...plan.slice(first)]);
    },
  };
}

const CLONE_NEWNS = 0x20000;
