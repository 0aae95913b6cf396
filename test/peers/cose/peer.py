"""Third-party COSE: pycose and python-cwt check what we make, and make what we check.

    peer.py pycose|cwt        one JSON command a line, one JSON result a line

Commands (octets in hex): {"op": "sign1"|"mac0"|"encrypt0", "message", "aad", "key", "nonce"?} → {"payload"} or {"error"};
{"op": "make", "payload", "aad", "seed", "kid"} → {"message"}: a COSE_Sign1 with protected {1: -8, 3: 16, 4: kid}.
sign1: key is an Ed25519 public key. mac0: HMAC 256/64. encrypt0: the nonce is given, as header parameter IV would be.
"""

import json
import sys

import cbor2


def with_nonce(message, nonce):
    """The libraries take the nonce from the header: it goes into the unprotected one, which nothing authenticates."""
    tag = cbor2.loads(message)
    protected, _, ciphertext = tag.value
    return cbor2.dumps(cbor2.CBORTag(tag.tag, [protected, {5: nonce}, ciphertext]))


class Pycose:
    def __init__(self):
        from pycose.messages import CoseMessage

        self.decode = lambda data: CoseMessage.decode(data, allow_unknown_attributes=True)

    def sign1(self, message, aad, key):
        from pycose.keys import OKPKey
        from pycose.keys.curves import Ed25519

        decoded = self.decode(message)
        decoded.external_aad = aad
        decoded.key = OKPKey(crv=Ed25519, x=key)
        if not decoded.verify_signature():
            raise ValueError("the signature does not verify")
        return decoded.payload

    def mac0(self, message, aad, key):
        from pycose.keys import SymmetricKey

        decoded = self.decode(message)
        decoded.external_aad = aad
        decoded.key = SymmetricKey(k=key)
        if not decoded.verify_tag():
            raise ValueError("the tag does not verify")
        return decoded.payload

    def encrypt0(self, message, aad, key, nonce):
        from pycose.keys import SymmetricKey

        decoded = self.decode(with_nonce(message, nonce))
        decoded.external_aad = aad
        decoded.key = SymmetricKey(k=key)
        return decoded.decrypt()

    def make(self, payload, aad, seed, kid):
        from pycose.headers import KID, Algorithm, ContentType
        from pycose.algorithms import EdDSA
        from pycose.keys import OKPKey
        from pycose.keys.curves import Ed25519
        from pycose.messages import Sign1Message

        message = Sign1Message(phdr={Algorithm: EdDSA, ContentType: 16, KID: kid}, payload=payload, external_aad=aad)
        message.key = OKPKey(crv=Ed25519, d=seed)
        return message.encode()


class Cwt:
    def __init__(self):
        from cwt import COSE

        self.cose = COSE.new()
        self.verifier = COSE.new(verify_kid=False)

    def sign1(self, message, aad, key):
        from cwt import COSEKey

        kid = cbor2.loads(cbor2.loads(message).value[0])[4]
        public = COSEKey.new({1: 1, -1: 6, -2: key, 3: -8, 2: kid, 4: [2]})
        return self.verifier.decode(message, public, external_aad=aad)

    def mac0(self, message, aad, key):
        from cwt import COSEKey

        kid = cbor2.loads(cbor2.loads(message).value[0])[4]
        secret = COSEKey.new({1: 4, 3: 4, -1: key, 2: kid, 4: [9, 10]})
        return self.verifier.decode(message, secret, external_aad=aad)

    def encrypt0(self, message, aad, key, nonce):
        from cwt import COSEKey

        header = cbor2.loads(cbor2.loads(message).value[0])
        secret = COSEKey.new({1: 4, 3: header[1], -1: key, 2: header[4], 4: [3, 4]})
        return self.verifier.decode(with_nonce(message, nonce), secret, external_aad=aad)

    def make(self, payload, aad, seed, kid):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cwt import COSEKey

        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        private = COSEKey.new({1: 1, -1: 6, -2: public, -4: seed, 3: -8, 2: kid, 4: [1, 2]})
        return self.cose.encode_and_sign(payload, private, protected={1: -8, 3: 16, 4: kid}, external_aad=aad)


library = {"pycose": Pycose, "cwt": Cwt}[sys.argv[1]]()
for line in sys.stdin:
    command = json.loads(line)
    op = command.pop("op")
    try:
        octets = {name: bytes.fromhex(value) for name, value in command.items()}
        result = {"message" if op == "make" else "payload": getattr(library, op)(**octets).hex()}
    except Exception as error:  # the library's own word is the result
        result = {"error": "%s %s" % (type(error).__name__, error)}
    print(json.dumps(result), flush=True)
