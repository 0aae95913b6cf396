"""The second implementation at work for a test: one JSON command a line on standard input, one JSON answer a line.

Octets are hex. Every command works on a list of items and answers a list: what came out, or {"error": code}.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import live
import vectors
from iotc import cbor, content, cose, ethereum, messages, objects
from iotc.credential import Credential
from iotc.enrolment import identity, psk, read_code
from iotc.errors import ProtocolError
from iotc.manager import Manager
from iotc.member import Member
from iotc.primitives import ed25519_public, kid_of
from iotc.tree import PersonalKey, gid_of


def unhex(value):
    return bytes.fromhex(value)


def tried(work, item):
    try:
        return work(item)
    except ProtocolError as fault:
        return {"error": fault.code}


def jsonable(value):
    """Records and messages, with octets as text that says so."""
    if isinstance(value, bytes):
        return "h'" + value.hex() + "'"
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    return value


def op_cbor(item):
    return cbor.encode(cbor.decode(unhex(item["octets"]), item["strict"])).hex()


def op_manage(item):
    """A group's life: every broadcast, and the personal keys that there are at its end."""
    window = item["window"] if isinstance(item["window"], int) else tuple(item["window"])
    manager = Manager(unhex(item["gid"]), unhex(item["root"]), unhex(item["seed"]), window, item["depth"])
    out = []
    for name, *args in item["ops"]:
        if name == "broadcast":
            out.append(manager.broadcast(*args).hex())
        elif name == "join":
            manager.join(unhex(args[0]), args[1] == "current", args[2])
        elif name == "allocate":
            manager.allocate(args[0])
        elif name == "activate":
            manager.activate()
        else:
            {"leave": manager.leave, "suspend": manager.suspend, "resume": manager.resume}[name](unhex(args[0]))
    personals = [
        [m.ident.hex(), number, manager.personal_key(m, number).encode().hex()]
        for m in manager.memberships
        if m.end is None
        for number in m.leaves
    ]
    return {"broadcasts": out, "personals": personals}


def member_of(item):
    member = Member(unhex(item["gid"]), unhex(item["pinned"]))
    for octets in item["personals"]:
        member.take_personal(PersonalKey.parse(unhex(octets)))
    return member


def op_member(item):
    """One member through all messages; at its end the keys that it has."""
    member = member_of(item)
    outcomes = [tried(lambda m: member.receive(unhex(m["octets"]), m["asked"]), m) for m in item["messages"]]
    keys = [member.key(j) for j in range(1, item["sessions"] + 1)]
    return {"outcomes": outcomes, "keys": [None if key is None else key.hex() for key in keys]}


def op_receive(item):
    """Each message to a member that has seen nothing yet."""
    return [tried(lambda m: member_of(item).receive(unhex(m)), m) for m in item["messages"]]


def scope(item):
    return (
        unhex(item["gid"]), item["session"], unhex(item["K"]), unhex(item["device"]), unhex(item["sid"]),
        item["path"], item["alg"],
    )  # fmt: skip


def op_seal(item):
    keys, seed = objects.Keys(*scope(item)), unhex(item["seed"])
    inner = keys.seal(item["seq"], item["iat"], item["format"], unhex(item["plaintext"]))
    signed = objects.sign(inner, keys.device, keys.path, seed, ed25519_public(seed))
    return {"signed": signed.hex(), "mac": objects.mac(inner, keys).hex()}


def told(obj):
    return [
        obj.form, obj.alg, obj.content_format, obj.sid.hex(), obj.seq, obj.gid.hex(), obj.session, obj.iat,
        obj.etag.hex(), obj.mark.hex(),
    ]  # fmt: skip


def op_parse(item):
    return told(objects.SealedObject(unhex(item)))


def op_open(item):
    """`public` is the signer's key, known beforehand."""
    obj = objects.SealedObject(unhex(item["octets"]))
    device, path = unhex(item["device"]), item["path"]
    if obj.form == cose.SIGN1 and not obj.signature_holds(device, path, unhex(item["public"])):
        return {"error": "object/bad-signature"}
    return {"header": told(obj), "plaintext": obj.open(unhex(item["K"]), device, path).hex()}


def op_verify(item):
    pinned = unhex(item["pinned"])
    credentials = [Credential.read(unhex(c), pinned) for c in item["credentials"]]
    sender = None if item["sender"] is None else unhex(item["sender"])

    def one(question):
        obj = objects.SealedObject(unhex(question["octets"]))
        objects.verify(obj, unhex(question["device"]), question["path"], credentials, question["others"], sender)
        return "ok"

    return [tried(one, question) for question in item["questions"]]


def op_issue(item):
    seed = unhex(item["seed"])
    groups = {unhex(gid): [[unhex(sid), since] for sid, since in entries] for gid, entries in item["groups"]}
    credential = Credential(
        item["issuer"], item["kind"], unhex(item["address"]), item["iat"], item["exp"], unhex(item["key"]), groups
    )
    return credential.issue(seed, ed25519_public(seed)).hex()


