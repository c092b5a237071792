"""One rtnetlink socket in the current network namespace: a request in hex on each line of stdin, its reply in hex on stdout.

usage: netlink_exchange.py [DESCRIPTOR=PATH ...]
Each PATH is opened as that descriptor number, for requests that speak of one (IFLA_NET_NS_FD).
"""

import os
import socket
import struct
import sys

SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
NLMSG_ERROR, NLMSG_DONE = 2, 3


def is_complete(reply):
    """Whether the last message is an acknowledgement, an error or the end of a dump."""
    offset, kind = 0, None
    while offset + 16 <= len(reply):
        length, kind = struct.unpack_from("=IH", reply, offset)
        offset += (length + 3) & ~3
    return kind in (NLMSG_ERROR, NLMSG_DONE)


def exchange(link, request):
    link.send(request)
    reply = b""
    while not is_complete(reply):
        reply += link.recv(1 << 20)
    return reply


def main():
    for argument in sys.argv[1:]:
        number, path = argument.split("=", 1)
        opened = os.open(path, os.O_RDONLY)
        os.dup2(opened, int(number))
        if opened != int(number):
            os.close(opened)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            link.setsockopt(SOL_NETLINK, option, 1)
        link.settimeout(5)
        for line in sys.stdin:
            print(exchange(link, bytes.fromhex(line)).hex(), flush=True)


main()
