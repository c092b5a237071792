import { innocent, type Question, refuses } from "./question.ts";

/** A file that is no namespace, or none of that kind. */
const kind: Question = ({ step, code, plan }, facts) => {
  if (step.name !== "joinNamespace" || code !== "EINVAL") return [];
  const opened = plan.find(
    ({ name, args }) => name === "openNamespace" && Reflect.get(args, "slot") === step.args.namespace,
  );
  if (opened?.name !== "openNamespace") return [];
  const { path } = opened.args;
  const mount = facts.mounts().findLast(({ mountPoint }) => mountPoint === facts.walk(path).real);
  const link = mount?.type === "nsfs" ? mount.root : facts.walk(path).real;
  const is = link === undefined ? "gone" : /:\[\d+\]$/.test(link) ? `the namespace ${link}` : "no namespace at all";
  return refuses(
    `${path} is ${is}, and a ${step.args.namespace} namespace is asked for`,
    "correct the path in linux.namespaces: /proc/PID/ns/NAME, or where ip netns and the like have bound one",
  );
};

/** A process that has ended took its namespaces with it. */
const ended: Question = ({ step, code }, facts) => {
  if (step.name !== "openNamespace" || code !== "ENOENT") return [];
  const [, pid] = /^\/proc\/(\d+)\//.exec(step.args.path) ?? [];
  if (pid === undefined) return [];
  return facts.list(`/proc/${pid}`) === undefined
    ? refuses(`there is no process ${pid}: its namespaces went with it`, "start it again, and give its new process id")
    : innocent(`process ${pid} is there`);
};

export const NAMESPACE_QUESTIONS: readonly Question[] = [kind, ended];
