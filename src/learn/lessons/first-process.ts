import { readdirSync, readFileSync } from "node:fs";
import { processState } from "../../kernel/process.ts";
import type { Lesson } from "../lesson.ts";
import type { Specimen } from "../specimen.ts";

export const firstProcess: Lesson = {
  name: "first-process",
  title: "Process 1: signals and zombies",
  steps: ["newSession", "dieWithParent", "execute"],
  attack:
    "A program that starts others and never waits for them fills the table of processes, until nobody can start one.",
  play(stage) {
    stage.tell(
      `The first process of a pid namespace is its init, and the kernel treats it as one. A signal that it has no handler
       for does nothing to it, if it comes from inside: otherwise a slip would end the whole system. Here process 1 is
       sleep, which has no handlers at all. The steps that lead to it:`,
    );
    const container = stage.make();
    stage.show(container, "newSession", "dieWithParent", "execute");
    stage.ask(container, {
      asks: "Ask process 1 to end, by SIGTERM from inside. Does it still live (yes or no)?",
      look: { inside: "kill -TERM 1; sleep 0.3; kill -0 1 && echo yes || echo no" },
      seenIn: `/proc/${container.pid}/stat`,
      truth: () => (lives(container.pid) ? "yes" : "no"),
      help: "kill -TERM 1 sends the signal, kill -0 1 asks whether there is such a process.",
    });
    stage.check("a signal without a handler does nothing to process 1", () => ({
      held: lives(container.pid),
      seen: `/proc/${container.pid}/stat says ${processState(container.pid)}`,
    }));
    stage.tell(
      `That is why stopping a container takes ten seconds when its program does not expect to be process 1. An init has
       a duty, too: whoever loses its parent becomes its child, and a child that has ended stays in the table, a zombie,
       until its parent has asked how it ended. sleep never asks.`,
    );
    stage.act(container, "(sleep 0.1 &) ; (sleep 0.1 &) ; sleep 0.4");
    stage.tell("We have just started two programs in the background of shells that ended at once.");
    stage.check("process 1 has children that nobody has asked", () => ({
      held: zombies(container) > 0,
      seen: `${container.path("/proc")} has ${zombies(container)} in state Z`,
    }));
    stage.ask(container, {
      asks: "How many zombies are in the container?",
      look: { inside: "cat /proc/[0-9]*/status | grep -c '^State:.Z'" },
      seenIn: container.path("/proc"),
      truth: () => String(zombies(container)),
      help: "State: Z in /proc/PID/status, or Z in the list of ps, is a zombie.",
    });
    stage.tell(
      `From outside, SIGKILL works on process 1 as on any other; and with it the kernel kills all that is left in its
       namespace, zombies and all. Now it is the lesson that has not asked yet how its child ended.`,
    );
    stage.ask(container, {
      asks: "Kill process 1 from the host. Which letter is its state then?",
      look: { host: "kill -KILL $PID; sleep 0.3; awk '/^State/ { print $2 }' /proc/$PID/status" },
      seenIn: `/proc/${container.pid}/status`,
      truth: () => processState(container.pid),
      help: "kill -KILL $PID on the host, then look at State in /proc/$PID/status.",
    });
    stage.check("nothing of the namespace lives on", () => {
      const left = readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && parentOf(pid) === container.pid);
      return { held: !lives(container.pid) && left.length === 0, seen: `/proc has ${left.length} children of it` };
    });
  },
};

function lives(pid: number): boolean {
  const state = processState(pid);
  return state !== undefined && state !== "Z" && state !== "X";
}

function zombies(container: Specimen): number {
  const proc = container.path("/proc");
  return readdirSync(proc).filter((pid) => /^\d+$/.test(pid) && /^State:\s*Z/m.test(statusIn(proc, pid))).length;
}

function parentOf(pid: string): number {
  return Number(/^PPid:\s*(\d+)/m.exec(statusIn("/proc", pid))?.[1]);
}

function statusIn(proc: string, pid: string): string {
  try {
    return readFileSync(`${proc}/${pid}/status`, "utf8");
  } catch {
    return ""; // it has gone meanwhile
  }
}
