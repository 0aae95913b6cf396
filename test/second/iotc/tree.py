"""§3.3 to §3.6: labels, personal keys, covers, the time tree."""

from bisect import bisect_left

from . import cbor
from .errors import ProtocolError, need
from .primitives import F, H, u32

MAX_NUMBER = 0xFFFFFFFF


def gid_of(chain_id, registry, device, bit):
    from .primitives import sha256

    return sha256(cbor.encode(["iotc1 gid", chain_id, registry, device, bit]))[:8]


def epoch_secret(root, gid, epoch):
    return H(root, b"iotc1 epoch" + gid + u32(epoch))


def depth_of(node):
    return node.bit_length() - 1


def walk(label, start, to):
    """From LABEL(i, start) down to LABEL(i, to)."""
    for level in range(depth_of(to) - depth_of(start) - 1, -1, -1):
        label = F(label, bytes([to >> level & 1]))
    return label


def label_all(em):
    return F(em, b"iotc1 all")


def label(em, i, j):
    if (i, j) == (1, 0):
        return label_all(em)
    return walk(F(em, b"iotc1 sd" + u32(i)), i, j)


def personal_labels(em, depth, leaf):
    node = (1 << depth) + leaf
    out = [label_all(em)]
    for di in range(depth):
        i = node >> (depth - di)
        out += [label(em, i, node >> (depth - dj) ^ 1) for dj in range(di + 1, depth + 1)]
    return b"".join(out)


class PersonalKey:
    def __init__(self, gid, epoch, depth, leaf, start, labels, nbf=0, exp=0):
        self.gid, self.epoch, self.depth, self.leaf = gid, epoch, depth, leaf
        self.start, self.labels, self.nbf, self.exp = start, labels, nbf, exp

    def encode(self):
        return cbor.encode(
            [1, self.gid, self.epoch, self.depth, self.leaf, self.start, self.labels, self.nbf, self.exp]
        )

    @classmethod
    def parse(cls, octets):
        code = "group/bad-personal-key"
        try:
            item = cbor.decode(octets)
        except ProtocolError as fault:
            raise ProtocolError(code, str(fault)) from None
        need(isinstance(item, list) and len(item) == 9, code)
        version, gid, epoch, depth, leaf, start, labels, nbf, exp = item
        numbers = (version, epoch, depth, leaf, start, nbf, exp)
        need(all(type(n) is int and 0 <= n < 2**53 for n in numbers), code)
        need(isinstance(gid, bytes) and isinstance(labels, bytes) and len(gid) == 8 and version == 1, code)
        need(1 <= epoch <= MAX_NUMBER and 1 <= start <= MAX_NUMBER and 1 <= depth <= 18, code)
        need(leaf < 1 << depth and nbf <= exp, code)
        need(len(labels) == 16 * (depth * (depth + 1) // 2 + 1), code)
        return cls(gid, epoch, depth, leaf, start, labels, nbf, exp)

    def holds(self, i, j):
        return in_subset((1 << self.depth) + self.leaf, i, j)

    def label(self, i, j):
        """LABEL(i, j), for a subset that the leaf is in."""
        if (i, j) == (1, 0):
            return self.labels[:16]
        node, di = (1 << self.depth) + self.leaf, depth_of(i)
        dj = di + 1
        while j >> (depth_of(j) - dj) == node >> (self.depth - dj):
            dj += 1
        number = 1 + sum(self.depth - k for k in range(di)) + (dj - di - 1)
        return walk(self.labels[16 * number : 16 * number + 16], j >> (depth_of(j) - dj), j)


def is_below(node, ancestor):
    rise = depth_of(node) - depth_of(ancestor)
    return rise >= 0 and node >> rise == ancestor


def in_subset(node, i, j):
    return (i, j) == (1, 0) or (is_below(node, i) and not is_below(node, j))


def cover(depth, leaves):
    """The subsets (i, j) of §3.5, sorted by j."""
    leaves = sorted(set(leaves))
    out = []

    def rec(v, level):
        width = 1 << (depth - level)
        low = (v << (depth - level)) - (1 << depth)
        count = bisect_left(leaves, low + width) - bisect_left(leaves, low)
        if count == 0:
            return v
        if count == width:
            return 0
        left, right = rec(2 * v, level + 1), rec(2 * v + 1, level + 1)
        if left == 0:
            return right
        if right == 0:
            return left
        if left != 2 * v:
            out.append((2 * v, left))
        if right != 2 * v + 1:
            out.append((2 * v + 1, right))
        return v

    if not leaves:
        return []
    top = rec(1, 0)
    if top == 0:
        out.append((1, 0))
    elif top != 1:
        out.append((1, top))
    return sorted(out, key=lambda subset: subset[1])


def pack_subset(i, j):
    if (i, j) == (1, 0):
        return b"\0\0\1"
    return ((depth_of(j) - depth_of(i)) << 19 | j).to_bytes(3, "big")


def unpack_subset(octets, depth, code="group/malformed"):
    n = int.from_bytes(octets, "big")
    if n == 1:
        return 1, 0
    k, j = n >> 19, n & 0x7FFFF
    need(k >= 1 and j >> k >= 1 and depth_of(j) <= depth, code, "no such subset")
    return j >> k, j


def time_root(em):
    return F(em, b"iotc1 time")


def time_walk(node, level, to_level, to_prefix):
    for shift in range(to_level - level - 1, -1, -1):
        node = F(node, bytes([to_prefix >> shift & 1]))
    return node


def time_node(em, level, prefix):
    return time_walk(time_root(em), 0, level, prefix)


def dyadic(lo, hi):
    """The nodes (level, prefix) for the sessions lo … hi."""
    out = []
    while lo <= hi:
        size = lo & -lo if lo else 1 << 32
        while lo + size - 1 > hi:
            size >>= 1
        bits = size.bit_length() - 1
        out.append((32 - bits, lo >> bits))
        lo += size
    return out


def group_key(n):
    return F(n, b"iotc1 key")


def kcv(n):
    return F(n, b"iotc1 kcv")[:8]
