"""§4.5: credentials."""

import re

from . import cbor, cose
from .cbor import Tag
from .errors import ProtocolError, need
from .primitives import cose_key, kid_of, read_cose_key

AAD = b"iotchain-cred-1"
BAD = "credential/malformed"
SUBJECT = re.compile(r"urn:iotchain:(device|client):0x([0-9a-f]{40})")


def uint(x):
    return type(x) is int and 0 <= x < 2**53


class Credential:
    def __init__(self, issuer, kind, address, iat, exp, key, groups):
        """groups: {gid: [[sid, from], …]}; kind is 'device' or 'client'."""
        self.issuer, self.kind, self.address, self.iat, self.exp = issuer, kind, address, iat, exp
        self.key, self.groups = key, groups

    def sids(self, gid):
        return [sid for sid, _ in self.groups.get(gid, [])]

    def issue(self, seed, public):
        claims = {
            1: self.issuer, 2: f"urn:iotchain:{self.kind}:0x{self.address.hex()}", 4: self.exp, 6: self.iat,
            8: {1: cose_key(self.key)}, -70001: self.groups,
        }  # fmt: skip
        if self.kind == "client":
            claims[-70002] = "w"
        signed = cose.sign1({1: -8, 4: kid_of(public)}, cbor.encode(claims), AAD, seed)
        return cbor.encode(Tag(61, signed))

    @classmethod
    def read(cls, octets, pinned, now=None):
        try:
            message = cbor.decode(octets)
        except ProtocolError as fault:
            raise ProtocolError(BAD, str(fault)) from None
        need(isinstance(message, Tag) and message.number == 61, BAD, "tag")
        protected, header, payload, signature = cose.parts(message.value, cose.SIGN1, 2, BAD)
        need(set(header) == {1, 4} and header[1] == -8, BAD, "header")
        need(isinstance(header[4], bytes), BAD, "kid")
        need(header[4] == kid_of(pinned), "credential/unknown-issuer")
        need(cose.sign1_holds(protected, payload, signature, AAD, pinned), "credential/bad-signature")
        credential = cls.claims(payload)
        if now is not None:
            need(now < credential.exp, "credential/expired")
            need(credential.iat <= now + 60, "credential/not-yet")
        return credential

    @classmethod
    def claims(cls, payload):
        try:
            claims = cbor.decode(payload)
        except ProtocolError as fault:
            raise ProtocolError(BAD, str(fault)) from None
        need(isinstance(claims, dict) and set(claims) - {-70002} == {1, 2, 4, 6, 8, -70001}, BAD, "claims")
        need(isinstance(claims[1], str) and isinstance(claims[2], str), BAD, "iss or sub")
        subject = SUBJECT.fullmatch(claims[2])
        need(subject is not None, BAD, "sub")
        kind = subject[1]
        need((kind == "client") == (-70002 in claims) and claims.get(-70002, "w") == "w", BAD, "role")
        need(uint(claims[4]) and uint(claims[6]), BAD, "times")
        need(claims[6] < claims[4] <= claims[6] + 172800, BAD, "life")
        need(isinstance(claims[8], dict) and set(claims[8]) == {1}, BAD, "cnf")
        try:
            key = read_cose_key(claims[8][1])
        except ProtocolError as fault:
            raise ProtocolError(BAD, str(fault)) from None
        groups = claims[-70001]
        need(isinstance(groups, dict) and 1 <= len(groups) <= 32, BAD, "groups")
        for gid, entries in groups.items():
            need(isinstance(gid, bytes) and len(gid) == 8, BAD, "gid")
            need(isinstance(entries, list) and 1 <= len(entries) <= 1024, BAD, "Sender IDs")
            for entry in entries:
                need(isinstance(entry, list) and len(entry) == 2, BAD, "Sender ID")
                need(isinstance(entry[0], bytes) and 1 <= len(entry[0]) <= 7 and uint(entry[1]), BAD, "Sender ID")
        return cls(claims[1], kind, bytes.fromhex(subject[2]), claims[6], claims[4], key, groups)
