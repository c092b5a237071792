"""A systemd that only listens: speaks D-Bus's wire protocol on a socket, by a codec of its own, writes down what it is
asked (a line of JSON a call), and answers as told.

usage: fake_systemd.py SOCKET LOG CONTROL_GROUP [OUTCOME [broker]]

OUTCOME is of StartTransientUnit: done, failed, exists (a unit of that name, until it is reset),
taken (a unit of that name, which lives), refused, silent.
"broker" wants a Hello before anything else, as a message bus does, and sends signals to who has asked for them.
"""

import json
import os
import socket
import struct
import sys

ALIGN = {"y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8, "d": 8, "s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8, "h": 4}
FORMAT = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I"}


def pad(at, alignment):
    return -at % alignment


def split(signature):
    """The first complete type, and the rest."""
    if signature[0] == "a":
        first, rest = split(signature[1:])
        return "a" + first, rest
    if signature[0] in "({":
        depth = 0
        for i, c in enumerate(signature):
            depth += (c in "({") - (c in ")}")
            if depth == 0:
                return signature[: i + 1], signature[i + 1 :]
    return signature[0], signature[1:]


def types(signature):
    while signature:
        first, signature = split(signature)
        yield first


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        assert self.at + n <= len(self.data), "cut short"
        self.at += n
        return self.data[self.at - n : self.at]

    def align(self, n):
        assert self.take(pad(self.at, n)).strip(b"\0") == b"", "padding is not zero"

    def read(self, t):
        self.align(ALIGN[t[0]])
        if t in FORMAT:
            value = struct.unpack("<" + FORMAT[t], self.take(struct.calcsize(FORMAT[t])))[0]
            if t == "b":
                assert value in (0, 1)
                return bool(value)
            return value
        if t in "so":
            text = self.take(struct.unpack("<I", self.take(4))[0])
            assert self.take(1) == b"\0"
            return text.decode()
        if t == "g":
            text = self.take(self.take(1)[0])
            assert self.take(1) == b"\0"
            return text.decode()
        if t == "v":
            inner = self.read("g")
            return [inner, self.read(inner)]
        if t[0] == "a":
            length = struct.unpack("<I", self.take(4))[0]
            self.align(ALIGN[t[1]])
            end, items = self.at + length, []
            while self.at < end:
                items.append(self.read(t[1:]))
            assert self.at == end, "array does not end where it says"
            return items
        return [self.read(part) for part in types(t[1:-1])]


class Writer:
    def __init__(self):
        self.data = b""

    def align(self, n):
        self.data += b"\0" * pad(len(self.data), n)

    def write(self, t, value):
        self.align(ALIGN[t[0]])
        if t in FORMAT:
            self.data += struct.pack("<" + FORMAT[t], value)
        elif t in "so":
            self.data += struct.pack("<I", len(value)) + value.encode() + b"\0"
        elif t == "g":
            self.data += bytes([len(value)]) + value.encode() + b"\0"
        elif t == "v":
            self.write("g", value[0])
            self.write(value[0], value[1])
        elif t[0] == "a":
            inner = Writer()
            inner.data = self.data + b"\0" * 4
            inner.align(ALIGN[t[1]])
            start = len(inner.data)
            for item in value:
                inner.write(t[1:], item)
            self.data += struct.pack("<I", len(inner.data) - start) + inner.data[len(self.data) + 4 :]
        else:
            for part, item in zip(types(t[1:-1]), value):
                self.write(part, item)


def message(kind, serial, fields, signature="", body=()):
    content = Writer()
    for t, value in zip(types(signature), body):
        content.write(t, value)
    if signature:
        fields = [*fields, [8, ["g", signature]]]
    header = Writer()
    for t, value in zip("yyyyuu", [ord("l"), kind, 0, 1, len(content.data), serial]):
        header.write(t, value)
    header.write("a(yv)", fields)
    header.align(8)
    return header.data + content.data


