"""§2.1: H, F, HKDF, the AEADs, Ed25519; §2.4: thumbprints."""

import hashlib
import hmac

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import cbor
from .errors import ProtocolError, need

AEADS = {24: (32, 12, 16), 10: (16, 13, 8), 1: (16, 12, 16)}


def u32(n):
    return n.to_bytes(4, "big")


def sha256(octets):
    return hashlib.sha256(octets).digest()


def H(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def F(key, message):
    return H(key, message)[:16]


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def hkdf_extract(salt, ikm):
    return H(salt or bytes(32), ikm)


def hkdf_expand(prk, info, length):
    out, block, n = b"", b"", 1
    while len(out) < length:
        block = H(prk, block + info + bytes([n]))
        out += block
        n += 1
    return out[:length]


def same(a, b):
    return hmac.compare_digest(a, b)


def cipher(alg, key):
    if alg == 24:
        return ChaCha20Poly1305(key)
    return AESCCM(key, tag_length=8) if alg == 10 else AESGCM(key)


def aead_seal(alg, key, nonce, plaintext, aad):
    return cipher(alg, key).encrypt(nonce, plaintext, aad)


def aead_open(alg, key, nonce, ciphertext, aad):
    try:
        return cipher(alg, key).decrypt(nonce, ciphertext, aad)
    except (InvalidTag, ValueError):
        raise ProtocolError("object/bad-ciphertext") from None


def ed25519_public(seed):
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def ed25519_sign(seed, message):
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def ed25519_verify(public, message, signature):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def cose_key(public):
    return {1: 1, -1: 6, -2: public}


def read_cose_key(key):
    """The public octets of a COSE_Key that may have further parameters, but no private part."""
    good = isinstance(key, dict) and key.get(1) == 1 and key.get(-1) == 6 and -4 not in key
    need(good and isinstance(key.get(-2), bytes) and len(key[-2]) == 32, "cose/bad-key")
    need(key.get(3, -8) in (-8, -19), "cose/bad-key")
    return key[-2]


def thumbprint(public):
    return sha256(cbor.encode(cose_key(public)))


def kid_of(public):
    return thumbprint(public)[:8]
