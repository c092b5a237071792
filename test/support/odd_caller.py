"""Executes a program with everything that a process inherits set to something odd."""

import ctypes
import os
import resource
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_TIMERSLACK, PR_SET_PDEATHSIG, PR_SET_THP_DISABLE, PR_MCE_KILL = 29, 1, 41, 33
SYS_KEYCTL, SYS_IOPRIO_SET = {"x86_64": (250, 251), "aarch64": (219, 30)}[os.uname().machine]

resource.setrlimit(resource.RLIMIT_NOFILE, (345, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
resource.setrlimit(resource.RLIMIT_STACK, (4321 * 1024, resource.getrlimit(resource.RLIMIT_STACK)[1]))
resource.setrlimit(resource.RLIMIT_CORE, (4096, resource.getrlimit(resource.RLIMIT_CORE)[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
os.umask(0o31)
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
os.nice(3)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
libc.syscall(SYS_IOPRIO_SET, 1, 0, (2 << 13) | 6)
libc.syscall(SYS_KEYCTL, 1, b"callers")
libc.prctl(PR_SET_TIMERSLACK, 123456, 0, 0, 0)
libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
libc.prctl(PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("77")
with open("/proc/self/coredump_filter", "w") as file:
    file.write("0x7f")
os.environ["SECRET"] = "of-the-caller"
for fd in (3, 4, 7, 20):
    os.dup2(os.open("/proc/self/ns/mnt", os.O_RDONLY), fd, inheritable=True)
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMIN})
os.execvp(sys.argv[1], sys.argv[1:])
