import { existsSync, lstatSync, readFileSync } from "node:fs";
import type { Lesson } from "../lesson.ts";
import { lacksRoot } from "../specimen.ts";

export const overlay: Lesson = {
  name: "overlay",
  title: "Layers, copies and whiteouts",
  steps: ["mountUnion"],
  attack: "Containers of one image share its files: what one of them could change there, all others would run.",
  lacks: () =>
    lacksRoot() ??
    (/\toverlay$/m.test(readFileSync("/proc/filesystems", "utf8")) ? undefined : "a kernel with overlayfs"),
  play(stage) {
    stage.tell(
      `An image is layers, directories that are never written. A union mount lays them over each other, with one more on
       top that is the container's own: there goes what it writes.`,
    );
    const container = stage.make({ layers: true, hostUsers: true });
    stage.show(container, "mountUnion");
    const [lower, upper] = [`${container.directory}/rootfs`, `${container.directory}/upper`];
    stage.tell(`The layer is ${lower}, and what the container writes will be in ${upper}.`);
    stage.act(container, "echo changed > /etc/letter");
    stage.tell("In the layer is a file, /etc/letter. The container has just written one word into it: changed.");
    stage.ask(container, {
      asks: "What does /etc/letter say in the container now?",
      look: { inside: "cat /etc/letter" },
      seenIn: container.path("/etc/letter"),
      truth: () => readFileSync(container.path("/etc/letter"), "utf8").trim(),
      help: "Read it inside: cat /etc/letter.",
    });
    stage.ask(container, {
      asks: "And what does it say in the layer?",
      look: { host: `cat ${lower}/etc/letter` },
      seenIn: `${lower}/etc/letter`,
      truth: () => readFileSync(`${lower}/etc/letter`, "utf8").trim(),
      help: "Read it on the host. The first write copied the file to the upper directory: copy-up.",
    });
    stage.tell("Now the container removes a file that is in the layer, /etc/group. The layer must not change.");
    stage.act(container, "rm /etc/group");
    stage.ask(container, {
      asks: "Is there an /etc/group in the container (yes or no)?",
      look: { inside: "[ -e /etc/group ] && echo yes || echo no" },
      seenIn: container.path("/etc/group"),
      truth: () => (existsSync(container.path("/etc/group")) ? "yes" : "no"),
      help: "Look inside: ls /etc/group.",
    });
    stage.ask(container, {
      asks: "Something in the upper directory hides it: a whiteout, a device file. Which numbers has the device (as 1:3)?",
      look: { host: `stat -c %t:%T ${upper}/etc/group` },
      seenIn: `${upper}/etc/group`,
      truth: () => device(`${upper}/etc/group`),
      help: "stat -c %t:%T, or ls -l, on the host shows the numbers of a device.",
    });
    stage.check("the layer still has both files as they were", () => {
      const letter = readFileSync(`${lower}/etc/letter`, "utf8").trim();
      return {
        held: letter !== "changed" && existsSync(`${lower}/etc/group`),
        seen: `${lower}/etc has group, and a letter that says ${JSON.stringify(letter)}`,
      };
    });
  },
};

/** As the kernel's new_decode_dev; undefined where it is no device. */
function device(path: string): string | undefined {
  const facts = lstatSync(path, { throwIfNoEntry: false });
  if (facts?.isCharacterDevice() !== true) return;
  return `${(facts.rdev >>> 8) & 0xfff}:${(facts.rdev & 0xff) | ((facts.rdev >>> 12) & 0xfff00)}`;
}
