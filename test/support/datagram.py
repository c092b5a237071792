"""Listens on a datagram socket as a service manager does: prints each packet as JSON, and how many descriptors came with it."""

import json
import os
import socket
import sys

listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind("\0" + sys.argv[1][1:] if sys.argv[1].startswith("@") else sys.argv[1])
print("ready", flush=True)
for _ in range(int(sys.argv[2])):
    text, descriptors, _, _ = socket.recv_fds(listener, 4096, 4)
    print(json.dumps({"text": text.decode(), "descriptors": len(descriptors)}), flush=True)
    for descriptor in descriptors:
        os.close(descriptor)
