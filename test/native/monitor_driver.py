# SPDX-License-Identifier: Apache-2.0
"""Drives native/monitor for its tests: Node has neither SOCK_SEQPACKET nor SCM_RIGHTS.

monitor_driver.py MONITOR INIT SCENARIO DIRECTORY   prints what the scenario has seen, as JSON.
The expectations are in monitor.test.ts; monitor_init.c is the stand-in for init.
"""

import ctypes
import errno
import hashlib
import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import time

MONITOR, INIT, SCENARIO, DIRECTORY = sys.argv[1:5]
BUSYBOX = "/bin/busybox"

CONTAINER, TERMINAL, PORT, STARTED, ABORT, MEMORY = 1, 2, 3, 4, 5, 6
INIT_STARTED, INIT_EXITED, FAILED, EXITED = 16, 17, 18, 19
SUBSCRIBE, STDIN, STDIN_CLOSE, RESIZE, SIGNAL, CLEANED, UNPUBLISHED = 32, 33, 34, 35, 36, 37, 38
STDOUT, STDERR, STDIN_READY = 48, 49, 50
OUTPUT, EXIT, INPUT, FOREGROUND = 1, 2, 4, 8
ALL = OUTPUT | EXIT | FOREGROUND

HEADER = struct.Struct("<IIQ")
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER, CLONE_NEWNS, MS_REC, MS_PRIVATE = 36, 0x20000, 0x4000, 1 << 18


def send(sock, kind, value=0, extra=0, data=b"", fd=None):
    message = HEADER.pack(kind, value, extra) + data
    if fd is None:
        sock.send(message)
    else:
        socket.send_fds(sock, [message], [fd])


def receive(sock):
    """A (type, value, extra, data), or None at the end of file."""
    while True:
        try:
            message = sock.recv(65536)
        except ConnectionResetError:  # said once if we left something unread; what is queued follows
            continue
        if not message:
            return None
        return (*HEADER.unpack_from(message), message[HEADER.size :])


def path(name):
    return os.path.join(DIRECTORY, name)


