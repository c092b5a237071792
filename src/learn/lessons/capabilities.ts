import { statSync } from "node:fs";
import { CAPABILITIES } from "../../linux/capabilities.ts";
import type { Lesson } from "../lesson.ts";
import { lacksRoot } from "../specimen.ts";

export const capabilities: Lesson = {
  name: "capabilities",
  title: "Capabilities: root in pieces",
  steps: ["dropBounding", "setCapabilities", "checkCapabilities"],
  attack: "With all of root's powers a process loads kernel modules, reads raw disks, and changes the host's clock.",
  // it gives a file away, which takes a second id
  lacks: lacksRoot,
  play(stage) {
    stage.tell(
      `The kernel does not ask whether a process is root. It asks for one of some forty capabilities: may it change a
       file's owner (CAP_CHOWN), bind port 80 (CAP_NET_BIND_SERVICE), mount (CAP_SYS_ADMIN)? A container keeps a few of
       them. These steps take the others away:`,
    );
    const container = stage.make();
    stage.show(container, "dropBounding", "setCapabilities", "checkCapabilities");
    stage.ask(container, {
      asks: "Which capabilities are in effect for root in the container? The kernel has them as a mask in hexadecimal.",
      look: { inside: "awk '/^CapEff/ { print $2 }' /proc/self/status" },
      seenIn: `/proc/${container.pid}/status, CapEff`,
      truth: () => container.status("CapEff"),
      help: "CapEff in /proc/self/status is the mask of what is in effect.",
    });
    stage.ask(container, {
      asks: `CAP_SYS_ADMIN is bit ${CAPABILITIES.indexOf("CAP_SYS_ADMIN")} of the mask. Is it there (yes or no)?`,
      look: {
        inside: `m=0x$(awk '/^CapEff/ { print $2 }' /proc/self/status); [ $((m >> ${CAPABILITIES.indexOf("CAP_SYS_ADMIN")} & 1)) = 1 ] && echo yes || echo no`,
      },
      seenIn: `/proc/${container.pid}/status, CapEff`,
      truth: () => (holds(container.status("CapEff"), "CAP_SYS_ADMIN") ? "yes" : "no"),
      help: "Shift the mask to the right by as many bits, and look at the last one.",
    });
    stage.tell(
      "Capabilities are what counts, not the user's number. Here is root with one capability less, CAP_CHOWN:",
    );
    const poorer = stage.make({
      spec: ({ process }) => {
        for (const set of ["bounding", "effective", "permitted"] as const)
          process.capabilities = {
            ...process.capabilities,
            [set]: (process.capabilities?.[set] ?? []).filter((name) => name !== "CAP_CHOWN"),
          };
      },
    });
    const attempt = "echo mine > /tmp/file; chown 1000 /tmp/file; stat -c %u /tmp/file";
    stage.ask(container, {
      asks: "With CAP_CHOWN: root makes /tmp/file and gives it to user 1000. To whom does it belong then?",
      look: { inside: attempt },
      seenIn: container.path("/tmp/file"),
      truth: () => ownerInside(container.path("/tmp/file")),
      help: "Make the file, change its owner by chown, and look at it with stat -c %u.",
    });
    stage.ask(poorer, {
      asks: "The same without CAP_CHOWN (you are in the other container now). To whom does it belong there?",
      look: { inside: attempt },
      seenIn: poorer.path("/tmp/file"),
      truth: () => ownerInside(poorer.path("/tmp/file")),
      help: "Make the file, try chown, and look: the kernel refused it to root.",
    });
    stage.check("what is not in the bounding set cannot come back", () => {
      const bounding = poorer.status("CapBnd");
      return { held: !holds(bounding, "CAP_CHOWN"), seen: `/proc/${poorer.pid}/status, CapBnd ${bounding}` };
    });
  },
};

function holds(mask: string, name: (typeof CAPABILITIES)[number]): boolean {
  return ((BigInt(`0x${mask}`) >> BigInt(CAPABILITIES.indexOf(name))) & 1n) === 1n;
}

/** Root's file has root's number of outside. */
function ownerInside(path: string): string {
  return String(statSync(path).uid - statSync(path.replace(/\/tmp\/file$/, "/")).uid);
}
