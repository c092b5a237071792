const ONE_MORE =
  "a process more counts against RLIMIT_NPROC of the user, pids.max of every cgroup on the way to the root, kernel.threads-max and kernel.pid_max";

/**
 * What the kernel checks in a call before it answers so: section 2 of the manual, and where that is silent the kernel's
 * own code. By call, then by errno.
 */
const CHECKS: { readonly [call: string]: { readonly [code: string]: string } } = {
  openat: {
    ENOENT: "every part of the path must exist, and so must what a symbolic link in it leads to",
    EACCES:
      "every directory on the way must be searchable (x), and the file's mode allow what is asked for; devices cannot be opened on a mount that is nodev",
    ENOTDIR: "every part of the path but the last must be a directory, and the last one too where one is asked for",
    ELOOP: "at most 40 symbolic links are followed, and none where that was forbidden",
    EROFS: "the filesystem, or the mount through which it is reached, is not read-only",
    ENXIO: "a device needs a driver, a FIFO a reader",
    EPERM: "a file of proc or cgroupfs may have a say of its own about who opens it to write",
  },
  openat2: {
    ENOENT: "every part of the path must exist inside the root, and so must what a symbolic link in it leads to",
    ENOTDIR: "every part of the path but the last must be a directory",
    ELOOP: "links of proc that leave the root are not followed, and at most 40 others",
    EACCES: "every directory on the way must be searchable (x) for the one who looks",
  },
  open_tree: {
    EPERM: "a mount is cloned only with CAP_SYS_ADMIN in the user namespace that owns one's mount namespace",
    ENOENT: "every part of the path must exist, and so must what a symbolic link in it leads to",
    ENOTDIR: "every part of the path but the last must be a directory",
    EACCES: "every directory on the way must be searchable (x)",
    EINVAL:
      "the mount must belong to one's own mount namespace and not be unbindable; without its submounts it may not uncover what they hide",
    ENOSPC: "a mount namespace holds at most fs.mount-max mounts",
  },
  move_mount: {
    EPERM: "CAP_SYS_ADMIN in the user namespace that owns the mount namespace",
    EINVAL:
      "a directory is mounted on a directory and a file on a file; both ends must be of the right mount namespace, and what moves must be detached, or on a mount that is not shared",
    ENOENT: "the target must not have been removed",
    EACCES: "nothing may be mounted within proc but in few places: that check is ours",
    ENOSPC: "a mount namespace holds at most fs.mount-max mounts",
  },
  mount_setattr: {
    EPERM:
      "CAP_SYS_ADMIN in the owner of the mount namespace; and flags that a mount got from a more privileged mount namespace (ro, nodev, nosuid, noexec, atime) are locked and cannot be cleared; to map ids, CAP_SYS_ADMIN in the filesystem's user namespace",
    EINVAL:
      "flags and propagation must be known; to map ids, the filesystem must be able to (FS_ALLOW_IDMAP), the user namespace must have a map and must not be the filesystem's own",
    EBUSY: "a mount becomes read-only only while nothing is open in it for writing",
  },
  fsopen: {
    ENODEV: "a filesystem of that name must be built in, or be in a module that can be loaded",
    EPERM: "CAP_SYS_ADMIN in the user namespace that owns one's mount namespace",
  },
  fsconfig: {
    EINVAL: "the filesystem must know each option, and each value must make sense to it",
    EPERM:
      "CAP_SYS_ADMIN in the user namespace that owns what the filesystem shows (for proc the pid namespace, for sysfs the network namespace, for mqueue the ipc namespace), and a filesystem that may be mounted in a user namespace at all",
    ENOENT: "a source that is named must exist",
    ENOTBLK: "the source must be a block device",
    EBUSY: "the source must not be in use in another way",
  },
  fsmount: {
    EPERM:
      "in a user namespace, a new proc or sysfs may not show more than the one that is there: nothing may be mounted over parts of that one, and it may not be read-only where the new one is not",
  },
  clone3: {
    ENOSPC:
      "each new namespace counts against user.max_*_namespaces of every user namespace from one's own outwards, and they nest at most 32 deep",
    EAGAIN: ONE_MORE,
    EPERM:
      "new namespaces but that of users need CAP_SYS_ADMIN; a new user namespace needs one's user and group to be mapped, no chroot, and a host that lets ordinary users make any (kernel.unprivileged_userns_clone, AppArmor)",
    EINVAL: "the flags must fit together, and the kernel must have been built with those namespaces",
    EUSERS: "user namespaces nest at most 32 deep",
    EBUSY: "a cgroup of version 2 that has controllers for its children takes no processes",
    EOPNOTSUPP: "the cgroup is of a domain that cannot hold processes (cgroup.type says domain invalid)",
    ENOMEM: "there must be memory for the process; a pid namespace whose first process has ended takes no more",
  },
  clone: { EAGAIN: ONE_MORE },
  vfork: { EAGAIN: ONE_MORE },
  unshare: {
    EPERM: "new namespaces but that of users need CAP_SYS_ADMIN",
    ENOSPC: "each new namespace counts against user.max_*_namespaces, and they nest at most 32 deep",
    EINVAL: "the flags must fit together, and the kernel must have been built with those namespaces",
  },
  setns: {
    EINVAL:
      "the file must be a namespace, and of the type that was asked for; one's own user namespace cannot be joined",
    EPERM: "CAP_SYS_ADMIN, both in the user namespace that owns the namespace and (but for that of users) in one's own",
  },
  mknodat: {
    EPERM:
      "devices are made only with CAP_MKNOD in the first user namespace, and where the cgroup's device rules let one",
    EACCES: "the directory must be writable for the one who makes it, and the cgroup's device rules must let one",
    EEXIST: "the name must be free",
    EROFS: "the filesystem is not read-only",
    ENOSPC: "the filesystem needs a free block and a free inode",
    EDQUOT: "the user's quota must not be used up",
  },
  mkdirat: {
    EACCES: "the directory above must be writable for the one who makes it",
    EROFS: "the filesystem, or the mount through which it is reached, is not read-only",
    ENOSPC: "the filesystem needs a free block and a free inode; a cgroup of version 1 must not be removed meanwhile",
    EDQUOT: "the user's quota must not be used up",
    ENOENT: "the directory above must exist",
    EPERM: "the filesystem must be one in which directories can be made (proc and sysfs are none)",
    EAGAIN: "cgroup.max.descendants and cgroup.max.depth of the cgroups above",
    ENOTDIR: "what is above must be a directory",
  },
  write: {
    EINVAL: "whoever owns the file must be able to make sense of the value, and it must be in range",
    EACCES: "the values of a cgroup must lie within its parent's",
    EPERM:
      "whoever owns the file decides: to map ids takes CAP_SETUID and CAP_SETGID in the parent user namespace, or one's own id alone and setgroups denied; a limit can take CAP_SYS_RESOURCE",
    ENOSPC: "a cpuset takes processes once it has processors and memory nodes",
    EBUSY: "what is in use cannot be taken away",
    ERANGE: "the value must be in range",
    ENODEV: "the device must exist",
    ESRCH: "the process must still be there",
    EOPNOTSUPP: "the cgroup's type or controllers must allow it",
    ENOENT: "an AppArmor profile must be loaded before it is asked for",
  },
  prlimit64: {
    EPERM: "a hard limit is raised only with CAP_SYS_RESOURCE, and that of open files never above fs.nr_open",
    EINVAL: "the soft limit is at most the hard one, and the resource must be known",
  },
  setgroups: {
    EPERM: "CAP_SETGID in one's user namespace, which must not have been denied (/proc/PID/setgroups)",
    EINVAL: "every group must be mapped in the user namespace, and there are at most 65536",
  },
  setresgid: {
    EPERM: "CAP_SETGID in one's user namespace",
    EINVAL: "the group must be mapped in the user namespace",
  },
  setresuid: {
    EPERM: "CAP_SETUID in one's user namespace",
    EINVAL: "the user must be mapped in the user namespace",
    EAGAIN: "the user's processes must not exceed RLIMIT_NPROC",
  },
  prctl: {
    EPERM: "the bounding set is reduced only with CAP_SETPCAP; an ambient capability must be permitted and inheritable",
    EINVAL: "the kernel must know the option and its argument",
  },
  capset: { EPERM: "nothing may become permitted that is not, nor inheritable without CAP_SETPCAP" },
  sched_setattr: {
    EPERM:
      "CAP_SYS_NICE, or RLIMIT_RTPRIO and RLIMIT_NICE that allow it; on cgroup v1 a real-time budget (cpu.rt_runtime_us)",
    EBUSY: "SCHED_DEADLINE takes no more than the bandwidth that is left",
    EINVAL: "policy, priority and times must fit together",
  },
  ioprio_set: { EPERM: "the real-time class needs CAP_SYS_NICE or CAP_SYS_ADMIN" },
  sched_setaffinity: { EINVAL: "at least one of the processors must be online and in the process's cpuset" },
  set_mempolicy: {
    EINVAL: "the nodes must have memory and be in the process's cpuset, the mode and flags fit together",
  },
  seccomp: {
    EACCES: "CAP_SYS_ADMIN in one's user namespace, or no_new_privs",
    EINVAL: "the kernel must know the filter's flags and actions, and at most 4096 instructions",
    EBUSY: "only one filter of a process may have a listener",
    ENOMEM: "all filters of a process together have at most 32768 instructions",
  },
  sethostname: { EPERM: "CAP_SYS_ADMIN in the user namespace that owns the uts namespace" },
  setdomainname: { EPERM: "CAP_SYS_ADMIN in the user namespace that owns the uts namespace" },
  mount: {
    EPERM: "CAP_SYS_ADMIN in the user namespace that owns one's mount namespace",
    EINVAL: "the root must be a mount point of one's own mount namespace",
  },
  pivot_root: {
    EINVAL: "new and old root must be mounts of one's own mount namespace and not shared, and the old not the rootfs",
    EPERM: "CAP_SYS_ADMIN in the user namespace that owns one's mount namespace",
    EBUSY: "the new root must be another mount than the old",
  },
  chroot: { EPERM: "CAP_SYS_CHROOT in one's user namespace" },
  chdir: {
    ENOENT: "every part of the path must exist, seen from the container's root",
    ENOTDIR: "it must be a directory",
    EACCES: "every directory on the way must be searchable (x) for the container's user",
  },
  keyctl: {
    EDQUOT: "a user's keys count against kernel.keys.maxkeys and maxbytes",
    EPERM: "the caller must be allowed to join the keyring of that name",
    ENOSYS: "the kernel must have keys, and no filter of the caller's may hide them",
  },
  newfstatat: {
    ENOENT: "every part of the path must exist",
    EACCES: "every directory on the way must be searchable (x)",
    ENOTDIR: "every part of the path but the last must be a directory",
  },
  faccessat: {
    EACCES:
      "the file must be executable for the user (by owner, group or others: only one of the three counts), every directory on the way searchable (x), and the mount not noexec",
    ENOENT: "every part of the path must exist",
  },
  execve: {
    ENOENT:
      "the file must exist, and so must the interpreter that it names: a script's in #!, a program's in PT_INTERP",
    ENOEXEC: "the file must be in a format that the kernel knows: ELF for this machine, #!, or one of binfmt_misc's",
    EACCES: "the file must be regular and executable for the user, and its mount not noexec",
    EAGAIN: "a user whose processes exceed RLIMIT_NPROC may not execute anything after a change of user",
    E2BIG: "arguments and environment take at most a quarter of RLIMIT_STACK, each string at most 128 KiB",
    ETXTBSY: "nobody may have the file open for writing",
    ELOOP: "scripts interpret scripts at most five deep",
    EINVAL: "a program names one interpreter at most",
    EPERM: "set-user-id programs are not executed by who is traced, or by whom a filter or module keeps from it",
    ENOMEM: "there must be memory for the program",
  },
  ioctl: {
    EPERM:
      "what the request changes needs its capability: CAP_NET_ADMIN for interfaces, CAP_SYS_ADMIN to take a terminal",
    ENOTTY: "the file must be one that knows the request",
  },
  bind: {
    EADDRINUSE: "nobody else may have the address and port",
    EACCES: "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE",
    EADDRNOTAVAIL: "the address must be one of this host's",
  },
  connect: {
    ENOENT: "the socket must exist",
    ECONNREFUSED: "somebody must listen on the socket",
    EACCES: "the socket must be writable for the caller",
  },
  bpf: { EPERM: "CAP_BPF or CAP_SYS_ADMIN in the first user namespace" },
  fchown: { EPERM: "CAP_CHOWN", EINVAL: "the owner must be mapped in the user namespace" },
  fchownat: { EPERM: "CAP_CHOWN", EINVAL: "the owner must be mapped in the user namespace" },
};

/** Of any call. */
const ALWAYS: { readonly [code: string]: string } = {
  ENOSYS: "the kernel must have the call, and no filter of the caller's may hide it",
  EMFILE: "a process has at most RLIMIT_NOFILE descriptors",
  ENFILE: "the host has at most fs.file-max open files",
  ENOSPC: "the filesystem must have room",
  EROFS: "the filesystem must not be read-only",
  ENOMEM: "there must be memory, also in the caller's cgroup",
};

/** What a call that was refused so had to be. @returns undefined where neither the manual nor we know */
export function checkOf(call: string | undefined, code: string): string | undefined {
  return (call === undefined ? undefined : CHECKS[call]?.[code]) ?? ALWAYS[code];
}
