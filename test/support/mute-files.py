"""A file system that answers no look-up: mute-files.py DIRECTORY ASKED

It is mounted in a mount namespace of its own. Whoever looks for a file in it waits in the kernel, and from being killed
on in state D, until this program ends. ASKED is made when it waits for look-ups, and removed when one has come.
"""

import ctypes
import os
import struct
import sys

directory, asked = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


MS_REC, MS_PRIVATE, CLONE_NEWNS = 0x4000, 1 << 18, 0x20000
check(libc.unshare(CLONE_NEWNS))
check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
check(libc.mount(b"mute", directory.encode(), b"fuse", 0, options.encode()))

LOOKUP, FORGET, GETATTR, INIT, INTERRUPT = 1, 2, 3, 26, 36
ENOSYS = 38
ATTRIBUTES = struct.pack("<QII6Q3I7I", 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
while True:
    request = os.read(device, 1 << 17)
    _, opcode, unique = struct.unpack_from("<IIQ", request)
    if opcode == LOOKUP:
        os.unlink(asked)
    if opcode in (LOOKUP, FORGET, INTERRUPT):
        continue
    error, body = 0, b""
    if opcode == INIT:
        body = struct.pack("<4I2H2I2H8I", 7, 31, 65536, 0, 1, 1, 4096, 1, 1, 0, *[0] * 8)
    elif opcode == GETATTR:
        body = ATTRIBUTES
    else:
        error = -ENOSYS
    os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)
    if opcode == INIT:
        open(asked, "w").close()
