import { addon } from "./addon.ts";
import { close, O, open } from "./file.ts";
import { call } from "./syscall.ts";

const BPF_PROG_LOAD = 5;
const BPF_PROG_ATTACH = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE = 15;
const BPF_CGROUP_DEVICE = 6;
const BPF_F_ALLOW_MULTI = 2;

/** Attaches a device program (struct bpf_insn[]) to a cgroup of version 2, which keeps it: bpf(2). @throws ContainerError */
export function attachDeviceProgram(cgroup: string, program: Uint8Array): void {
  const license = Buffer.from("Apache-2.0\0");
  const load = Buffer.alloc(128);
  load.writeUInt32LE(BPF_PROG_TYPE_CGROUP_DEVICE, 0);
  load.writeUInt32LE(program.length / 8, 4);
  load.writeBigUInt64LE(addon().address(program), 8);
  load.writeBigUInt64LE(addon().address(license), 16);
  const loaded = call("bpf", BPF_PROG_LOAD, load, 48);
  const directory = open(cgroup, O.RDONLY | O.DIRECTORY);
  try {
    const attach = Buffer.alloc(128);
    attach.writeUInt32LE(directory, 0);
    attach.writeUInt32LE(loaded, 4);
    attach.writeUInt32LE(BPF_CGROUP_DEVICE, 8);
    attach.writeUInt32LE(BPF_F_ALLOW_MULTI, 12);
    call("bpf", BPF_PROG_ATTACH, attach, 20);
  } finally {
    close(directory);
    close(loaded);
  }
}
