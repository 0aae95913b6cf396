"""CBOR in the one form that §2.2 allows, and the lenient reading of plaintexts."""

import math
import struct

from .errors import ProtocolError, need

MAX_OCTETS = 65536
MAX_DEPTH = 16
TAGS = (16, 17, 18, 61)


class Tag:
    __slots__ = ("number", "value")

    def __init__(self, number, value):
        self.number = number
        self.value = value

    def __eq__(self, other):
        return isinstance(other, Tag) and (self.number, self.value) == (other.number, other.value)

    def __repr__(self):
        return f"Tag({self.number}, {self.value!r})"


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << (8 * size):
            return bytes([major << 5 | info]) + n.to_bytes(size, "big")
    raise ProtocolError("cbor/unencodable", "an integer beyond 64 bits")


def half(value):
    try:
        return struct.pack(">e", value)
    except OverflowError:
        return None


def single(value):
    try:
        return struct.pack(">f", value)
    except OverflowError:
        return None


def encode_float(value):
    need(math.isfinite(value), "cbor/unencodable", "NaN or an infinity")
    if value == int(value):
        need(abs(value) < 2**53, "cbor/unencodable", "a whole number beyond 2^53")
        return encode(int(value))
    for first, packed, form in ((0xF9, half(value), ">e"), (0xFA, single(value), ">f")):
        if packed is not None and struct.unpack(form, packed)[0] == value:
            return bytes([first]) + packed
    return b"\xfb" + struct.pack(">d", value)


def encode(value):
    if value is False:
        return b"\xf4"
    if value is True:
        return b"\xf5"
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return encode_float(value)
    if isinstance(value, (bytes, bytearray)):
        return head(2, len(value)) + bytes(value)
    if isinstance(value, str):
        octets = value.encode()
        return head(3, len(octets)) + octets
    if isinstance(value, (list, tuple)):
        return head(4, len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict):
        pairs = sorted((encode(key), encode(item)) for key, item in value.items())
        return head(5, len(pairs)) + b"".join(key + item for key, item in pairs)
    if isinstance(value, Tag):
        return head(6, value.number) + encode(value.value)
    raise ProtocolError("cbor/unencodable", repr(type(value)))


class Reader:
    """`strict` reads the form of §2.2; otherwise widths of numbers and the order of map keys are free."""

    def __init__(self, octets, strict):
        self.octets = octets
        self.at = 0
        self.strict = strict

    def take(self, n):
        need(self.at + n <= len(self.octets), "cbor/malformed", "truncated")
        piece = self.octets[self.at : self.at + n]
        self.at += n
        return piece

    def argument(self, info):
        if info < 24:
            return info
        need(info != 31, "cbor/unsupported", "indefinite length")
        need(info < 28, "cbor/malformed", "reserved additional information")
        size = 1 << (info - 24)
        n = int.from_bytes(self.take(size), "big")
        shortest = n >= 24 if size == 1 else n >= 1 << (8 * size // 2)
        need(shortest or not self.strict, "cbor/not-canonical", "not the shortest form")
        return n

    def item(self, depth):
        need(depth <= MAX_DEPTH, "cbor/too-deep")
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if major == 7:
            return self.simple(info)
        n = self.argument(info)
        if major == 0:
            return n
        if major == 1:
            return -1 - n
        if major == 2:
            return bytes(self.take(n))
        if major == 3:
            try:
                text = self.take(n).decode("utf-8", "strict")
            except UnicodeDecodeError:
                raise ProtocolError("cbor/malformed", "text is not UTF-8") from None
            need(not text.startswith("\ufeff"), "cbor/unsupported", "byte order mark")
            return text
        if major == 4:
            need(n <= len(self.octets) - self.at, "cbor/malformed", "longer than its octets")
            return [self.item(depth + 1) for _ in range(n)]
        if major == 5:
            return self.map(n, depth)
        need(n in TAGS, "cbor/unsupported", f"tag {n}")
        return Tag(n, self.item(depth + 1))

    def map(self, n, depth):
        need(2 * n <= len(self.octets) - self.at, "cbor/malformed", "longer than its octets")
        result, before = {}, None
        for _ in range(n):
            start = self.at
            need(start < len(self.octets), "cbor/malformed", "truncated")
            need(self.octets[start] >> 5 <= 3, "cbor/unsupported", "map key of this kind")
            key = self.item(depth + 1)
            encoded = self.octets[start : self.at]
            twice = encoded == before if self.strict else key in result
            need(not twice, "cbor/malformed", "a key twice")
            need(not self.strict or before is None or before < encoded, "cbor/not-canonical", "order of map keys")
            before = encoded
            result[key] = self.item(depth + 1)
        return result

    def simple(self, info):
        if info in (20, 21):
            return info == 21
        if info == 22:
            return None
        need(info not in (28, 29, 30), "cbor/malformed", "reserved additional information")
        octets = self.take({24: 1, 25: 2, 26: 4, 27: 8}.get(info, 0))
        need(info in (25, 26, 27), "cbor/unsupported", "simple value")
        value = struct.unpack({25: ">e", 26: ">f", 27: ">d"}[info], octets)[0]
        need(math.isfinite(value), "cbor/unsupported", "NaN or an infinity")
        if self.strict:
            need(value != int(value), "cbor/not-canonical", "a whole number as float")
            need(encode_float(value) == bytes([0xE0 | info]) + octets, "cbor/not-canonical", "width of a float")
        return value


def decode(octets, strict=True):
    need(len(octets) <= MAX_OCTETS, "cbor/too-large")
    reader = Reader(bytes(octets), strict)
    value = reader.item(0)
    need(reader.at == len(octets), "cbor/malformed", "octets after the end")
    return value
