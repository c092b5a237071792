import { statSync } from "node:fs";
import type { Lesson } from "../lesson.ts";

const LEAVE = "nsenter --mount=/proc/self/ns/mnt stat -c %i /";

export const chroot: Lesson = {
  name: "chroot",
  title: "chroot is not enough",
  steps: ["changeRoot", "pivotRoot"],
  attack: "Root in a chroot walks out of it: the rest of the tree is still in its mount namespace, a call away.",
  play(stage) {
    stage.tell(
      `chroot(2) changes one thing about a process: where its paths begin. It hides the rest of the tree, and does not
       take it away. Here is a container that stands for a whole machine. In it is a directory, /jail, with all that a
       program needs. We lock a program into it by chroot, and look whether it stays there.`,
    );
    const machine = stage.make({
      jail: "/jail",
      spec: ({ process }) => {
        for (const set of ["bounding", "effective", "permitted"] as const)
          process.capabilities = {
            ...process.capabilities,
            [set]: [...(process.capabilities?.[set] ?? []), "CAP_SYS_ADMIN"],
          };
      },
    });
    const root = () => String(statSync(machine.path("/")).ino);
    const jail = () => String(statSync(machine.path("/jail")).ino);
    stage.check("the jail is another directory than the machine's root", () => ({
      held: root() !== jail(),
      seen: `inodes ${jail()} and ${root()}`,
    }));
    stage.ask(machine, {
      asks: "Directories are told apart by their inode numbers. Which one has / for a program in the jail?",
      look: { inside: "chroot /jail stat -c %i /" },
      seenIn: machine.path("/jail"),
      truth: jail,
      help: "chroot /jail COMMAND runs a command in the jail; stat -c %i prints a file's inode number.",
    });
    stage.tell(
      `So far it holds. But the program is root of this machine, and still in the machine's mount namespace. It asks to
       enter the namespace in which it is already: setns(2) puts its root back to the root of that namespace.`,
    );
    stage.ask(machine, {
      asks: "Which inode number has / for a program that was in the jail, and has done that?",
      look: { inside: `chroot /jail ${LEAVE}` },
      seenIn: machine.path("/"),
      truth: root,
      help: "nsenter --mount=FILE enters a mount namespace. What it finds at / is no longer the jail: it got out.",
    });
    stage.tell(
      `pivot_root(2) is the other way. It does not move the process, it changes the namespace: the new root becomes its
       root, and the old one is detached. The machine itself was made so:`,
    );
    stage.show(machine, "pivotRoot");
    stage.ask(machine, {
      asks: "The same trick outside the jail, in the machine that was made by pivot_root. Which inode number has / now?",
      look: { inside: LEAVE },
      seenIn: machine.path("/"),
      truth: root,
      help: "It is the machine's own root again: in its mount namespace there is nothing else to be found.",
    });
    stage.check("nobody has got to the host's root", () => {
      const host = statSync("/");
      const own = statSync(machine.path("/"));
      return {
        held: host.ino !== own.ino || host.dev !== own.dev,
        seen: `the host's / is inode ${host.ino} of device ${host.dev}, the machine's ${own.ino} of ${own.dev}`,
      };
    });
  },
};