def read(name):
    try:
        with open(path(name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def log(name="log"):
    return [json.loads(line) for line in (read(name) or b"").decode().splitlines()]


def record():
    text = read("exit.json")
    return None if text is None else json.loads(text)


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def state(pid):
    """The letter of a process's state and its parent, None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return fields[0], int(fields[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def ended(pid):
    return (state(pid) or "Z")[0] == "Z"


class Container:
    """A started monitor whose container waits for its go."""

    def __init__(self, *command, mode="pipe", flags=(), cleanup=True, init=INIT):
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.init_socket, init_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(20)
        self.init_socket.settimeout(20)
        descriptors = [
            control.fileno(),
            os.open(init, os.O_RDONLY),
            os.open(DIRECTORY, os.O_PATH | os.O_DIRECTORY),
            init_socket.fileno(),
            os.open(BUSYBOX, os.O_PATH),
        ]
        arguments = [MONITOR, *flags, "--init-fds", "1"]
        if cleanup:
            arguments += ["--cleanup-fd", "7"]
        arguments += ["--", "init", mode, *command]
        if cleanup:
            arguments += ["--", "sh", "-c", f"env > {path('cleaned.tmp')}; mv {path('cleaned.tmp')} {path('cleaned')}"]
        starter = os.fork()
        if starter == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as a careless caller may leave it
            high = [os.dup2(fd, 100 + i) for i, fd in enumerate(descriptors)]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i, inheritable=True)
            os.execve(MONITOR, arguments, {**os.environ, "PATH": "/host/bin:/bin"})
        for fd in descriptors[1:3] + descriptors[4:]:
            os.close(fd)
        control.close()
        init_socket.close()
        self.started_status = os.waitpid(starter, 0)[1]
        self.first = receive(self.control)
        self.pid = self.pidfd = None
        if self.first and self.first[0] == INIT_STARTED:
            self.init, self.monitor = self.first[1:3]
        Container.made = self

    made = None

    def learn(self):
        text, fds, _, _ = socket.recv_fds(self.init_socket, 64, 1)
        self.pid = int(text)
        self.pidfd = os.pidfd_open(self.pid)
        self.terminal = fds[0] if fds else None
        return self

    def announce(self):
        send(self.control, CONTAINER, self.pid, fd=self.pidfd)
        if self.terminal is not None:
            send(self.control, TERMINAL, fd=self.terminal)
            os.close(self.terminal)
        return self

    def go(self):
        self.init_socket.send(b"!")
        return self

    def start(self):
        """All of a creator's duties, in the order that real life has them."""
        self.learn().announce().go()
        send(self.control, STARTED)
        return self

    def ended(self, seconds=15):
        """The monitor's exit status; it is our child since we are the subreaper."""
        status = []

        def reaped():
            pid, wait_status = os.waitpid(self.monitor, os.WNOHANG)
            status.append(os.waitstatus_to_exitcode(wait_status))
            return pid != 0

        return status[-1] if until(reaped, seconds) else "still running"

    def messages(self):
        """What the control socket still holds, until the monitor's end, as (type, value)."""
        seen = []
        while (message := receive(self.control)) is not None:
            seen.append([message[0], message[1]])
        return seen


class Client:
    def __init__(self, mask=ALL):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.socket.connect(path("attach.sock"))
        self.out, self.err, self.status = b"", b"", None
        self.credit = False
        try:
            send(self.socket, SUBSCRIBE, mask)
        except (BrokenPipeError, ConnectionResetError):
            pass  # turned away already, which take() will say

    def take(self):
        """One message; its type, None at the end of file."""
        message = receive(self.socket)
        if message is None:
            return None
        kind, value, _, data = message
        if kind == STDOUT:
            self.out += data
        elif kind == STDERR:
            self.err += data
        elif kind == STDIN_READY:
            self.credit = True
        elif kind == EXITED:
            self.status = value
        return kind

    def read_until(self, condition):
        while not condition(self) and self.take() is not None:
            pass
        return self

    def finish(self, cleaned=True):
        self.read_until(lambda c: c.status is not None)
        if cleaned:
            send(self.socket, CLEANED)
        return self

    def feed(self, data, close=True):
        """Send input at the pace that the container takes it, collecting output meanwhile."""
        for start in range(0, len(data), 32768):
            self.read_until(lambda c: c.credit)
            self.credit = False
            send(self.socket, STDIN, data=data[start : start + 32768])
        if close:
            send(self.socket, STDIN_CLOSE)


def shell(script, **options):
    return Container(BUSYBOX, "sh", "-c", script, **options)


def digest(data):
    return hashlib.sha256(data).hexdigest()


# Scenarios. Each gives a dictionary.


def output():
    container = shell(r"""echo out; echo err >&2; printf 'a\377\001\t"\\<é\342\200\250'; exit 3""")
    mode = stat.S_IMODE(os.stat(path("attach.sock")).st_mode)
    client = Client()
    container.start()
    client.finish()
    status = container.ended()
    return {
        "starter": container.started_status,
        "mode": oct(mode),
        "out": client.out.decode("latin-1"),
        "err": client.err.decode(),
        "status": client.status,
        "messages": sorted(container.messages()),
        "monitor": status,
        "log": [[entry["log"], entry["stream"]] for entry in log()],
        "raw": read("log").decode(),
        "record": record(),
        "pid": container.pid,
        "now": time.time(),
        "files": sorted(os.listdir(DIRECTORY)),
    }


def killed():
    container = shell("kill -9 $$")
    client = Client()
    container.start()
    client.finish()
    container.ended()
    return {"status": client.status, "record": record()}


def memory():
    """What the cgroup's file says at the end, and not what it said when it was handed over."""
    seen = []
    for before, after in [
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        ("low 0\nhigh 0\nmax 9\noom 2\noom_kill 0\noom_group_kill 0\n",) * 2,
        ("low 0\nhigh 0\nmax 9\noom 2\noom_kill 12\noom_group_kill 0\n",) * 2,
    ]:
        with open(path("counts"), "w") as file:
            file.write(before)
        container = shell("read line", flags=["--stdin"]).learn().announce().go()
        with open(path("counts")) as file:
            send(container.control, MEMORY, fd=file.fileno())
        send(container.control, STARTED)
        client = Client(ALL | INPUT)
        client.read_until(lambda c: c.credit)
        with open(path("counts"), "w") as file:
            file.write(after)
        send(client.socket, STDIN, data=b"\n")
        client.finish()
        container.ended()
        seen.append(record()["oomKilled"])
    return seen


def signalled():
    container = shell("trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done")
    client = Client()
    container.start()
    client.read_until(lambda c: b"ready" in c.out)
    send(client.socket, SIGNAL, signal.SIGUSR1)
    client.finish()
    container.ended()
    return {"status": client.status >> 8}


def terminated():
    container = shell("trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done")
    client = Client()
    container.start()
    client.read_until(lambda c: b"ready" in c.out)
    os.kill(container.monitor, signal.SIGTERM)
    client.finish()
    return {"status": client.status >> 8, "monitor": container.ended()}


def early():
    container = shell("echo soon; exit 9").learn().go()
    client = Client()
    gone = until(lambda: state(container.pid) is None)
    container.announce()
    while (message := receive(container.control))[0] != EXITED:
        pass
    no_record = record() is None
    send(container.control, STARTED)
    client.finish()
    container.ended()
    return {
        "gone": gone,
        "told": message[1] >> 8,
        "noRecord": no_record,
        "out": client.out.decode(),
        "record": record()["status"],
    }


def first():
    """The monitor finds subscription, STARTED, output and exit all at once."""
    container = shell("echo first").learn().announce()
    os.kill(container.monitor, signal.SIGSTOP)
    container.go()
    until(lambda: ended(container.pid))
    client = Client()
    send(container.control, STARTED)
    os.kill(container.monitor, signal.SIGCONT)
    client.finish()
    return {"out": client.out.decode(), "monitor": container.ended()}


def stdin():
    container = shell("cat; echo end", flags=["--stdin"])
    client = Client(ALL | INPUT)
    container.start()
    data = os.urandom(1 << 20)
    client.feed(data)
    client.finish()
    return {"same": client.out == data + b"end\n", "monitor": container.ended()}


def eager():
    """Input nobody reads, sent without waiting for STDIN_READY, by a client that is then killed."""
    container = shell("sleep 0.5; cat", flags=["--stdin"])
    client = Client()
    writer = Client(0)
    container.start()
    data = os.urandom(150_000)
    for start in range(0, len(data), 30_000):
        send(writer.socket, STDIN, data=data[start : start + 30_000])
    send(writer.socket, STDIN_CLOSE)
    writer.socket.close()
    client.finish()
    return {"same": client.out == data, "monitor": container.ended()}


def heldsignal():
    """A client with credit can send signals while the container reads nothing."""
    container = shell("echo ready; sleep 20", flags=["--stdin"])
    client = Client(ALL | INPUT)
    container.start()
    client.feed(b"x" * 65536, close=False)
    client.read_until(lambda c: b"ready" in c.out)
    time.sleep(0.1)
    send(client.socket, SIGNAL, signal.SIGKILL)
    client.finish()
    return {"status": client.status, "monitor": container.ended()}


def nostdin():
    container = shell("cat; echo end")
    client = Client(ALL | INPUT)
    container.start()
    send(client.socket, STDIN, data=b"ignored")
    client.finish()
    container.ended()
    return {"out": client.out.decode()}


def clients():
    container = shell("echo one; echo err >&2; read line; echo two", flags=["--stdin"])
    foreground, other, exit_only = Client(), Client(OUTPUT | EXIT), Client(EXIT)
    container.start()
    for client in (foreground, other):
        client.read_until(lambda c: b"one" in c.out and b"err" in c.err)
    late = Client(OUTPUT | EXIT | INPUT)
    late.feed(b"\n")
    for client in (other, late, exit_only):
        client.finish(cleaned=False)
    foreground.finish()
    return {
        "out": [client.out.decode() for client in (foreground, other, late, exit_only)],
        "err": [client.err.decode() for client in (foreground, other, late, exit_only)],
        "status": [client.status for client in (foreground, other, late, exit_only)],
        "monitor": container.ended(),
        "cleaned": read("cleaned") is not None,
    }


def crowd():
    container = shell("read line", flags=["--stdin"])
    container.start()
    many = [Client(EXIT) for _ in range(18)]
    first = many[0]
    kinds = [client.take() for client in many[16:]]
    send(first.socket, STDIN, data=b"\n")
    return {"tooMany": kinds, "others": [client.take() for client in many[:16]], "monitor": container.ended()}


def clientkilled():
    container = shell("echo ready; sleep 0.3; echo unseen; exit 4")
    client = Client()
    container.start()
    client.read_until(lambda c: b"ready" in c.out)
    # both leave; the creator with messages unread
    client.socket.close()
    container.control.close()
    status = container.ended()
    return {
        "monitor": status,
        "record": record()["status"],
        "log": [entry["log"] for entry in log()],
        "cleaned": (read("cleaned") or b"").decode(),
        "files": sorted(os.listdir(DIRECTORY)),
    }


def exitunclean():
    """The client sees the exit, and dies before it has cleaned up."""
    container = shell("exit 4")
    client = Client()
    container.start()
    client.finish(cleaned=False)
    before = read("cleaned") is not None
    client.socket.close()
    return {"before": before, "monitor": container.ended(), "cleaned": read("cleaned") is not None}


def unread():
    """A creator that reads nothing, says STARTED, and leaves."""
    container = shell("sleep 0.2; exit 8")
    container.start()
    until(lambda: state(container.init) is None)
    container.control.close()
    return {"monitor": container.ended(), "record": (record() or {}).get("status")}


def creatorkilled():
    container = shell("sleep 60").learn()
    client = Client()
    container.announce()
    until(lambda: state(container.init) is None)
    alive = state(container.pid) is not None
    container.control.close()
    kind = client.take()
    return {
        "alive": alive,
        "client": kind,
        "monitor": container.ended(),
        "container": state(container.pid),
        "record": record(),
        "cleaned": read("cleaned") is not None,
        "files": sorted(os.listdir(DIRECTORY)),
    }


def creatorkilledearly():
    """The creator dies between the clone and its announcement, and the container has a child."""
    container = shell("sleep 60 & echo $! >&2; sleep 60", mode="orphan").learn()
    container.go()
    time.sleep(0.2)
    with open(f"/proc/{container.pid}/task/{container.pid}/children") as file:
        children = [int(pid) for pid in file.read().split()]
    container.control.close()
    status = container.ended()
    return {
        "children": len(children),
        "monitor": status,
        "left": [state(pid) for pid in [container.pid, *children]],
        "cleaned": read("cleaned") is not None,
    }


def abort():
    container = shell("sleep 60").learn().announce()
    send(container.control, ABORT)
    return {
        "monitor": container.ended(),
        "container": state(container.pid),
        "record": record(),
        "cleaned": read("cleaned") is not None,
        "files": sorted(os.listdir(DIRECTORY)),
    }


def big():
    container = shell("awk 'BEGIN { for (i = 0; i < 200000; i++) printf \"%099d\\n\", i }'; echo done >&2")
    client = Client()
    container.start()
    chunks = []
    while client.status is None:
        kind = client.take()
        assert kind is not None
        if len(chunks) == 20:
            time.sleep(0.3)  # a slow terminal
        chunks.append(client.out)
        client.out = b""
    send(client.socket, CLEANED)
    expected = "".join(f"{i:099}\n" for i in range(200_000)).encode()
    data = b"".join(chunks)
    monitor = container.ended()
    logged = "".join(entry["log"] for entry in log() if entry["stream"] == "stdout").encode()
    return {
        "size": len(data),
        "same": digest(data) == digest(expected),
        "logged": digest(logged) == digest(expected),
        "err": client.err.decode(),
        "monitor": monitor,
    }


def stuck():
    """A client that reads nothing costs the foreground nothing but time."""
    container = shell("head -c 2000000 /dev/zero")
    client, other = Client(), Client(OUTPUT | EXIT)
    container.start()
    start = time.monotonic()
    client.finish()
    seconds = time.monotonic() - start
    other.read_until(lambda c: c.status is not None)
    return {
        "size": len(client.out),
        "bounded": seconds < 8,
        "dropped": other.status is None and 0 < len(other.out) < 2_000_000,
        "monitor": container.ended(),
    }


def paused():
    """A foreground client that does not read for a while delays neither the record nor the news to others."""
    container = shell("while :; do echo more; done")
    client, other = Client(), Client(EXIT)
    container.start()
    until(lambda: state(container.pid)[0] == "S")  # all buffers are full
    send(other.socket, SIGNAL, signal.SIGKILL)
    other.finish(cleaned=False)
    recorded = record() is not None
    undelivered = client.status is None
    client.finish()
    return {
        "recorded": recorded,
        "undelivered": undelivered,
        "other": other.status,
        "monitor": container.ended(),
        "complete": client.out.decode() == "".join(entry["log"] for entry in log()) != "",
    }


def rotation():
    container = shell("seq 1 500", flags=["--log-max", "4096"])
    client = Client()
    container.start()
    client.finish()
    container.ended()
    numbers = [int(entry["log"]) for entry in log("log.1") + log("log")]
    return {
        "sizes": [len(read("log.1")), len(read("log"))],
        "contiguous": numbers == list(range(numbers[0], 501)),
        "files": sorted(os.listdir(DIRECTORY)),
    }


def longline():
    # the two-byte character lies across the border of the first record
    container = shell("head -c 16383 /dev/zero | tr '\\0' x; printf 'é'; head -c 20000 /dev/zero | tr '\\0' y; echo")
    client = Client()
    container.start()
    client.finish()
    container.ended()
    entries = [entry["log"] for entry in log()]
    return {"sizes": [len(entry) for entry in entries], "second": entries[1][:2], "last": entries[-1][-2:]}


def diskfull():
    if LIBC.unshare(CLONE_NEWNS) != 0 or LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    # gone with this process and its mount namespace
    if LIBC.mount(b"tmpfs", DIRECTORY.encode(), b"tmpfs", 0, b"size=256k") != 0:
        raise OSError(ctypes.get_errno(), "mount")
    container = shell("seq 1 200000; echo done >&2; read line; seq 1 10; echo more", flags=["--stdin"])
    client = Client(ALL | INPUT)
    container.start()
    client.read_until(lambda c: b"done" in c.err)
    whole = all(line.endswith(b"}\n") for line in read("log").splitlines(keepends=True))
    os.truncate(path("log"), 0)
    client.feed(b"\n")
    client.finish()
    container.ended()
    dropped = record()["logRecordsDropped"]
    return {"lines": client.out.count(b"\n"), "whole": whole, "dropped": dropped > 0, "last": log()[-1]["log"]}


def terminal():
    container = shell(
        "stty -echo; echo ready; read line; echo got $line; stty size; exec </dev/null >/dev/null 2>&1;"
        "sleep 0.3; echo back > /dev/tty; exit 2",
        mode="tty",
        flags=["--tty", "--stdin"],
    )
    client = Client(ALL | INPUT)
    send(client.socket, RESIZE, 11, 22)  # before the terminal has come
    container.start()
    client.read_until(lambda c: b"ready" in c.out)
    send(client.socket, RESIZE, 33, 77)
    client.feed(b"words\n", close=False)
    client.finish()
    return {
        "out": client.out.decode(),
        "status": client.status >> 8,
        "monitor": container.ended(),
        "log": [[entry["log"], entry["stream"]] for entry in log()],
    }


def firstsize():
    container = shell("stty size", mode="tty", flags=["--tty"])
    client, sizer = Client(), Client(0)
    send(sizer.socket, RESIZE, 11, 22)
    send(sizer.socket, UNPUBLISHED)
    while sizer.take() is not None:  # from here the monitor has read the size
        pass
    container.learn()
    master = os.dup(container.terminal)
    container.announce()
    assert until(lambda: termios.tcgetwinsize(master) == (11, 22))
    os.close(master)
    container.go()
    send(container.control, STARTED)
    client.finish()
    container.ended()
    return {"out": client.out.decode()}


def orphans():
    """Processes whose parents are gone become the monitor's, which reaps them."""
    container = shell("read line", mode="orphan", flags=["--stdin"])
    client = Client(ALL | INPUT)
    container.start()

    def children():
        with open(f"/proc/{container.monitor}/task/{container.monitor}/children") as file:
            return [int(pid) for pid in file.read().split()]

    adopted = until(lambda: len(children()) == 2)
    reaped = until(lambda: children() == [container.pid])
    client.feed(b"\n")
    client.finish()
    return {"adopted": adopted, "reaped": reaped, "monitor": container.ended()}


def unpublished():
    """A client that has taken the rules away can have the ports before the clean-up has ended, and not while it runs."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    number = sock.getsockname()[1]

    def bind():
        with socket.socket() as other:
            try:
                other.bind(("127.0.0.1", number))
            except OSError as error:
                return errno.errorcode[error.errno]
            return "bound"

    container = shell("read line", flags=["--stdin"]).learn().announce().go()
    send(container.control, PORT, fd=sock.fileno())
    send(container.control, STARTED)
    sock.close()
    client, hasty = Client(ALL | INPUT), Client(EXIT)
    client.read_until(lambda c: c.credit)
    send(hasty.socket, UNPUBLISHED)
    while hasty.take() is not None:
        pass
    running = bind()
    witness = Client(EXIT | FOREGROUND)
    send(client.socket, STDIN, data=b"\n")
    client.finish(cleaned=False)
    send(client.socket, UNPUBLISHED)
    while client.take() is not None:
        pass
    exited = bind()
    send(witness.socket, CLEANED)
    return {"running": running, "exited": exited, "monitor": container.ended()}


def ports():
    def bind(number):
        sock = socket.socket()
        try:
            sock.bind(("127.0.0.1", number))
        except OSError as error:
            return None, errno.errorcode[error.errno]
        return sock, "bound"

    sock, _ = bind(0)
    sock.listen()
    number = sock.getsockname()[1]
    container = shell("read line", flags=["--stdin"]).learn().announce().go()
    send(container.control, PORT, fd=sock.fileno())
    send(container.control, STARTED)
    sock.close()
    client = Client(ALL | INPUT)
    client.read_until(lambda c: c.credit)
    running = bind(number)[1]
    send(client.socket, STDIN, data=b"\n")
    client.finish(cleaned=False)
    exited = bind(number)[1]
    send(client.socket, CLEANED)
    monitor = container.ended()
    return {"running": running, "exited": exited, "after": bind(number)[1], "monitor": monitor}


def manyports():
    container = shell("exit 0").learn().announce().go()
    sockets = [socket.socket() for _ in range(130)]
    for sock in sockets:
        send(container.control, PORT, fd=sock.fileno())
    send(container.control, STARTED)
    refused = [value for kind, value in container.messages() if kind == FAILED]
    return {"refused": [errno.errorcode[value] for value in refused], "monitor": container.ended()}


def background():
    """A process of the container that holds the pipes, and writes on, does not hold the monitor."""
    container = shell("(while :; do echo on; done) & echo $! >&2; exit 1")
    client = Client()
    container.start()
    client.finish()
    monitor = container.ended()
    # it writes to a pipe without a reader now
    return {"status": client.status >> 8, "monitor": monitor, "left": not until(lambda: ended(int(client.err)))}


def closed():
    """A container that has closed its streams costs no time."""
    container = shell("exec <&- >&- 2>&-; sleep 1")
    client = Client()
    container.start()
    client.finish()
    with open(f"/proc/{container.monitor}/stat") as file:
        ticks = sum(int(field) for field in file.read().rsplit(")", 1)[1].split()[11:13])
    container.ended()
    return {"status": client.status, "idle": ticks < 20}


def hangup():
    """Nobody has the terminal open for a second: no time is spent on waiting."""
    container = shell("exec <&- >&- 2>&-; sleep 1", mode="tty", flags=["--tty"])
    client = Client(OUTPUT | EXIT)
    container.start()
    time.sleep(0.8)
    with open(f"/proc/{container.monitor}/stat") as file:
        ticks = sum(int(field) for field in file.read().rsplit(")", 1)[1].split()[11:13])
    client.finish(cleaned=False)
    return {"status": client.status, "idle": ticks < 20, "monitor": container.ended()}


def usage():
    """Exit statuses for arguments that make no sense."""
    words = [[], ["--"], ["--init-fds", "0"], ["--init-fds", "x", "--", "a"], ["--nonsense", "--", "a"],
             ["--init-fds", "0", "--cleanup-fd", "6", "--", "a"], ["--init-fds", "0", "--", "a", "--", "b"],
             ["--init-fds", "2", "--cleanup-fd", "7", "--", "a", "--", "b"], ["--log-max"]]
    return {"statuses": [subprocess.run([MONITOR, *arguments]).returncode for arguments in words]}


def badinit():
    with open(path("text"), "w") as file:
        file.write("no program")
    container = Container("-", init=path("text"))
    messages = [container.first[:3] if container.first[0] == FAILED else None, receive(container.control)]
    failed = next(m for m in [container.first, *messages] if m and m[0] == FAILED)
    started = next(m for m in [container.first, *messages] if m and m[0] == INIT_STARTED)
    exited = receive(container.control)
    container.monitor = started[2]
    send(container.control, ABORT)
    return {
        "failed": [errno.errorcode[failed[1]], failed[2]],
        "exited": [exited[0], exited[1] >> 8],
        "monitor": container.ended(),
    }


def nonsense():
    """Messages that cannot be obeyed are refused, and nothing leaks or breaks."""
    container = shell("exit 0")
    client, other = Client(), Client(EXIT)
    send(container.control, STARTED)
    send(container.control, CONTAINER, 1)
    send(container.control, 99)
    container.control.send(b"short")
    read_end, write_end = os.pipe()
    socket.send_fds(container.control, [HEADER.pack(ABORT + 60, 0, 0)], [write_end] * 8)
    os.close(write_end)
    leaked = select.select([read_end], [], [], 5)[0] == []
    send(other.socket, 77)
    dropped = other.take()
    container.start()
    client.finish()
    refused = [errno.errorcode[value] for kind, value in container.messages() if kind == FAILED]
    return {"refused": refused, "leaked": leaked, "dropped": dropped, "monitor": container.ended()}


def give_up(*_):
    raise TimeoutError("the scenario hangs")


def main():
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(40)
    try:
        print(json.dumps(globals()[SCENARIO]()))
    finally:
        # a scenario that failed leaves nothing behind: without its container and our sockets the monitor ends
        if Container.made and Container.made.pidfd:
            try:
                signal.pidfd_send_signal(Container.made.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass


main()
