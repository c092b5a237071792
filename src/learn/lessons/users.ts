import { readFileSync, statSync } from "node:fs";
import type { Lesson } from "../lesson.ts";

export const users: Lesson = {
  name: "users",
  title: "User namespaces and their maps",
  steps: ["mapIds", "becomeRoot"],
  attack: "Whoever gets out of a container has the ids that it has outside: with a map those of nobody in particular.",
  play(stage) {
    stage.tell(
      `In a user namespace ids are numbers of its own, and a map says which ids of the host they stand for. So a process
       can be root inside, with every power over what belongs to its namespaces, and nobody outside. The map is written
       once, by the host, into a file of the new process:`,
    );
    const container = stage.make();
    stage.show(container, "mapIds", "becomeRoot");
    stage.ask(container, {
      asks: "Who is a program in the container, as it sees itself?",
      look: { inside: "id -u" },
      seenIn: `/proc/${container.pid}/status and uid_map`,
      truth: () => inside(container.proc("uid_map"), Number(container.status("Uid").split(/\s+/)[0])),
      help: "id -u prints the user's number.",
    });
    stage.ask(container, {
      asks: "And who is the container's first process, as the host sees it?",
      look: { host: "awk '/^Uid/ { print $2 }' /proc/$PID/status" },
      seenIn: `/proc/${container.pid}/status, Uid`,
      truth: () => container.status("Uid").split(/\s+/)[0],
      help: "Look from the host: Uid in /proc/PID/status, or ps -o uid -p PID.",
    });
    // who is not root of the host can map but its own id
    const user = outside(container.proc("uid_map"), 1000) === undefined ? 0 : 1000;
    stage.ask(container, {
      asks: `User ${user} in the container makes a file. To whom does it belong on the host?`,
      look: { inside: `awk '{ print $2 + ${user} - $1 }' /proc/self/uid_map` },
      seenIn: `/proc/${container.pid}/uid_map`,
      truth: () => outside(container.proc("uid_map"), user),
      help: "Each line of uid_map says: the first id inside, the first id outside, how many. Count from there.",
    });
    stage.tell(
      `What has no number inside is shown as the overflow id, and the powers of root end there: the host's files belong
       to a stranger.`,
    );
    stage.ask(container, {
      asks: "The host's /usr belongs to root of the host. To whom does it seem to belong inside?",
      look: { inside: "stat -c %u /usr" },
      seenIn: "/proc/sys/kernel/overflowuid",
      truth: () =>
        inside(container.proc("uid_map"), statSync("/usr").uid) ??
        readFileSync("/proc/sys/kernel/overflowuid", "utf8").trim(),
      help: "stat -c %u prints a file's owner. There is no id inside for the host's root.",
    });
    stage.tell("What if a container were made without those maps? The same plan, with the steps left out:");
    const error = stage.refused({ alter: (plan) => plan.filter(({ name }) => name !== "mapIds") });
    stage.check("without a map nobody can become root in there", () => ({
      held: error?.code === "EINVAL" && error.step === "becomeRoot",
      seen: error === undefined ? "it refused nothing" : `it answered ${error.code} to the step ${error.step}`,
    }));
  },
};

/** An id of the host's as a map has it inside. */
function inside(map: string, id: number): string | undefined {
  const row = rows(map).find(([, first, count]) => id >= first && id < first + count);
  return row === undefined ? undefined : String(row[0] + id - row[1]);
}

/** An id inside as the host has it. */
function outside(map: string, id: number): string | undefined {
  const row = rows(map).find(([first, , count]) => id >= first && id < first + count);
  return row === undefined ? undefined : String(row[1] + id - row[0]);
}

function rows(map: string): [number, number, number][] {
  return map
    .trim()
    .split("\n")
    .map((line) => {
      const [first = 0, other = 0, count = 0] = line.trim().split(/\s+/).map(Number);
      return [first, other, count];
    });
}
