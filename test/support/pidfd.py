"""Listens on a stream socket, prints what comes and the pid that each descriptor which comes along stands for."""

import json
import re
import socket
import sys

listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
connection, _ = listener.accept()
text, descriptors, _, _ = socket.recv_fds(connection, 64, 4)
pids = []
for descriptor in descriptors:
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as info:
        pids += [int(pid) for pid in re.findall(r"^Pid:\t(-?\d+)$", info.read(), re.M)]
print(json.dumps({"text": text.decode(), "pids": pids}), flush=True)
