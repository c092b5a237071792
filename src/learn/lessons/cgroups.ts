import { existsSync, readFileSync } from "node:fs";
import type { Lesson } from "../lesson.ts";
import { lacksRoot, type Specimen } from "../specimen.ts";

const PROCESSES = 12;
const MEMORY_BYTES = 24 << 20;

export const cgroups: Lesson = {
  name: "cgroups",
  title: "Control groups at work",
  steps: ["makeCgroup", "writeCgroup", "enterCgroup"],
  attack: "One container takes all processes, memory or time of the machine, and everybody else starves.",
  lacks() {
    const root = lacksRoot();
    if (root !== undefined) return root;
    const known = readFileSync("/proc/cgroups", "utf8");
    const off = ["pids", "memory"].filter((name) => !new RegExp(`^${name}\\t.*\\t1$`, "m").test(known));
    return off.length === 0 ? undefined : `the kernel's ${off.join(" and ")} controller`;
  },
  play(stage) {
    stage.tell(
      `Namespaces decide what a container sees; control groups what it may use up. A group is a directory, its limits are
       files in it, and whatever a process in it starts is in it, too. This container may have ${PROCESSES} processes:`,
    );
    const crowd = stage.make({
      spec: ({ linux }) => {
        linux.resources = { ...linux.resources, pids: { limit: PROCESSES } };
      },
    });
    stage.show(crowd, "makeCgroup", "writeCgroup", "enterCgroup", "cloneInto");
    const pids = (file: string) => fileOf(crowd, file);
    stage.ask(crowd, {
      asks: "Which limit does the kernel know?",
      look: { host: `cat ${pids("pids.max")}` },
      seenIn: pids("pids.max"),
      truth: () => readFileSync(pids("pids.max"), "utf8").trim(),
      help: "The limit is what pids.max of its group says.",
    });
    const tries = PROCESSES * 2;
    stage.act(crowd, `i=0; while [ $i -lt ${tries} ]; do sleep 600 & i=$((i + 1)); done 2> /dev/null`);
    stage.tell(`A shell in there has just tried to start ${tries} programs, and to leave them running.`);
    stage.ask(crowd, {
      asks: "How many processes are in the group now?",
      look: { host: `cat ${pids("pids.current")}` },
      seenIn: pids("pids.current"),
      truth: () => readFileSync(pids("pids.current"), "utf8").trim(),
      help: "pids.current counts them.",
    });
    stage.check("the kernel has refused to make a process", () => {
      const refused = fieldOf(pids("pids.events"), "max");
      return { held: refused > 0, seen: `${pids("pids.events")} says max ${refused}` };
    });
    stage.tell(
      `Too much memory is not refused: pages are given out when they are touched, and where there are none left in the
       group the kernel kills. This container may have ${MEMORY_BYTES >> 20} MiB:`,
    );
    const glutton = stage.make({
      spec: ({ linux }) => {
        linux.resources = { ...linux.resources, memory: { limit: MEMORY_BYTES } };
      },
    });
    const counter = ["memory.oom_control", "memory.events"].map((file) => fileOf(glutton, file)).find(existsSync) ?? "";
    stage.ask(glutton, {
      asks: "Let a program keep 100 MB in memory. With which status does it end? (A shell says 128 + the signal's number.)",
      look: { inside: "sh -c 'head -c 100000000 /dev/zero | tail -c 90000000 > /dev/null; echo $?' 2> /dev/null" },
      seenIn: counter,
      truth: () => (fieldOf(counter, "oom_kill") > 0 ? String(128 + SIGKILL) : "0"),
      help: "tail keeps the end of its input in memory. SIGKILL has the number 9.",
    });
    stage.ask(glutton, {
      asks: "How many processes has the kernel killed there for want of memory?",
      look: { host: `awk '$1 == "oom_kill" { print $2 }' ${counter}` },
      seenIn: counter,
      truth: () => String(fieldOf(counter, "oom_kill")),
      help: `The field oom_kill of ${counter} counts them.`,
    });
  },
};

const SIGKILL = 9;

/** The path of a file of a container's cgroups, in whichever hierarchy has it. */
function fileOf({ container }: Specimen, file: string): string {
  const paths = container.record.cgroups.map(({ path }) => `${path}/${file}`);
  return paths.find((path) => existsSync(path)) ?? `${file} (which no cgroup here has)`;
}

function fieldOf(path: string, name: string): number {
  return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(readFileSync(path, "utf8"))?.[1]);
}
