import { statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { checkpoint as dump } from "../../container/checkpoint.ts";
import { Container } from "../../container/container.ts";
import { ContainerError } from "../../error.ts";
import { CRIU_FLAGS, criuOptions } from "./criu-flags.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

const FLAGS = {
  ...CRIU_FLAGS,
  "parent-path": { kind: "string", help: "path for previous criu image files in pre-dump, relative to the image path" },
  "leave-running": { kind: "boolean", help: "leave the process running after checkpointing" },
  "tcp-skip-in-flight": { kind: "boolean", help: "skip in-flight TCP connections" },
  "link-remap": { kind: "boolean", help: "allow remapping of unlinked files" },
  "status-fd": { kind: "string", help: "criu writes \\0 to this FD once lazy-pages is ready (default: -1)" },
  "page-server": { kind: "string", help: "ADDRESS:PORT of the page server" },
  "pre-dump": {
    kind: "boolean",
    help: "dump container's memory information only, leave the container running after this",
  },
} as const;

export const checkpoint: Command = {
  usage: "[command options] <container-id>",
  flags: FLAGS,
  words: [1, 1],
  run(words, { root, criu }) {
    const { flags, rest } = parseFlags(FLAGS, words);
    const options = criuOptions(flags);
    const parent = flags["parent-path"];
    if (parent !== undefined) checkParent(parent, options.images);
    const status = Number(flags["status-fd"] ?? -1);
    const server = flags["page-server"];
    dump(
      Container.open(root, rest[0] ?? ""),
      {
        ...options,
        leaveRunning: flags["leave-running"],
        preDump: flags["pre-dump"],
        tcpSkipInFlight: flags["tcp-skip-in-flight"],
        linkRemap: flags["link-remap"],
        ...(parent === undefined ? {} : { parent }),
        ...(status < 0 ? {} : { statusDescriptor: status }),
        ...(server === undefined ? {} : { pageServer: parseServer(server) }),
      },
      criu,
    );
    return 0;
  },
};

function checkParent(parent: string, images: string): void {
  if (isAbsolute(parent)) throw new ContainerError({ message: "--parent-path must be relative", code: "ERR_USAGE" });
  if (!statSync(join(images, parent), { throwIfNoEntry: false })?.isDirectory())
    throw new ContainerError({ message: `invalid --parent-path: ${parent} is not a directory`, code: "ERR_USAGE" });
}

function parseServer(text: string): { address: string; port: number } {
  const [, address = "", port = ""] = /^\[?(.+?)\]?:([^:]+)$/.exec(text) ?? [];
  if (address === "")
    throw new ContainerError({ message: "Use --page-server ADDRESS:PORT to specify page server", code: "ERR_USAGE" });
  if (!/^\d{1,5}$/.test(port)) throw new ContainerError({ message: "Invalid port number", code: "ERR_USAGE" });
  return { address, port: Number(port) };
}