def op_credential(item):
    c = Credential.read(unhex(item["octets"]), unhex(item["pinned"]), item["now"])
    groups = sorted([gid.hex(), [[sid.hex(), since] for sid, since in entries]] for gid, entries in c.groups.items())
    return [c.issuer, c.kind, c.address.hex(), c.iat, c.exp, c.key.hex(), kid_of(c.key).hex(), groups]


def op_order(item):
    sids = [unhex(sid) for sid in item["sids"]]
    places = [objects.place(sids, unhex(sid), seq) for sid, seq in item["places"]]
    return [[(a > b) - (a < b) for b in places] for a in places]


class Judged:
    def __init__(self, item):
        self.form, self.iat, self.mark = item["form"], item["iat"], unhex(item["mark"])


def op_judge(item):
    sids = [unhex(sid) for sid in item["sids"]]
    order = objects.place(sids, unhex(item["sid"]), item["seq"])
    newest = item["newest"]
    if newest is not None:
        newest = (objects.place(sids, unhex(newest["sid"]), newest["seq"]), unhex(newest["mark"]))
    return objects.judge(
        Judged(item), item["now"], newest, item["times"], order, item["maxAge"], item["grace"], item["later"],
        item["looked"],
    )  # fmt: skip


def op_senml(item):
    return jsonable(content.resolve(content.read_senml(unhex(item)), 1_700_000_000))


def op_pack(item):
    head, records = content.read_pack(unhex(item))
    return [head, jsonable(content.resolve(records, 1_700_000_000))]


def op_command(item):
    return content.read_command(unhex(item))


def op_remake(item):
    """A pack or a command read and made anew."""
    if item["kind"] == "command":
        return content.make_command(content.read_command(unhex(item["octets"]))).hex()
    head, records = content.read_pack(unhex(item["octets"]))
    return content.make_pack(*head, records).hex()


TYPES = {
    "KeyRequest": ethereum.KEY_REQUEST, "Registration": ethereum.REGISTRATION, "Enrolment": ethereum.ENROLMENT,
}  # fmt: skip


def op_digest(item):
    values = [unhex(v[2:]) if isinstance(v, str) else v for v in item["values"]]
    domain = ethereum.domain() if item["chain"] is None else ethereum.domain(item["chain"], unhex(item["registry"]))
    return ethereum.digest(domain, TYPES[item["type"]], values).hex()


def op_ecdsa(item):
    secret = int(item["secret"], 16)
    return {
        "address": ethereum.address_of(secret).hex(),
        "signature": ethereum.sign(unhex(item["digest"]), secret).hex(),
        "recovered": (ethereum.recover(unhex(item["digest"]), unhex(item["signature"])) or b"").hex(),
    }


MESSAGES = {
    "join-request": messages.JOIN_REQUEST, "join-response": messages.JOIN_RESPONSE,
    "node-keys": messages.NODE_KEYS, "sender-id": messages.SENDER_ID, "creds-list": messages.CREDS_LIST,
    "creds-query": messages.CREDS_QUERY, "groups-query": messages.GROUPS_QUERY,
    "groups-reply": messages.GROUPS_REPLY, "kdc-cred": messages.KDC_CRED, "policies": messages.POLICIES,
    "authz-request": messages.AUTHZ_REQUEST, "challenge": messages.CHALLENGE, "relay-task": messages.RELAY_TASK,
    "relay-reply": messages.RELAY_REPLY, "relay-request": messages.RELAY_REQUEST, "enrol-body": messages.ENROL_BODY,
    "enrol-reply": messages.ENROL_REPLY, "renewal": messages.RENEWAL, "renewal-reply": messages.RENEWAL_REPLY,
    "batch": messages.BATCH, "batch-reply": messages.BATCH_REPLY,
}  # fmt: skip


def op_message(item):
    return cbor.encode(messages.read(unhex(item["octets"]), MESSAGES[item["kind"]])).hex()


def op_code(item):
    code = read_code(item)
    return [code.hex(), identity(code), psk(code).hex()]


def op_gid(item):
    return gid_of(item["chain"], unhex(item["registry"]), unhex(item["device"]), item["bit"]).hex()


OPS = {name[3:]: work for name, work in list(globals().items()) if name.startswith("op_")}


def answer(command):
    if command["op"] == "vectors":
        counts, failed = {}, []

        def check(kind, what, good):
            counts[kind] = counts.get(kind, 0) + 1
            if good is not True:
                failed.append(f"{kind}: {what}" + ("" if good is False else f": {good}"))

        vectors.replay(command["file"], check)
        return {"counts": counts, "failed": failed}
    if command["op"] == "live":
        return live.run(command)
    return [tried(OPS[command["op"]], item) for item in command["items"]]


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
