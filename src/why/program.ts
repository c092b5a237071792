import { rootPath } from "./paths.ts";
import { innocent, type Question, refuses } from "./question.ts";

/** A program that is nowhere it was looked for. */
const notFound: Question = ({ step, code, plan }, facts) => {
  if (step.name !== "findExecutable" || (code !== "ENOENT" && code !== "ENOTDIR")) return [];
  const root = rootPath(plan);
  if (root === undefined) return [];
  const { candidates, name } = step.args;
  const seen = candidates.map((path) => ({ path, walk: facts.walk(path, root) }));
  const there = seen.filter(({ walk }) => walk.found !== undefined);
  if (there.length > 0)
    return innocent(
      `${there.map(({ path }) => path).join(", ")} is in the root ${root} now; a mount of the container may cover it`,
    );
  const ends = seen.map(({ path, walk: { stopped } }) =>
    stopped?.link === undefined
      ? stopped?.path === path
        ? `${path} is not there`
        : `${path}: ${stopped?.path} is not there`
      : `${stopped.path} is a symbolic link to ${stopped.link}, which is not there`,
  );
  return refuses(
    `${name} is nowhere in the root ${root}: ${ends.join("; ")}`,
    name.includes("/")
      ? "correct process.args, or put the program into the image"
      : "correct process.args or PATH in process.env, or put the program into the image",
  );
};

/** A file that is there and cannot be executed. */
const defect: Question = ({ step, code, plan }, facts) => {
  if (step.name !== "execute" || !["ENOENT", "ENOEXEC", "EACCES", "EINVAL", "ELOOP"].includes(code)) return [];
  const root = rootPath(plan);
  const found = plan.find(({ name }) => name === "findExecutable");
  if (root === undefined || found?.name !== "findExecutable") return [];
  const path = found.args.candidates.find((candidate) => facts.walk(candidate, root).found !== undefined);
  if (path === undefined) return [];
  const wrong = facts.defect(root, path);
  return wrong === undefined
    ? innocent(`the first bytes of ${path} in the root ${root} have nothing that a kernel would object to`)
    : refuses(`${path} in the root ${root}: ${wrong}`);
};

/** Too many words. */
const tooLong: Question = ({ step, code }) => {
  if (step.name !== "execute" || code !== "E2BIG") return [];
  const strings = [...step.args.arguments, ...step.args.environment];
  const lengths = strings.map((text) => Buffer.byteLength(text) + 1);
  const [longest, sum] = [Math.max(...lengths), lengths.reduce((total, length) => total + length + 8, 0)];
  return refuses(
    `arguments and environment are ${strings.length} strings of together ${sum} bytes, the longest of ${longest}; the kernel takes a quarter of RLIMIT_STACK (2 MiB of 8) together, and 131072 each`,
    "hand long texts over in a file, or raise RLIMIT_STACK in process.rlimits",
  );
};

export const PROGRAM: readonly Question[] = [notFound, defect, tooLong];