class Conversation:
    def __init__(self, connection, log, control_group, outcome, broker):
        self.connection, self.log = connection, log
        self.control_group, self.outcome, self.broker = control_group, outcome, broker
        self.buffer, self.serial = b"", 0
        self.greeted, self.watched, self.subscribed = not broker, not broker, False

    def need(self, n):
        while len(self.buffer) < n:
            chunk = self.connection.recv(65536)
            if not chunk:
                raise EOFError
            self.buffer += chunk

    def line(self):
        while b"\r\n" not in self.buffer:
            self.need(len(self.buffer) + 1)
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def authenticate(self):
        self.need(1)
        assert self.buffer[:1] == b"\0", "the first byte is NUL"
        self.buffer = self.buffer[1:]
        # systemd may read a message together with BEGIN, and forgets it then: BEGIN has to come before our answer
        assert [self.line() for _ in range(3)] == [b"AUTH EXTERNAL", b"DATA", b"BEGIN"]
        assert self.buffer == b""
        self.connection.sendall(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n")

    def receive(self):
        self.need(16)
        assert self.buffer[0:1] == b"l" and self.buffer[3] == 1
        body_length, fields_length = struct.unpack("<I", self.buffer[4:8])[0], struct.unpack("<I", self.buffer[12:16])[0]
        header_length = 16 + fields_length + pad(16 + fields_length, 8)
        self.need(header_length + body_length)
        raw, self.buffer = self.buffer[: header_length + body_length], self.buffer[header_length + body_length :]
        reader = Reader(raw)
        _, kind, _, _, _, serial, fields = [reader.read(t) for t in [*"yyyyuu", "a(yv)"]]
        assert kind == 1 and serial > 0
        known = {code: value[1] for code, value in fields}
        body = Reader(raw[header_length:])
        values = [body.read(t) for t in types(known.get(8, ""))]
        assert body.at == body_length
        return serial, known, values

    def send(self, kind, fields, signature="", body=()):
        self.serial += 1
        self.connection.sendall(message(kind, self.serial, fields, signature, body))

    def reply(self, serial, signature="", body=()):
        self.send(2, [[5, ["u", serial]]], signature, body)

    def refuse(self, serial, name, words):
        self.send(3, [[4, ["s", name]], [5, ["u", serial]]], "s", [words])

    def job_removed(self, number, unit, result):
        if not (self.watched and self.subscribed):
            return
        fields = [
            [1, ["o", "/org/freedesktop/systemd1"]],
            [2, ["s", "org.freedesktop.systemd1.Manager"]],
            [3, ["s", "JobRemoved"]],
        ]
        self.send(4, fields, "uoss", [number, f"/org/freedesktop/systemd1/job/{number}", unit, result])

    def run(self):
        self.authenticate()
        while True:
            serial, fields, body = self.receive()
            member, where = fields[3], fields.get(2)
            self.log.write(json.dumps({"member": member, "path": fields[1], "destination": fields.get(6), "body": body}) + "\n")
            self.log.flush()
            if where == "org.freedesktop.DBus":
                self.greeted = True
                self.watched = self.watched or member == "AddMatch"
                self.reply(serial, "s" if member == "Hello" else "", [":1.1"])
                continue
            assert self.greeted, "a broker wants a Hello first"
            self.answer(serial, member, body)

    def answer(self, serial, member, body):
        if member == "Subscribe":
            self.subscribed = True
            self.reply(serial)
        elif member == "Get":
            value = {"Version": "252.39-1~deb12u1", "ControlGroup": self.control_group}[body[1]]
            self.reply(serial, "v", [["s", value]])
        elif member == "StartTransientUnit":
            self.start(serial, body)
        elif member == "StopUnit":
            self.reply(serial, "o", ["/org/freedesktop/systemd1/job/8"])
            self.job_removed(8, body[0], "done")
        elif member == "ResetFailedUnit" and self.outcome not in ("exists", "taken"):
            self.refuse(serial, "org.freedesktop.systemd1.NoSuchUnit", f"Unit {body[0]} not loaded.")
        elif member in ("ResetFailedUnit", "SetUnitProperties"):
            if self.outcome != "taken":
                self.outcome = "done"
            self.reply(serial)
        else:
            self.refuse(serial, "org.freedesktop.DBus.Error.UnknownMethod", member)

    def start(self, serial, body):
        if self.outcome in ("exists", "taken"):
            self.refuse(serial, "org.freedesktop.systemd1.UnitExists", f"Unit {body[0]} already exists.")
            return
        if self.outcome == "refused":
            self.refuse(serial, "org.freedesktop.DBus.Error.PropertyReadOnly", "Cannot set property, or unknown property.")
            return
        # somebody else's job ends first, and ours before its number is known
        self.job_removed(6, "other.service", "failed")
        if self.outcome != "silent":
            self.job_removed(7, body[0], self.outcome)
        self.reply(serial, "o", ["/org/freedesktop/systemd1/job/7"])


def main():
    path, log, control_group, outcome, *more = [*sys.argv[1:], "done"][: max(4, len(sys.argv) - 1)]
    listener = socket.socket(socket.AF_UNIX)
    # under its name only once it listens
    listener.bind(f"{path}.new")
    os.chmod(f"{path}.new", 0o666)
    listener.listen()
    os.rename(f"{path}.new", path)
    print("listening", flush=True)
    with open(log, "a") as file:
        while True:
            connection, _ = listener.accept()
            try:
                Conversation(connection, file, control_group, outcome, "broker" in more).run()
            except EOFError:
                pass
            except Exception as error:
                file.write(json.dumps({"error": repr(error)}) + "\n")
                file.flush()
            connection.close()


main()
