import { readdirSync, statSync } from "node:fs";
import { close } from "../../kernel/file.ts";
import type { Lesson } from "../lesson.ts";
import { openDirectory, without } from "../specimen.ts";

export const descriptors: Lesson = {
  name: "descriptors",
  title: "A descriptor that leaks",
  steps: ["keepDescriptors", "changeDirectory", "checkDirectory"],
  attack: "A directory of the host that stayed open in the container is a door: its name is /proc/self/fd/N.",
  play(stage) {
    stage.tell(
      `Walls are looked at when a path is opened. What is open already stays open, whatever happens to namespaces, roots
       and users. So a container must get no descriptor that is not meant for it:`,
    );
    const tight = stage.make();
    stage.show(tight, "keepDescriptors");
    stage.ask(tight, {
      asks: "How many descriptors has the container's first process?",
      look: { inside: "ls /proc/1/fd | wc -l" },
      seenIn: `/proc/${tight.pid}/fd`,
      truth: () => String(readdirSync(`/proc/${tight.pid}/fd`).length),
      help: "/proc/1/fd has a link for each.",
    });
    stage.check("it has its standard streams, and nothing else", () => {
      const open = readdirSync(`/proc/${tight.pid}/fd`);
      return { held: open.sort().join() === "0,1,2", seen: `/proc/${tight.pid}/fd has ${open.join(", ")}` };
    });
    stage.tell("Here is one that was given a directory of the host's by mistake, as its descriptor 3.");
    const host = openDirectory("/");
    try {
      const leaky = stage.make({ preserved: [host] });
      stage.show(leaky, "keepDescriptors");
      stage.ask(leaky, {
        asks: "Which inode number has what is behind /proc/1/fd/3?",
        look: { inside: "stat -L -c %i /proc/1/fd/3" },
        seenIn: `/proc/${leaky.pid}/fd/3`,
        truth: () => String(statSync(`/proc/${leaky.pid}/fd/3`).ino),
        help: "stat -L follows the link. Have a look at it: ls /proc/1/fd/3/ inside.",
      });
      stage.check("that is the root of the host", () => {
        const [leaked, root] = [statSync(`/proc/${leaky.pid}/fd/3`), statSync("/")];
        return {
          held: leaked.ino === root.ino && leaked.dev === root.dev,
          seen: `the host's / is inode ${root.ino}, /proc/${leaky.pid}/fd/3 is ${leaked.ino}`,
        };
      });
      stage.tell(
        `An image can ask for its working directory, and it may ask for /proc/self/fd/3. That was CVE-2024-21626: init
         still had such a descriptor when it changed to that directory. The plan's last look at it would find out:`,
      );
      const error = stage.refused({
        preserved: [host],
        spec: ({ process }) => {
          process.cwd = "/proc/self/fd/3";
        },
        alter: (plan) => without(plan, "makeWorkingDirectory"),
      });
      stage.check("a working directory outside of the root is refused", () => ({
        held: error?.step === "checkDirectory",
        seen: error === undefined ? "nothing was refused" : `${error.code} at the step ${error.step}`,
      }));
    } finally {
      close(host);
    }
  },
};
