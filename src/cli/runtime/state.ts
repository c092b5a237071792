import { readFileSync } from "node:fs";
import { Container } from "../../container/container.ts";
import { printJson } from "../print.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

export const state: Command = {
  usage: "<container-id>",
  flags: {},
  words: [1, 1],
  run(words, { root }) {
    const { rest } = parseFlags({}, words);
    printJson(describeContainer(Container.open(root, rest[0] ?? "")), 2);
    return 0;
  },
};

/** The OCI state with what runc adds to it. */
export function describeContainer(container: Container) {
  const { rootfs, createdAt, bundle, uid } = container.record;
  const { annotations, ...state } = container.state;
  return {
    ...state,
    rootfs: rootfs.startsWith("/") ? rootfs : `${bundle}/${rootfs}`,
    created: createdAt,
    owner: ownerName(uid),
    ...(annotations === undefined ? {} : { annotations }),
  };
}

/** As passwd(5) of the host has it; root goes without saying, as with runc. */
function ownerName(uid: number): string {
  if (uid === 0) return "";
  const line = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .find((entry) => entry.split(":")[2] === String(uid));
  return line?.split(":")[0] ?? String(uid);
}
