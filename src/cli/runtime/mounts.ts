import { Container } from "../../container/container.ts";
import { ContainerError } from "../../error.ts";
import { readDocument } from "../../spec/bundle.ts";
import { parseMounts } from "../../spec/parse.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

/** crun's: changes the mounts of a container that runs. */
export const mounts: Command = {
  usage:
    "add|remove <container-id> <file>\n\nThe file, or '-' for the standard input, has an array in the form of config.json's mounts; remove looks at the destinations alone.",
  flags: {},
  words: [3, 3],
  run(words, { root }) {
    const { rest } = parseFlags({}, words);
    const [verb = "", id = "", path = ""] = rest;
    if (verb !== "add" && verb !== "remove")
      throw new ContainerError({ message: `unknown command mounts ${verb}: use add or remove`, code: "ERR_USAGE" });
    const container = Container.open(root, id);
    const list = parseMounts(readDocument(path === "-" ? 0 : path), { path });
    container.changeMounts(verb, list);
    return 0;
  },
};
