/** sched_attr.sched_policy of sched_setattr(2). The kernel reserves SCHED_ISO and refuses it. */
export const SCHEDULER_POLICIES = {
  SCHED_OTHER: 0,
  SCHED_FIFO: 1,
  SCHED_RR: 2,
  SCHED_BATCH: 3,
  SCHED_ISO: 4,
  SCHED_IDLE: 5,
  SCHED_DEADLINE: 6,
} as const;

/** sched_attr.sched_flags. */
export const SCHEDULER_FLAGS = {
  SCHED_FLAG_RESET_ON_FORK: 0x01,
  SCHED_FLAG_RECLAIM: 0x02,
  SCHED_FLAG_DL_OVERRUN: 0x04,
  SCHED_FLAG_KEEP_POLICY: 0x08,
  SCHED_FLAG_KEEP_PARAMS: 0x10,
  SCHED_FLAG_UTIL_CLAMP_MIN: 0x20,
  SCHED_FLAG_UTIL_CLAMP_MAX: 0x40,
} as const;

export const IO_PRIORITY_CLASSES = {
  IOPRIO_CLASS_RT: 1,
  IOPRIO_CLASS_BE: 2,
  IOPRIO_CLASS_IDLE: 3,
} as const;

/** The number for ioprio_set(2): class in the upper three of 16 bits, priority 0 (first) to 7 below. */
export function ioPriorityValue(ioClass: keyof typeof IO_PRIORITY_CLASSES, priority = 0): number {
  return (IO_PRIORITY_CLASSES[ioClass] << 13) | priority;
}
