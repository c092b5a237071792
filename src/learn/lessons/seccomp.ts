import { existsSync } from "node:fs";
import type { Lesson } from "../lesson.ts";
import { ordinaryFilter, type Specimen } from "../specimen.ts";

const TRY = "unshare --user true 2> /dev/null && echo yes || echo no";
const EDQUOT = 122;

export const seccomp: Lesson = {
  name: "seccomp",
  title: "A filter for system calls",
  steps: ["loadSeccomp"],
  attack:
    "A flaw in a system call that the program never needs is as good as one that it needs, unless it cannot be called.",
  play(stage) {
    stage.tell(
      `Of some 400 system calls a program needs a few dozen. A filter is a small program that the kernel runs before each
       call, and that says: allow, refuse with this error, kill. Once loaded it cannot be taken off, and all that the
       process starts has it, too.`,
    );
    const filtered = stage.make({
      spec: (spec) => {
        spec.linux.seccomp = ordinaryFilter();
      },
    });
    stage.show(filtered, "loadSeccomp");
    stage.ask(filtered, {
      asks: "The kernel says how a process is filtered: 0 not at all, 1 strictly, 2 by a program. What says it here?",
      look: { inside: "awk '/^Seccomp:/ { print $2 }' /proc/self/status" },
      seenIn: `/proc/${filtered.pid}/status, Seccomp`,
      truth: () => filtered.status("Seccomp"),
      help: "Look at Seccomp: in /proc/self/status.",
    });
    stage.ask(filtered, {
      asks: "The ordinary filter refuses new user namespaces, a door to many flaws. Can a program make one here (yes or no)?",
      look: { inside: TRY },
      seenIn: "unshare(2), tried again inside",
      truth: () => tried(filtered),
      help: "unshare --user true makes one for the program true.",
    });
    stage.check("the filter refuses it", () => ({
      held: tried(filtered) === "no",
      seen: "unshare(2), tried again inside",
    }));
    stage.tell("And the same container without the filter:");
    const open = stage.make();
    stage.ask(open, {
      asks: "Can a program make a user namespace in this one (yes or no)?",
      look: { inside: TRY },
      seenIn: "unshare(2), tried again inside",
      truth: () => tried(open),
      help: "unshare --user true makes one for the program true.",
    });
    stage.check("without the step there is no filter", () => ({
      held: open.status("Seccomp") === "0",
      seen: `/proc/${open.pid}/status, Seccomp ${open.status("Seccomp")}`,
    }));
    stage.tell(
      `A filter may choose the error. This one answers mkdir with EDQUOT, “disk quota exceeded”, though there is no quota:
       the call never comes to the filesystem. Keep it in mind when a program in a container complains.`,
    );
    const liar = stage.make({
      spec: ({ linux }) => {
        linux.seccomp = {
          defaultAction: "SCMP_ACT_ALLOW",
          syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: EDQUOT }],
        };
      },
    });
    stage.ask(liar, {
      asks: "Make the directory /tmp/new there. Is there one then (yes or no)?",
      look: { inside: "mkdir /tmp/new; [ -d /tmp/new ] && echo yes || echo no" },
      seenIn: liar.path("/tmp/new"),
      truth: () => (existsSync(liar.path("/tmp/new")) ? "yes" : "no"),
      help: "mkdir /tmp/new, then ls /tmp.",
    });
  },
};

function tried(container: Specimen): string {
  return container.run("unshare --user true").status === 0 ? "yes" : "no";
}
