"""§3.7 and §3.8: a broadcast, made from its parts and read in the order of the table."""

from . import cbor, cose
from .errors import ProtocolError, need
from .primitives import F, H, kid_of, u32, xor
from .tree import MAX_NUMBER, dyadic, label, pack_subset, time_node, unpack_subset

AAD = b"iotchain-broadcast-1"
BAD = "group/malformed"


def first_z(em, session):
    return F(em, b"iotc1 z" + u32(session))


def next_z(z):
    return F(z, b"iotc1 next")


def wrap_mask(lab, gid, epoch, session, start):
    return F(lab, b"\x02" + b"iotc1 wrap" + gid + u32(epoch) + u32(session) + u32(start))


def heal_mask(z, gid, session, start, length):
    out, t = b"", 1
    while len(out) < length:
        out += H(z, b"iotc1 heal" + gid + u32(session) + u32(start) + u32(t))
        t += 1
    return out[:length]


class Cohort:
    def __init__(self, start, end, subsets, heal):
        """subsets: a list of ((i, j), wrap)"""
        self.start, self.end, self.subsets, self.heal = start, end, subsets, heal

    def nodes(self):
        return dyadic(self.start, self.end)


class Broadcast:
    def __init__(self, gid, epoch, session, nbf, exp, depth, cohorts, kcv):
        self.gid, self.epoch, self.session, self.nbf, self.exp = gid, epoch, session, nbf, exp
        self.depth, self.cohorts, self.kcv = depth, cohorts, kcv

    def encode(self):
        cohorts = [
            [c.start, b"".join(pack_subset(*s) + wrap for s, wrap in c.subsets), c.heal] for c in self.cohorts
        ]
        return cbor.encode([1, self.gid, self.epoch, self.session, self.nbf, self.exp, self.depth, cohorts, self.kcv])

    @classmethod
    def parse(cls, payload):
        try:
            item = cbor.decode(payload)
        except ProtocolError as fault:
            raise ProtocolError(BAD, str(fault)) from None
        need(isinstance(item, list) and len(item) == 9, BAD, "CDDL")
        version, gid, epoch, session, nbf, exp, depth, cohorts, check = item
        need(all(type(n) is int and 0 <= n < 2**53 for n in (version, epoch, session, nbf, exp, depth)), BAD, "CDDL")
        need(isinstance(gid, bytes) and len(gid) == 8 and isinstance(check, bytes) and len(check) == 8, BAD, "CDDL")
        need(version == 1 and 1 <= epoch <= MAX_NUMBER and 1 <= session <= MAX_NUMBER, BAD, "CDDL")
        need(1 <= depth <= 18 and isinstance(cohorts, list) and 1 <= len(cohorts) <= 65536, BAD, "CDDL")
        for c in cohorts:
            need(isinstance(c, list) and len(c) == 3 and type(c[0]) is int and 1 <= c[0] <= MAX_NUMBER, BAD, "CDDL")
            need(isinstance(c[1], bytes) and isinstance(c[2], bytes), BAD, "CDDL")
        need(nbf < exp, BAD, "nbf and exp")
        starts = [c[0] for c in cohorts]
        need(all(a < b for a, b in zip(starts, starts[1:])), BAD, "order of cohorts")
        need(max(1, session - 65535) <= starts[0] and starts[-1] <= session, BAD, "starts of cohorts")
        ends = [start - 1 for start in starts[1:]] + [session]
        for (start, packed, heal), end in zip(cohorts, ends):
            need(len(heal) == 16 * len(dyadic(start, end)), BAD, "length of the healing part")
            need(len(packed) % 19 == 0, BAD, "length of the cover")
        read = []
        for (start, packed, heal), end in zip(cohorts, ends):
            pieces = [packed[n : n + 19] for n in range(0, len(packed), 19)]
            subsets = [(unpack_subset(piece[:3], depth), piece[3:]) for piece in pieces]
            js = [j for (_, j), _ in subsets]
            need(all(a < b for a, b in zip(js, js[1:])), BAD, "order of subsets")
            need(0 not in js or len(js) == 1, BAD, "(1,0) beside others")
            read.append(Cohort(start, end, subsets, heal))
        return cls(gid, epoch, session, nbf, exp, depth, read, check)


def make(gid, em_of, epoch, session, nbf, exp, depth, cohorts):
    """cohorts: a list of (start, subsets, epoch of the range). em_of gives the secret of an epoch."""
    from .tree import kcv

    z, out = first_z(em_of(epoch), session), []
    for k, (start, subsets, range_epoch) in enumerate(cohorts):
        end = cohorts[k + 1][0] - 1 if k + 1 < len(cohorts) else session
        wraps = [
            (s, xor(z, wrap_mask(label(em_of(epoch), *s), gid, epoch, session, start))) for s in subsets
        ]
        nodes = b"".join(time_node(em_of(range_epoch), *node) for node in dyadic(start, end))
        out.append(Cohort(start, end, wraps, xor(nodes, heal_mask(z, gid, session, start, len(nodes)))))
        z = next_z(z)
    check = kcv(time_node(em_of(epoch), 32, session))
    return Broadcast(gid, epoch, session, nbf, exp, depth, out, check)


def sign(broadcast, seed, public):
    header = {1: -8, 4: kid_of(public)}
    return cbor.encode(cose.sign1(header, broadcast.encode(), AAD, seed))


def read_ahead(payload):
    """gid and session before anything is verified: only to drop what is not wanted."""
    need(payload[:2] == b"\x89\x01", BAD, "CDDL")
    reader = cbor.Reader(payload, True)
    reader.at = 2
    try:
        gid, epoch, session = reader.item(1), reader.item(1), reader.item(1)
    except ProtocolError as fault:
        raise ProtocolError(BAD, str(fault)) from None
    need(isinstance(gid, bytes) and len(gid) == 8, BAD, "CDDL")
    need(all(type(n) is int and 0 <= n < 2**53 for n in (epoch, session)), BAD, "CDDL")
    return gid, session


def claim(octets, algorithms=(-8,)):
    """The checks before the first look at who and when: header fields, payload, signature, gid, session."""
    need(len(octets) <= 65536, "group/too-large")
    protected, header, payload, signature = cose.parse(octets, cose.SIGN1, 2, BAD)
    need(set(header) == {1, 4} and isinstance(header[4], bytes) and len(header[4]) == 8, BAD, "header")
    need(header[1] in algorithms, "group/bad-algorithm")
    return protected, header, payload, signature, *read_ahead(payload)


def verify(claimed, pinned):
    protected, header, payload, signature, _, _ = claimed
    need(header[4] == kid_of(pinned), "group/unknown-key")
    need(cose.sign1_holds(protected, payload, signature, AAD, pinned), "group/bad-signature")
    return Broadcast.parse(payload)


def receive(octets, gid, pinned, highest=0, asked=False, algorithms=(-8,)):
    """The checks up to the form of the broadcast; None if it is to be ignored."""
    claimed = claim(octets, algorithms)
    need(claimed[4] == gid, "group/wrong-group")
    if not asked and claimed[5] <= highest:
        return None
    return verify(claimed, pinned)
