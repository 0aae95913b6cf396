"""§2.3: tagged COSE messages whose parameters are all protected."""

from . import cbor
from .cbor import Tag
from .errors import ProtocolError, need
from .primitives import H, aead_open, aead_seal, ed25519_sign, ed25519_verify, same

ENCRYPT0, MAC0, SIGN1 = 16, 17, 18


def parse(octets, tag, fields, code="cose/malformed"):
    """The protected header (octets and map) and the fields after the empty unprotected one."""
    try:
        message = cbor.decode(octets)
    except ProtocolError as fault:
        raise ProtocolError(code, str(fault)) from None
    return parts(message, tag, fields, code)


def parts(message, tag, fields, code="cose/malformed"):
    good = isinstance(message, Tag) and message.number == tag and isinstance(message.value, list)
    need(good and len(message.value) == 2 + fields, code, "not the COSE message that is expected")
    protected, unprotected, *rest = message.value
    need(unprotected == {} and all(isinstance(x, bytes) for x in [protected, *rest]), code, "form of the message")
    if protected in (b"", b"\xa0"):
        return b"", {}, *rest
    try:
        header = cbor.decode(protected)
    except ProtocolError as fault:
        raise ProtocolError(code, str(fault)) from None
    need(isinstance(header, dict), code, "protected header is no map")
    return protected, header, *rest


def sig_structure(protected, aad, payload):
    return cbor.encode(["Signature1", protected, aad, payload])


def sign1(header, payload, aad, seed):
    protected = cbor.encode(header)
    signature = ed25519_sign(seed, sig_structure(protected, aad, payload))
    return Tag(SIGN1, [protected, {}, payload, signature])


def sign1_holds(protected, payload, signature, aad, public):
    return ed25519_verify(public, sig_structure(protected, aad, payload), signature)


def mac_tag(protected, payload, aad, key):
    return H(key, cbor.encode(["MAC0", protected, aad, payload]))[:8]


def mac0(header, payload, aad, key):
    protected = cbor.encode(header)
    return Tag(MAC0, [protected, {}, payload, mac_tag(protected, payload, aad, key)])


def mac0_holds(protected, payload, tag, aad, key):
    return same(mac_tag(protected, payload, aad, key), tag)


def encrypt0(header, plaintext, aad, alg, key, nonce):
    protected = cbor.encode(header)
    sealed = aead_seal(alg, key, nonce, plaintext, cbor.encode(["Encrypt0", protected, aad]))
    return Tag(ENCRYPT0, [protected, {}, sealed])


def encrypt0_open(protected, ciphertext, aad, alg, key, nonce):
    return aead_open(alg, key, nonce, ciphertext, cbor.encode(["Encrypt0", protected, aad]))
