/** Flags of clone3(2) other than those of namespaces. The last two exceed 32 bits. */
export const CLONE = {
  VM: 0x100,
  FS: 0x200,
  FILES: 0x400,
  PIDFD: 0x1000,
  VFORK: 0x4000,
  PARENT: 0x8000,
  CLEAR_SIGHAND: 0x1_0000_0000,
  INTO_CGROUP: 0x2_0000_0000,
} as const;
