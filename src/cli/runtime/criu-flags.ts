import { resolve } from "node:path";
import { ContainerError } from "../../error.ts";
import type { CriuOptions } from "../../plan/criu.ts";
import type { Words } from "./flags.ts";

/** Flags that checkpoint and restore share, as runc has them. */
export const CRIU_FLAGS = {
  "image-path": { kind: "string", help: "path for criu image files (default: ./checkpoint)" },
  "work-path": { kind: "string", help: "path for work files and logs (default: the image path)" },
  "tcp-established": { kind: "boolean", help: "allow open tcp connections" },
  "ext-unix-sk": { kind: "boolean", help: "allow external unix sockets" },
  "shell-job": { kind: "boolean", help: "allow shell jobs" },
  "lazy-pages": { kind: "boolean", help: "use userfaultfd to lazily restore memory pages" },
  "file-locks": { kind: "boolean", help: "handle file locks, for safety" },
  "manage-cgroups-mode": { kind: "string", help: "cgroups mode: soft|full|strict|ignore (default: soft)" },
  "empty-ns": { kind: "strings", help: "create a namespace, but don't restore its properties" },
  "auto-dedup": { kind: "boolean", help: "enable auto deduplication of memory images" },
} as const;

const MODES = ["soft", "full", "strict", "ignore"] as const;

/** @throws ContainerError in runc's words */
export function criuOptions(flags: Words<typeof CRIU_FLAGS>["flags"]): CriuOptions {
  const images = resolve(flags["image-path"] ?? "checkpoint");
  const mode = flags["manage-cgroups-mode"];
  const manageCgroups = MODES.find((each) => each === mode);
  if (mode !== undefined && mode !== "" && manageCgroups === undefined)
    throw new ContainerError({ message: "Invalid manage-cgroups-mode value", code: "ERR_USAGE" });
  const foreign = flags["empty-ns"].find((name) => name !== "network");
  if (foreign !== undefined)
    throw new ContainerError({ message: `namespace ${JSON.stringify(foreign)} is not supported`, code: "ERR_USAGE" });
  return {
    images,
    work: flags["work-path"] === undefined ? images : resolve(flags["work-path"]),
    tcpEstablished: flags["tcp-established"],
    externalSockets: flags["ext-unix-sk"],
    shellJob: flags["shell-job"],
    lazyPages: flags["lazy-pages"],
    fileLocks: flags["file-locks"],
    autoDedup: flags["auto-dedup"],
    // whoever made the network makes it again, as with runc: its devices are not the runtime's
    emptyNetwork: true,
    ...(manageCgroups === undefined ? {} : { manageCgroups }),
  };
}
