import { readFileSync } from "node:fs";
import { ContainerError } from "../../error.ts";

/** What -e and --env-file say: files come first, whatever the order of the flags. */
export interface EnvironmentOptions {
  env: string[];
  envFile: string[];
}

/** "NAME=value" each; a name alone takes our own value, and is left out where we have none. @throws ContainerError */
export function givenEnvironment({ env, envFile }: EnvironmentOptions): string[] {
  const entries = [...envFile.flatMap(readEnvironmentFile), ...env.map((entry) => checked(entry, "it has no name"))];
  return entries.flatMap((entry) => {
    if (entry.includes("=")) return [entry];
    const own = process.env[entry];
    return own === undefined ? [] : [`${entry}=${own}`];
  });
}

function checked(entry: string, why: string): string {
  if (entry !== "" && !entry.startsWith("=")) return entry;
  throw new ContainerError({
    message: `cannot use ${JSON.stringify(entry)} as an environment variable: ${why}`,
    code: "ERR_USAGE",
  });
}

/** Docker's format: a variable a line as for -e, empty lines and those that begin with # left out; no quotes, no escapes. */
function readEnvironmentFile(path: string): string[] {
  let text = "";
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(path)); // which takes a byte order mark away
  } catch (error) {
    const why = error instanceof Error && "code" in error && "syscall" in error ? error.code : "it is not UTF-8";
    throw new ContainerError({ message: `cannot read the environment file ${path}: ${why}`, code: "ERR_USAGE", path });
  }
  return text.split(/\r?\n/).flatMap((line, at) => {
    const entry = line.trimStart();
    if (entry === "" || entry.startsWith("#")) return [];
    const [name = ""] = entry.split("=");
    if (/\s/.test(name) || name === "")
      throw new ContainerError({
        message: `cannot use line ${at + 1} of ${path}: a variable's name ${name === "" ? "is missing" : "has no blanks"}`,
        code: "ERR_USAGE",
        path,
      });
    return [entry];
  });
}
