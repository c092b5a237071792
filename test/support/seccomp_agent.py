"""An agent for seccomp notifications: seccomp_agent.py SOCKET CONNECTIONS ERRNO

Listens on SOCKET, and prints a line of JSON for each thing that happens: {"ready"}, a connection's container process
state with the number of descriptors and bytes after it, and a notification's system call. Each call is answered with
ERRNO, or with the value 4242 where ERRNO is 0. Ends when the filters of CONNECTIONS connections have nobody left.
"""

import array
import fcntl
import json
import os
import select
import socket
import struct
import sys

NOTIF_RECV = 0xC0502100
NOTIF_SEND = 0xC0182101


def say(**what):
    print(json.dumps(what), flush=True)


def receive(connection):
    data, rights, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(64))
    descriptors = array.array("i")
    for _, _, content in rights:
        descriptors.frombytes(content[: len(content) - len(content) % 4])
    rest = b"".join(iter(lambda: connection.recv(4096), b""))
    say(state=json.loads(data + rest), descriptors=len(descriptors))
    return list(descriptors)


def answer(listener, errno):
    request = bytearray(80)
    fcntl.ioctl(listener, NOTIF_RECV, request)
    identity, pid, _, number = struct.unpack_from("=QIIi", request)
    say(pid=pid, call=number)
    fcntl.ioctl(listener, NOTIF_SEND, struct.pack("=QqiI", identity, 0 if errno else 4242, -errno, 0))


path, connections, errno = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(path)
server.listen()
say(ready=True)
poll = select.poll()
poll.register(server, select.POLLIN)
ended = 0
while ended < connections:
    for ready, events in poll.poll():
        if ready == server.fileno():
            connection, _ = server.accept()
            for descriptor in receive(connection):
                poll.register(descriptor, select.POLLIN)
            connection.close()
        elif events & select.POLLIN:
            answer(ready, errno)
        else:
            poll.unregister(ready)
            os.close(ready)
            ended += 1
