"""§4.2 to §4.4 and §4.6: sealed objects."""

from . import cbor, cose
from .errors import ProtocolError, need
from .primitives import AEADS, hkdf_expand, hkdf_extract, kid_of, sha256, u32, xor

BAD = "object/malformed"
MAX_TIME = 2**53 - 1


def partial_iv(seq):
    return seq.to_bytes(max(1, (seq.bit_length() + 7) // 8), "big")


def external_aad(device, path):
    return cbor.encode(["iotchain-object-1", device, path])


class Keys:
    """What one (session, device, sender, resource) uses."""

    def __init__(self, gid, session, group_key, device, sid, path, alg):
        self.gid, self.session, self.device, self.sid, self.path, self.alg = gid, session, device, sid, path, alg
        prk = hkdf_extract(gid + u32(session), group_key)
        key_length, nonce_length, _ = AEADS[alg]

        def key(use, length):
            return hkdf_expand(prk, cbor.encode(["iotc1", use, device, sid, path, alg, length]), length)

        self.cek, self.base_iv, self.mack = key("key", key_length), key("iv", nonce_length), key("mac", 32)

    def nonce(self, seq):
        return xor(self.base_iv, partial_iv(seq).rjust(len(self.base_iv), b"\0"))

    def seal(self, seq, iat, content_format, plaintext):
        header = {
            1: self.alg, 3: content_format, 4: self.sid, 6: partial_iv(seq),
            10: self.gid + u32(self.session), 15: {6: iat},
        }  # fmt: skip
        aad = external_aad(self.device, self.path)
        return cbor.encode(cose.encrypt0(header, plaintext, aad, self.alg, self.cek, self.nonce(seq)))


def sign(encrypt0, device, path, seed, public):
    header = {1: -8, 3: 16, 4: kid_of(public)}
    return cbor.encode(cose.sign1(header, encrypt0, external_aad(device, path), seed))


def mac(encrypt0, keys):
    header = {1: 4, 3: 16, 4: keys.sid}
    return cbor.encode(cose.mac0(header, encrypt0, external_aad(keys.device, keys.path), keys.mack))


class SealedObject:
    """A parsed object: `form` is 17 or 18."""

    def __init__(self, octets):
        need(len(octets) <= 65536, "object/too-large")
        self.octets = octets
        need(len(octets) > 0 and octets[0] in (0xD1, 0xD2), BAD, "neither Sign1 nor Mac0")
        self.form = octets[0] & 31
        parsed = cose.parse(octets, self.form, 2, BAD)
        self.outer_protected, outer, self.payload, self.seal = parsed
        need(set(outer) == {1, 3, 4} and outer[3] == 16 and isinstance(outer[4], bytes), BAD, "outer header")
        signed = self.form == cose.SIGN1
        need(outer[1] == (-8 if signed else 4), BAD, "algorithm of the outer layer")
        need(len(self.seal) == (64 if signed else 8), BAD, "length of signature or tag")
        need(len(outer[4]) == 8 if signed else 1 <= len(outer[4]) <= 7, BAD, "kid")
        self.kid = outer[4]
        self.protected, inner, self.ciphertext = cose.parse(self.payload, cose.ENCRYPT0, 1, BAD)
        need(set(inner) == {1, 3, 4, 6, 10, 15}, BAD, "inner header")
        self.alg, self.content_format, self.sid = inner[1], inner[3], inner[4]
        need(type(self.alg) is int and self.alg in AEADS, BAD, "alg")
        need(type(self.content_format) is int and 0 <= self.content_format <= 65535, BAD, "content-format")
        need(isinstance(self.sid, bytes) and 1 <= len(self.sid) <= 7, BAD, "sid")
        iv, context, claims = inner[6], inner[10], inner[15]
        need(isinstance(iv, bytes) and 1 <= len(iv) <= 5 and (iv[0] != 0 or len(iv) == 1), BAD, "Partial IV")
        need(isinstance(context, bytes) and len(context) == 12, BAD, "kid context")
        need(isinstance(claims, dict) and set(claims) == {6} and type(claims[6]) is int, BAD, "claims")
        self.seq, self.gid, self.iat = int.from_bytes(iv, "big"), context[:8], claims[6]
        self.session = int.from_bytes(context[8:], "big")
        need(self.session >= 1, BAD, "session 0")
        need(0 <= self.iat <= MAX_TIME, BAD, "iat")
        need(signed or self.kid == self.sid, BAD, "sid of Mac0 and Encrypt0")

    @property
    def etag(self):
        return sha256(self.octets)[:8]

    @property
    def mark(self):
        """What the two forms of one reading have in common (§4.6)."""
        return sha256(self.payload)[:8]

    def signature_holds(self, device, path, public):
        aad = external_aad(device, path)
        return cose.sign1_holds(self.outer_protected, self.payload, self.seal, aad, public)

    def mac_holds(self, device, path, mack):
        return cose.mac0_holds(self.outer_protected, self.payload, self.seal, external_aad(device, path), mack)

    def open(self, group_key, device, path):
        keys = Keys(self.gid, self.session, group_key, device, self.sid, path, self.alg)
        if self.form == cose.MAC0:
            need(self.mac_holds(device, path, keys.mack), "object/bad-mac")
        aad = external_aad(device, path)
        return cose.encrypt0_open(self.protected, self.ciphertext, aad, self.alg, keys.cek, keys.nonce(self.seq))


def verify(obj, device, path, credentials, other_paths=(), sender=None):
    """The table of §4.4 for a signed object. `device` and `path` are what was asked for; `sender` is another than the
    device for a command."""
    sender = device if sender is None else sender
    signers = [c for c in credentials if kid_of(c.key) == obj.kid]
    need(signers, "object/unknown-signer")
    listing = [c for c in signers if obj.sid in c.sids(obj.gid)]
    own = [c for c in listing if c.address == sender]
    if not own:
        need(not listing, "object/wrong-device")
        need(all(c.address != sender for c in signers), "object/unknown-sid")
        raise ProtocolError("object/re-signed")
    covering = next((c for c in own if c.iat - 60 <= obj.iat <= c.exp), None)
    need(covering is not None, "object/not-covered")
    if not obj.signature_holds(device, path, covering.key):
        swapped = any(obj.signature_holds(device, other, covering.key) for other in other_paths)
        raise ProtocolError("object/swapped" if swapped else "object/bad-signature")
    return covering


def open_signed(obj, device, path, credentials, key_of, other_paths=()):
    verify(obj, device, path, credentials, other_paths)
    key = key_of(obj.session)
    need(key is not None, "object/no-access")
    return obj.open(key, device, path)


def place(sids, sid, seq):
    """The order of §4.6 as something that compares; `sids` is the list of the newest credential."""
    if sid in sids:
        return (1, sids.index(sid), 0, b"", seq)
    return (0, 0, len(sid), sid, seq)


def judge(obj, now, newest=None, times=None, order=None, max_age=None, grace=60, later_began=None, looked=None):
    """The table of §4.6: raises, or gives the flags. `newest` is (place, mark) of the last one accepted;
    `times` nbf and exp of its session if its broadcast was received; `later_began` when a later session began;
    `looked` when the newest broadcast was last asked for."""
    if newest is not None:
        need(order >= newest[0], "object/rollback")
        need(order != newest[0] or obj.mark == newest[1], "object/equivocation")
    need(obj.iat <= now + 60, "object/future")
    if times is not None:
        need(times[0] - 30 <= obj.iat <= times[1] + 30, "object/outside-session")
    flags = []
    if max_age is not None and now - obj.iat > max_age:
        flags.append("stale")
    if obj.form == cose.SIGN1:
        if later_began is not None and later_began + grace < obj.iat:
            flags.append("old session")
    else:
        over = times is not None and times[1] + grace < now
        need(not over and (later_began is None or later_began + grace >= now), "object/old-session")
        need(looked is not None and now - looked <= 60, "object/unfresh-broadcast")
    return flags
