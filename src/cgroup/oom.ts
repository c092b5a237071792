import { AT_FDCWD, close, O } from "../kernel/file.ts";
import { call, tryCall } from "../kernel/syscall.ts";
import type { CgroupDirectory } from "../plan/cgroup-layout.ts";
import { oomKilled } from "./cgroup.ts";
import { writeExisting } from "./file.ts";

const POLLIN = 1;
const POLLPRI = 2;
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

/** Tells when a container runs out of memory. */
export interface OomWatch {
  /** To be polled; -1 where no hierarchy has a memory controller. */
  descriptor: number;
  /** What poll(2) is to be asked for. */
  events: number;
  /** How often it has happened since the last call. */
  take: () => number;
  close: () => void;
}

/** Version 1 counts in an eventfd, version 2 marks memory.events as changed. @throws ContainerError */
export function watchOom(directories: readonly CgroupDirectory[]): OomWatch {
  const holder = directories.find(({ hierarchy }) => hierarchy.controllers.includes("memory"));
  if (holder === undefined) return { descriptor: -1, events: 0, take: () => 0, close: () => undefined };
  return holder.hierarchy.version === 1 ? watchV1(holder.path) : watchV2(holder);
}

/** cgroup v1, memory.rst, "OOM control": the eventfd and memory.oom_control, written to cgroup.event_control. */
function watchV1(path: string): OomWatch {
  const control = call("openat", AT_FDCWD, `${path}/memory.oom_control`, O.RDONLY | O.CLOEXEC, 0);
  const counter = call("eventfd2", 0, EFD_CLOEXEC | EFD_NONBLOCK);
  writeExisting(`${path}/cgroup.event_control`, `${counter} ${control}`);
  close(control);
  const value = Buffer.alloc(8);
  return {
    descriptor: counter,
    events: POLLIN,
    // the kernel counts once more when the cgroup is removed: then nobody has run out of anything
    take: () =>
      tryCall("read", counter, value, value.length) === value.length && exists(path)
        ? Number(value.readBigUInt64LE())
        : 0,
    close: () => close(counter),
  };
}

function exists(path: string): boolean {
  return tryCall("faccessat", AT_FDCWD, path, 0) >= 0;
}

function watchV2(holder: CgroupDirectory): OomWatch {
  const file = call("openat", AT_FDCWD, `${holder.path}/memory.events`, O.RDONLY | O.CLOEXEC, 0);
  const bytes = Buffer.alloc(4096);
  const read = () => {
    // reading is what makes the descriptor quiet again
    tryCall("pread64", file, bytes, bytes.length, 0);
    return oomKilled([holder]);
  };
  let known = read();
  return {
    descriptor: file,
    events: POLLPRI,
    take: () => {
      const before = known;
      known = read();
      return known - before;
    },
    close: () => close(file),
  };
}
