"""What a client does on the wire: the challenge, the join, broadcasts, credentials, objects."""

import time

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import cbor, ethereum, messages
from .coap import FETCH, GET, POST, dotted
from .errors import ProtocolError
from .primitives import read_cose_key, sha256


def spki_hash(pem):
    key = x509.load_pem_x509_certificate(pem).public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def good(answer, *codes):
    if dotted(answer.code) not in codes:
        detail = cbor.decode(answer.payload, strict=False) if answer.payload else None
        raise ProtocolError(dotted(answer.code), repr(detail))
    return answer


def login(client, binding, key_server, chain_id, registry, device, bit, secret, sign_key=bytes(32)):
    """The signed KeyRequest for one bit (§6)."""
    address, claims = ethereum.address_of(secret), (1 << bit).to_bytes(4, "big")
    body = messages.authz_request(address, device, claims)
    answer = good(client.request(POST, ["authz-info"], body, content_format=60), "2.01")
    nonce = messages.read(answer.payload, messages.CHALLENGE)[30]
    now = int(time.time())
    values = [address, device, claims, key_server, binding, nonce, sign_key, now, now + 60]
    digest = ethereum.digest(ethereum.domain(chain_id, registry), ethereum.KEY_REQUEST, values)
    return messages.signed_key_request(values, ethereum.sign(digest, secret))


def join(client, gid, bit, signed, client_cred=None):
    body = messages.join_request(bit, client_cred, signed)
    answer = good(client.request(POST, ["ace-group", gid.hex()], body, content_format=261), "2.01", "2.04")
    reply = messages.read(answer.payload, messages.JOIN_RESPONSE)
    return dotted(answer.code), reply, read_cose_key(cbor.decode(reply[17]))


def newest_broadcast(client, gid, session=None):
    path = ["bc", gid.hex()] + ([] if session is None else [str(session)])
    return good(client.request(GET, path), "2.05")


def credentials(client, gid, at=None):
    query = [] if at is None else [f"at={at}"]
    answer = good(client.request(GET, ["ace-group", gid.hex(), "creds"], query=query), "2.05")
    return messages.read(answer.payload, messages.CREDS_LIST)


def fetch_groups(client, gids):
    answer = client.request(FETCH, ["ace-group"], messages.groups_query(gids), content_format=261)
    return messages.read(good(answer, "2.05").payload, messages.GROUPS_REPLY)
