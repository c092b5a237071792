import { readFileSync, readlinkSync, statSync } from "node:fs";
import { parseMountinfo } from "../../linux/mountinfo.ts";
import { NAMESPACES } from "../../linux/namespaces.ts";
import type { Lesson } from "../lesson.ts";
import { lacksRoot, type Specimen } from "../specimen.ts";

export const root: Lesson = {
  name: "root",
  title: "What root in a container may do",
  steps: ["maskPath", "protectPath", "writeCgroup", "filterDevices"],
  attack: "Root of the host, by a file of the host's kernel that somebody forgot to cover.",
  lacks: lacksRoot,
  play(stage) {
    stage.tell(
      `Most containers run without a user namespace: root in them is root. What keeps it in are the other walls, all of
       them at once: few capabilities, a filter, namespaces, and paths of the kernel's that are covered. This container
       is an ordinary one, as caisson run makes it.`,
    );
    const container = stage.make({ hostUsers: true });
    stage.show(container, "maskPath", "protectPath");
    stage.ask(container, {
      asks: "Who is root of the container for the host? Which user does its first process belong to?",
      look: { host: "awk '/^Uid/ { print $2 }' /proc/$PID/status" },
      seenIn: `/proc/${container.pid}/status, Uid`,
      truth: () => container.status("Uid").split(/\s+/)[0],
      help: "Look at Uid in /proc/PID/status on the host: there is no map between.",
    });
    stage.ask(container, {
      asks: "May it write a setting of the kernel's, such as /proc/sys/kernel/panic (yes or no)?",
      look: {
        inside:
          "cat /proc/sys/kernel/panic > /tmp/panic; cat /tmp/panic 2> /dev/null > /proc/sys/kernel/panic && echo yes || echo no",
      },
      seenIn: `/proc/${container.pid}/mountinfo, /proc/sys`,
      truth: () => (writable(container, "/proc/sys") ? "yes" : "no"),
      help: "Try to write it; a shell says what the kernel answered. The path is mounted read-only over itself.",
    });
    stage.ask(container, {
      asks: "How many bytes does it read of /proc/interrupts, which tells much about the host?",
      look: { inside: "wc -c < /proc/interrupts" },
      seenIn: container.path("/proc/interrupts"),
      truth: () => String(readFileSync(container.path("/proc/interrupts")).length),
      help: "wc -c counts bytes. Something else is mounted over that file.",
    });
    stage.check("what tells about the host, or changes it, is covered", () => {
      const length = readFileSync(container.path("/proc/interrupts")).length;
      return {
        held: length === 0 && !writable(container, "/proc/sys"),
        seen: `${container.path("/proc/interrupts")} has ${length} bytes; in mountinfo is a mount on /proc/sys`,
      };
    });
    const { dev } = statSync("/");
    const disk = `${(dev >>> 8) & 0xfff} ${(dev & 0xff) | ((dev >>> 12) & 0xfff00)}`;
    const attempt = `rm -f /dev/disk; mknod /dev/disk b ${disk} && head -c 1 /dev/disk > /dev/null 2>&1`;
    stage.tell(
      `It has CAP_MKNOD: it may make a device file for the disk that the host's root is on (${disk.replace(" ", ":")}).
       Whether it may open the file is for its cgroup to say.`,
    );
    stage.ask(container, {
      asks: "May it read that disk (yes or no)?",
      look: { inside: `${attempt} && echo yes || echo no` },
      seenIn: "open(2), tried again inside",
      truth: () => (container.run(attempt).status === 0 ? "yes" : "no"),
      help: "Make the file by mknod, and read a byte of it by head -c 1.",
    });
    stage.ask(container, {
      asks: "May it mount a filesystem (yes or no)?",
      look: {
        inside: "mount -t tmpfs none /mnt 2> /dev/null; grep -q ' /mnt ' /proc/self/mountinfo && echo yes || echo no",
      },
      seenIn: `/proc/${container.pid}/mountinfo, /mnt`,
      truth: () =>
        parseMountinfo(container.proc("mountinfo")).some(({ mountPoint }) => mountPoint === "/mnt") ? "yes" : "no",
      help: "mount -t tmpfs none /mnt; that takes CAP_SYS_ADMIN.",
    });
    stage.check("its user namespace is the host's, and none of the others is", () => {
      const shared = Object.values(NAMESPACES)
        .map(({ file }) => `ns/${file}`)
        .filter((file) => container.link(file) === readlinkSync(`/proc/self/${file}`));
      return {
        held: shared.filter((file) => file !== "ns/time").join() === "ns/user",
        seen: `of /proc/${container.pid}/ns the host has the same ${shared.join(" and ")}`,
      };
    });
  },
};

function writable(container: Specimen, path: string): boolean {
  const mount = parseMountinfo(container.proc("mountinfo")).findLast(({ mountPoint }) => mountPoint === path);
  return mount === undefined || !mount.options.includes("ro");
}
