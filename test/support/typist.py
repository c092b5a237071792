"""A person at a terminal: runs {"command": [...], "rows": n, "columns": n, "keystrokes": [...]} from standard input.

["expect", TEXT] waits until the text has been printed, after what was expected before; ["send", TEXT] types;
["resize", ROWS, COLUMNS] changes the window; ["signal", NAME] goes to the command; ["run", WORDS] runs another.
Prints {"status": n, "output": text}; 128 + n for one that a signal ended.
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

job = json.load(sys.stdin)
deadline = time.monotonic() + 20
output = b""
seen = 0
step = "the beginning"


def resize(rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def pump():
    """Reads what is there; False at the end."""
    global output
    if time.monotonic() > deadline:
        sys.exit(f"in vain at {step}: {output[-2000:]!r}")
    if select.select([master], [], [], 0.2)[0]:
        try:
            data = os.read(master, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        output += data
        return bool(data)
    return True


master, slave = pty.openpty()
resize(job["rows"], job["columns"])
pid = os.fork()
if pid == 0:
    os.close(master)
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for stream in range(3):
        os.dup2(slave, stream)
    os.close(slave)
    os.execvp(job["command"][0], job["command"])
os.close(slave)
for step in job["keystrokes"]:
    verb, *rest = step
    if verb == "expect":
        wanted = rest[0].encode()
        while wanted not in output[seen:]:
            if not pump():
                sys.exit(f"ended at {step}: {output[-2000:]!r}")
        seen = output.index(wanted, seen) + len(wanted)
    elif verb == "send":
        os.write(master, rest[0].encode())
    elif verb == "resize":
        resize(*rest)
    elif verb == "signal":
        os.kill(pid, getattr(signal, rest[0]))
    elif verb == "run":
        subprocess.run(rest[0], stdin=subprocess.DEVNULL, check=True)
step = "the end"
while pump():
    pass
_, status = os.waitpid(pid, 0)
status = os.waitstatus_to_exitcode(status)
print(json.dumps({"status": status if status >= 0 else 128 - status, "output": output.decode(errors="replace")}))
