import type { Seccomp, SeccompArchitecture, SeccompArg, SeccompRule } from "../spec/spec.ts";
import type { Machine } from "./compile.ts";

const ENOSYS = 38;

/** Calls that every container may make. Names of other interfaces than the caller's have no effect. */
const ALWAYS =
  // files
  "open openat openat2 creat close close_range read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 " +
  "lseek _llseek dup dup2 dup3 fcntl fcntl64 flock ioctl fsync fdatasync sync syncfs sync_file_range readahead " +
  "fadvise64 fadvise64_64 fallocate truncate truncate64 ftruncate ftruncate64 sendfile sendfile64 splice tee vmsplice " +
  "copy_file_range cachestat memfd_create memfd_secret name_to_handle_at pipe pipe2 " +
  "stat stat64 fstat fstat64 lstat lstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64 statmount " +
  "listmount access faccessat faccessat2 getdents getdents64 getcwd chdir fchdir mkdir mkdirat rmdir link linkat symlink " +
  "symlinkat readlink readlinkat unlink unlinkat rename renameat renameat2 mknod mknodat umask " +
  "chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 " +
  "utime utimes futimesat utimensat utimensat_time64 " +
  "getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr " +
  "listxattrat removexattr lremovexattr fremovexattr removexattrat " +
  "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark " +
  // waiting
  "select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create epoll_create1 epoll_ctl " +
  "epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 " +
  "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64 " +
  // memory
  "brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall mseal " +
  "remap_file_pages pkey_alloc pkey_free pkey_mprotect map_shadow_stack membarrier " +
  // processes and threads
  "fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid getpgrp setpgid getsid " +
  "setsid prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self " +
  "pidfd_open pidfd_send_signal process_mrelease set_tid_address set_thread_area get_thread_area set_robust_list " +
  "get_robust_list rseq restart_syscall uretprobe ptrace process_vm_readv process_vm_writev " +
  "futex futex_time64 futex_waitv futex_wake futex_wait futex_requeue " +
  "sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam " +
  "sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval " +
  "sched_rr_get_interval_time64 getpriority setpriority ioprio_get ioprio_set " +
  "getrlimit setrlimit ugetrlimit prlimit64 getrusage times getcpu sysinfo uname getrandom " +
  // signals
  "kill tkill tgkill pause sigaltstack sigprocmask sigreturn rt_sigaction rt_sigpending rt_sigprocmask " +
  "rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo " +
  // identity
  "capget capset getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid " +
  "getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid " +
  "setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32 " +
  // time
  "time gettimeofday nanosleep alarm getitimer setitimer adjtimex clock_adjtime clock_adjtime64 clock_getres " +
  "clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 timer_create timer_delete " +
  "timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime " +
  "timerfd_gettime64 timerfd_settime timerfd_settime64 " +
  // sockets
  "socketpair socketcall bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt send " +
  "sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 " +
  // System V and POSIX message queues, semaphores, shared memory
  "ipc msgget msgsnd msgrcv msgctl semget semop semtimedop semtimedop_time64 semctl shmget shmat shmdt shmctl mq_open " +
  "mq_unlink mq_notify mq_getsetattr mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64";

const MACHINES: Readonly<Record<Machine, { architectures: SeccompArchitecture[]; calls: string }>> = {
  x86_64: {
    architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    calls: "arch_prctl modify_ldt",
  },
  aarch64: {
    architectures: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    calls: "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
  },
};

/** Calls that a capability opens: they act on more than the container, and the kernel checks the capability as well. */
const BY_CAPABILITY: Readonly<Record<string, string>> = {
  CAP_BPF: "bpf",
  CAP_DAC_READ_SEARCH: "open_by_handle_at",
  CAP_PERFMON: "perf_event_open",
  CAP_SYSLOG: "syslog",
  CAP_SYS_ADMIN:
    "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules " +
    "lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname " +
    "sethostname setns syslog umount umount2 unshare",
  CAP_SYS_BOOT: "reboot",
  CAP_SYS_CHROOT: "chroot",
  CAP_SYS_MODULE: "delete_module init_module finit_module",
  CAP_SYS_NICE: "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
  CAP_SYS_PACCT: "acct",
  CAP_SYS_PTRACE: "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
  CAP_SYS_RAWIO: "iopl ioperm",
  CAP_SYS_TIME: "settimeofday stime clock_settime clock_settime64",
  CAP_SYS_TTY_CONFIG: "vhangup",
};

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET: a new user namespace opens the kernel wide. */
const CLONE_NAMESPACES = 0x7e020000;

// linux/socket.h
const AF_ALG = 38;
const AF_VSOCK = 40;

/** personality(2): PER_LINUX, PER_LINUX32, each with UNAME26 too, and the question what it is. */
const PERSONALITIES = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff];

/**
 * The profile of a container that asks for none, equal in effect to Docker's (github.com/moby/profiles, seccomp):
 * the listed calls are allowed, everything else answers EPERM.
 *
 * @param capabilities the container's bounding set, such as "CAP_CHOWN"
 */
export function defaultProfile(capabilities: readonly string[], machine: Machine): Seccomp {
  const { architectures, calls } = MACHINES[machine];
  const isAdmin = capabilities.includes("CAP_SYS_ADMIN");
  const opened = capabilities.flatMap((capability) => BY_CAPABILITY[capability]?.split(" ") ?? []);
  return {
    defaultAction: "SCMP_ACT_ERRNO",
    defaultErrnoRet: 1,
    architectures,
    syscalls: [
      allow([...ALWAYS.split(" "), ...calls.split(" "), ...opened]),
      // AF_VSOCK reaches hosts and guests past every network namespace; AF_ALG is the kernel's crypto code, a target
      // that hardly any program needs.
      allow(["socket"], { index: 0, value: AF_ALG, op: "SCMP_CMP_LT" }),
      allow(["socket"], { index: 0, value: AF_ALG + 1, op: "SCMP_CMP_EQ" }),
      allow(["socket"], { index: 0, value: AF_VSOCK, op: "SCMP_CMP_GT" }),
      ...PERSONALITIES.map((value) => allow(["personality"], { index: 0, value, op: "SCMP_CMP_EQ" })),
      ...(isAdmin ? [] : CLONE_WITHOUT_NAMESPACES),
    ],
  };
}

const CLONE_WITHOUT_NAMESPACES: readonly SeccompRule[] = [
  allow(["clone"], { index: 0, value: CLONE_NAMESPACES, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }),
  // A filter cannot see clone3's flags, which are in memory; on ENOSYS libc falls back to clone.
  { names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: ENOSYS },
];

function allow(names: string[], arg?: SeccompArg): SeccompRule {
  return { names, action: "SCMP_ACT_ALLOW", ...(arg && { args: [arg] }) };
}
