"""As much of CoAP (RFC 7252, block-wise RFC 7959) as a client needs, over any datagram channel."""

import os
import random
import socket
import time

CON, NON, ACK, RST = range(4)
GET, POST, PUT, DELETE, FETCH = 1, 2, 3, 4, 5
URI_HOST, ETAG, OBSERVE, LOCATION, URI_PATH, CONTENT_FORMAT, MAX_AGE, URI_QUERY, ACCEPT = 3, 4, 6, 8, 11, 12, 14, 15, 17
BLOCK2, BLOCK1, SIZE2 = 23, 27, 28


def dotted(code):
    return f"{code >> 5}.{code & 31:02}"


def number(n):
    return n.to_bytes((n.bit_length() + 7) // 8, "big")


def encode(kind, code, mid, token, options, payload):
    out, before = bytes([0x40 | kind << 4 | len(token), code]) + mid.to_bytes(2, "big") + token, 0
    for option, value in sorted(options, key=lambda pair: pair[0]):
        nibbles, extra = [], b""
        for n in (option - before, len(value)):
            if n < 13:
                nibbles.append(n)
            elif n < 269:
                nibbles.append(13)
                extra += bytes([n - 13])
            else:
                nibbles.append(14)
                extra += (n - 269).to_bytes(2, "big")
        out += bytes([nibbles[0] << 4 | nibbles[1]]) + extra + value
        before = option
    return out + (b"\xff" + payload if payload else b"")


class Message:
    def __init__(self, octets):
        self.kind, length, self.code = octets[0] >> 4 & 3, octets[0] & 15, octets[1]
        self.mid, self.token = int.from_bytes(octets[2:4], "big"), octets[4 : 4 + length]
        at, option, self.options, self.payload = 4 + length, 0, [], b""
        while at < len(octets):
            if octets[at] == 0xFF:
                self.payload = octets[at + 1 :]
                break
            nibbles, at = (octets[at] >> 4, octets[at] & 15), at + 1
            values = []
            for nibble in nibbles:
                if nibble == 13:
                    nibble, at = octets[at] + 13, at + 1
                elif nibble == 14:
                    nibble, at = int.from_bytes(octets[at : at + 2], "big") + 269, at + 2
                values.append(nibble)
            option += values[0]
            self.options.append((option, octets[at : at + values[1]]))
            at += values[1]

    def option(self, wanted):
        return next((value for option, value in self.options if option == wanted), None)


class Udp:
    def __init__(self, host, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((host, port))

    def send(self, octets):
        self.socket.send(octets)

    def receive(self, seconds):
        self.socket.settimeout(max(0.01, seconds))
        try:
            return self.socket.recv(65535)
        except (TimeoutError, ConnectionRefusedError):
            return None

    def close(self):
        self.socket.close()


class Client:
    """One request at a time."""

    def __init__(self, channel):
        self.channel = channel
        self.mid = random.randrange(65536)

    def exchange(self, code, options, payload):
        self.mid = (self.mid + 1) & 0xFFFF
        token = os.urandom(4)
        request = encode(CON, code, self.mid, token, options, payload)
        wait, last = 2.0, time.monotonic() + 30
        again = 0.0
        acknowledged = False
        while time.monotonic() < last:
            if not acknowledged and time.monotonic() >= again:
                self.channel.send(request)
                again, wait = time.monotonic() + wait, wait * 2
            octets = self.channel.receive(min(last, last if acknowledged else again) - time.monotonic())
            if octets is None or len(octets) < 4:
                continue
            message = Message(octets)
            if message.code == 0:
                if message.mid == self.mid and message.kind == RST:
                    raise ConnectionError("reset")
                acknowledged = acknowledged or message.mid == self.mid
                continue
            if message.kind == CON:
                self.channel.send(encode(ACK, 0, message.mid, b"", [], b""))
            if message.token == token:
                return message
        raise TimeoutError("no answer")

    def request(self, code, path, payload=b"", query=(), content_format=None, accept=None):
        options = [(URI_PATH, segment.encode()) for segment in path]
        options += [(URI_QUERY, item.encode()) for item in query]
        if content_format is not None:
            options.append((CONTENT_FORMAT, number(content_format)))
        if accept is not None:
            options.append((ACCEPT, number(accept)))
        answer = self.upload(code, options, payload)
        body, block = answer.payload, answer.option(BLOCK2)
        first, etag = answer, answer.option(ETAG)
        while block is not None and int.from_bytes(block, "big") & 8:
            value = int.from_bytes(block, "big")
            value = (((value >> 4) + 1) << 4) | (value & 7)
            keep = [o for o in options if o[0] != BLOCK1]
            answer = self.exchange(code, [*keep, (BLOCK2, number(value))], b"" if code != FETCH else payload)
            if answer.code >> 5 != 2 or answer.option(ETAG) != etag:
                raise ConnectionError("changed while it was fetched")
            body, block = body + answer.payload, answer.option(BLOCK2)
        first.payload = body
        return first

    def upload(self, code, options, payload):
        if len(payload) <= 1024:
            return self.exchange(code, options, payload)
        at = 0
        while True:
            more = at + 1024 < len(payload)
            block = (BLOCK1, number((at // 1024) << 4 | (8 if more else 0) | 6))
            answer = self.exchange(code, [*options, block], payload[at : at + 1024])
            if not more or answer.code != 0x5F:
                return answer
            at += 1024
