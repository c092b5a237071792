"""Stands for a person's terminal, or for an engine that receives one.

terminal.py foreground ROWS COLUMNS INPUT COMMAND...   runs a command on a terminal, types INPUT once it has said "ready"
                                                       (or at once, if INPUT begins with "!"); prints what it wrote
terminal.py socket PATH                                says "listening", takes a terminal's master from the socket,
                                                       prints the message that came with it, then what is written to it
"""
import fcntl, os, pty, select, socket, struct, sys, termios, time


def copy(master, typed, deadline):
    said = b""
    if typed.startswith(b"!"):
        os.write(master, typed[1:])
        typed = b""
    while time.time() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            chunk = os.read(master, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return
        if not chunk:
            return
        said += chunk
        os.write(1, chunk)
        if typed and b"ready" in said:
            os.write(master, typed)
            typed = b""


def foreground(rows, columns, typed, command):
    child, master = pty.fork()
    if child == 0:
        os.read(0, 1)  # until the size is set
        os.execvp(command[0], command)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    before = termios.tcgetattr(master)
    os.write(master, b"\n")
    copy(master, typed, time.time() + 15)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # whoever made the terminal raw must have put it back
    os.write(1, b"\nterminal %s\n" % (b"restored" if termios.tcgetattr(master) == before else b"changed"))
    sys.exit(status)


def receive(path):
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(1)
    server.settimeout(15)
    print("listening", flush=True)
    connection, _ = server.accept()
    message, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
    print("message", message.decode(), len(descriptors), flush=True)
    copy(descriptors[0], b"", time.time() + 15)


if sys.argv[1] == "foreground":
    foreground(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode().decode("unicode_escape").encode(), sys.argv[5:])
else:
    receive(sys.argv[2])
