import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Lesson } from "../lesson.ts";

const nameOfFirst = "cat /proc/1/comm";

export const processes: Lesson = {
  name: "processes",
  title: "Process ids, and the /proc that goes with them",
  steps: ["clone", "makeFilesystem", "attachMount"],
  attack:
    "A process that can name others can signal, trace and read them: their memory, their environment, their files.",
  play(stage) {
    stage.tell(
      `A pid namespace gives processes new numbers, from 1 on, and hides all others from kill(2) and ptrace(2). But
       programs do not ask the kernel who is there: they read /proc, and each proc filesystem belongs to the pid
       namespace in which it was mounted. First a container with a new pid namespace, and the host's /proc:`,
    );
    const foreign = stage.make({
      spec: (spec) => {
        spec.mounts = spec.mounts.map((mount) =>
          mount.destination === "/proc"
            ? { destination: "/proc", type: "bind", source: "/proc", options: ["rbind", "rro"] }
            : mount,
        );
      },
    });
    stage.show(foreign, "clone", "cloneInto");
    stage.ask(foreign, {
      asks: "What is process 1 called, as this container's /proc has it?",
      look: { inside: nameOfFirst },
      seenIn: "/proc/1/comm",
      truth: () => readFileSync("/proc/1/comm", "utf8").trim(),
      help: "Read /proc/1/comm inside. That is the host's first process: a view of the host that nobody meant to give.",
    });
    stage.tell("Now the same with a proc filesystem that is mounted from inside the new namespace:");
    const own = stage.make();
    stage.show(own, "makeFilesystem");
    stage.ask(own, {
      asks: "What is process 1 called now?",
      look: { inside: nameOfFirst },
      seenIn: `/proc/${own.pid}/comm`,
      truth: () => own.proc("comm").trim(),
      help: "Read /proc/1/comm inside again: it is the container's own first process.",
    });
    stage.ask(own, {
      asks: "One process, two numbers. Inside it is 1; which number has it on the host?",
      look: { host: "awk '/^NSpid/ { print $2 }' /proc/$PID/status" },
      seenIn: `/proc/${own.pid}/status, NSpid`,
      truth: () => own.status("NSpid").split(/\s+/)[0],
      help: "NSpid in /proc/PID/status on the host lists a process's numbers, from the outermost namespace to its own.",
    });
    stage.check("its /proc shows the processes of its own namespace, and no others", () => {
      const namespace = own.link("ns/pid");
      const shown = numbersIn(own.path("/proc"));
      const members = numbersIn("/proc").filter((pid) => namespaceOf(pid) === namespace);
      return {
        held: shown.length === members.length,
        seen: `${own.path("/proc")} has ${shown.length}; ${members.length} of the host's processes have its ${namespace}`,
      };
    });
  },
};

function numbersIn(proc: string): string[] {
  return readdirSync(proc).filter((name) => /^\d+$/.test(name));
}

function namespaceOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return; // it has ended meanwhile
  }
}
