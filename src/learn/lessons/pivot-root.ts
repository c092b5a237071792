import { statSync } from "node:fs";
import { type MountEntry, parseMountinfo } from "../../linux/mountinfo.ts";
import type { Lesson } from "../lesson.ts";
import { type Specimen, without } from "../specimen.ts";

export const pivotRoot: Lesson = {
  name: "pivot-root",
  title: "Why pivot_root, and what it wants",
  steps: ["attachRoot", "pivotRoot"],
  attack: "What is only hidden can be found again; after pivot_root the host's tree is not there to be found.",
  play(stage) {
    stage.tell(
      `A new mount namespace begins as a copy of the host's: every mount of the host is in it. The root of the container
       is one more. Two steps make it the only one: it is attached where pivot_root(2) can reach it, and then put in the
       place of the host's root, which is detached with all that is mounted below it.`,
    );
    const container = stage.make();
    stage.show(container, "attachRoot", "pivotRoot");
    stage.calls(container, "pivotRoot");
    stage.tell(
      `(What is in hexadecimal are addresses of init's own strings: pivot_root(".", ".") lays the old root over the new
       one, umount2(".", MNT_DETACH) takes it off.)`,
    );
    stage.ask(container, {
      asks: "How many mounts are left in the container's namespace?",
      look: { inside: "wc -l < /proc/self/mountinfo" },
      seenIn: `/proc/${container.pid}/mountinfo`,
      truth: () => String(mounts(container).length),
      help: "Each line of /proc/self/mountinfo is a mount.",
    });
    stage.ask(container, {
      asks: "A line begins with the mount's number. Which number has the mount on /?",
      look: { inside: `awk '$5 == "/" { print $1 }' /proc/self/mountinfo` },
      seenIn: `/proc/${container.pid}/mountinfo`,
      truth: () =>
        mounts(container)
          .findLast(({ mountPoint }) => mountPoint === "/")
          ?.id.toString(),
      help: "The fifth word of a line is the place where it is mounted.",
    });
    stage.check("the host's root is not among them", () => {
      const root = mounts(container).findLast(({ mountPoint }) => mountPoint === "/");
      const [own, host] = [statSync(container.path("/")), statSync("/")];
      return {
        held: own.ino !== host.ino || own.dev !== host.dev,
        seen: `the mount on / shows ${root?.root} of its filesystem, inode ${own.ino}; the host's / is inode ${host.ino}`,
      };
    });
    stage.tell(
      `pivot_root is particular: the new root must be a mount point of this namespace. In a tree that is attached nowhere
       not even other mounts can be made. Here is the same plan without the step that attaches it:`,
    );
    const error = stage.refused({ alter: (plan) => without(plan, "attachRoot") });
    stage.check("the kernel refuses a root that is attached nowhere", () => ({
      held: error?.code === "EINVAL",
      seen: error === undefined ? "it refused nothing" : `it answered ${error.code} to the step ${error.step}`,
    }));
  },
};

function mounts(container: Specimen): MountEntry[] {
  return parseMountinfo(container.proc("mountinfo"));
}
