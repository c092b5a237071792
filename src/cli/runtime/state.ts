import { userInfo } from "node:os";
import { Container } from "../../container/container.ts";
import { printJson } from "../print.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

export const state: Command = {
  usage: "<container-id>",
  flags: {},
  run(words, { root }) {
    const { rest } = parseFlags({}, words);
    printJson(describeContainer(Container.open(root, rest[0] ?? "")), 2);
    return 0;
  },
};

/** The OCI state with what runc adds to it. */
export function describeContainer(container: Container): { [field: string]: unknown } {
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

function ownerName(uid: number): string {
  return uid === 0 ? "" : userInfo().username;
}
