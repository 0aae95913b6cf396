"""The second implementation against running daemons: everything over real CoAP and DTLS, nothing handed over.

The command says where they are, and the Ethereum key of a client that holds a token. Every step is a check; the first
that cannot be made ends the run.
"""

import re
import time
import traceback

from iotc import cbor, content, ethereum, messages, objects
from iotc.coap import CONTENT_FORMAT, DELETE, ETAG, FETCH, GET, POST, Client, Udp, dotted
from iotc.credential import Credential
from iotc.dtls import Dtls
from iotc.errors import ProtocolError
from iotc.member import Member
from iotc.primitives import read_cose_key
from iotc.session import credentials, fetch_groups, good, join, login, newest_broadcast, spki_hash
from iotc.tree import gid_of

PACK_SECONDS = 40
START_SECONDS = 100


def problem(answer):
    """The stable code in the title of problem details (§5.1)."""
    return cbor.decode(answer.payload, strict=False).get(-1) if answer.option(CONTENT_FORMAT) == b"\x01\x01" else None


def told(answer):
    return f"{dotted(answer.code)}, {answer.options}, {answer.payload.hex()}"


class Live:
    def __init__(self, command):
        self.checks, self.failed = 0, []
        self.registry, self.chain = bytes.fromhex(command["registry"]), command["chain"]
        self.device, self.bit, self.path = bytes.fromhex(command["device"]), command["bit"], command["path"]
        self.secret = int(command["secret"], 16)
        self.key_server = bytes.fromhex(command["keyServer"])
        self.secure_at = command["coaps"]
        self.plain, self.at_device, self.at_proxy = (
            Client(Udp(*command[name])) for name in ("coap", "deviceCoap", "proxyCoap")
        )
        self.gid = gid_of(self.chain, self.registry, self.device, self.bit)
        self.address = ethereum.address_of(self.secret)
        self.node = ["nodes", "01" + self.address.hex()]

    def check(self, what, good_):
        self.checks += 1
        if not good_:
            self.failed.append(what)

    def group(self, client, *rest, method=GET, **more):
        return client.request(method, ["ace-group", self.gid.hex(), *rest], **more)

    def device_seals(self):
        """The device has joined, and there are a credential and a reading of it to be had."""
        listed = self.group(self.plain, "creds")
        if listed.code >> 5 != 2 or not messages.read(listed.payload, messages.CREDS_LIST)[13]:
            return False
        hosted = ["d", "0x" + self.device.hex(), *self.path]
        return all(c.request(GET, p).code >> 5 == 2 for c, p in ((self.at_device, self.path), (self.at_proxy, hosted)))

    def strangers(self):
        """What anybody may have, and what nobody gets without DTLS."""
        last = time.monotonic() + START_SECONDS
        while time.monotonic() < last and not self.device_seals():
            time.sleep(0.5)
        self.outside = newest_broadcast(self.plain, self.gid)
        listed = credentials(self.plain, self.gid)
        self.check("Sender IDs stand beside credentials", len(listed[13]) == len(listed[15]) > 0)
        for path in (["num"], ["kdc-cred"], ["policies"], self.node):
            self.check(f"{path[0]} is not to be had in the open", self.group(self.plain, *path).code >> 5 == 4)

    def log_in(self):
        self.tls = Dtls(*self.secure_at)
        self.secure = Client(self.tls)
        self.check("the key server is the one in the registry", spki_hash(self.tls.certificate) == self.key_server)
        refused = self.group(self.secure, method=POST, payload=messages.join_request(self.bit), content_format=261)
        title = problem(refused)
        self.check(f"no join without a login: {told(refused)}", title == "keyserver/login-required")
        args = (self.secure, self.tls.binding, self.key_server, self.chain, self.registry, self.device, self.bit)
        foreign = login(*args[:1], bytes(32), *args[2:], self.secret)
        answer = self.group(
            self.secure, method=POST, payload=messages.join_request(self.bit, None, foreign), content_format=261
        )
        bad = dotted(answer.code) == "4.01" and problem(answer) == "keyserver/bad-proof"
        self.check(f"a request for another channel is refused: {told(answer)}", bad)
        spent = self.group(
            self.secure, method=POST, payload=messages.join_request(self.bit, None, foreign), content_format=261
        )
        fresh = dotted(spent.code) == "4.00" and messages.CHALLENGE(cbor.decode(spent.payload))
        self.check(f"a challenge is spent at the first attempt, 4.00 brings another: {told(spent)}", fresh)
        self.signed = login(*args, self.secret)
        code, self.reply, self.pinned = join(self.secure, self.gid, self.bit, self.signed)
        self.check("joined", code == "2.01")
        again, reply, _ = join(self.secure, self.gid, self.bit, self.signed)
        same = reply[27] == self.reply[27]
        self.check("the same join again gives the same personal key", again in ("2.01", "2.04") and same)

    def member(self):
        self.m = Member(self.gid, self.pinned)
        self.m.take_personal(messages.personal_key_of(self.reply))
        self.m.take_keys(self.reply.get(8, []))
        self.check("keys from the join on", self.m.key(messages.personal_key_of(self.reply).start) is not None)
        self.check("the broadcast of before has nothing in it", self.m.receive(self.outside.payload) == "not for me")
        self.credentials = [Credential.read(c, self.pinned, time.time()) for c in self.reply[13]]
        held = any(c.address == self.device and c.kind == "device" for c in self.credentials)
        self.check("the device's credential", held)

    def next_broadcast(self):
        last = time.monotonic() + 30
        while time.monotonic() < last:
            answer = newest_broadcast(self.plain, self.gid)
            if self.m.receive(answer.payload) == "opened":
                etag = answer.option(ETAG) == self.m.highest.to_bytes(4, "big")
                self.check("a broadcast opens and its ETag is its session", etag)
                self.looked = time.time()
                return
            time.sleep(0.5)
        self.check("a broadcast opens within 30 s", False)

    def mirrors(self):
        answer = newest_broadcast(self.at_proxy, self.gid)
        self.check("the proxy mirrors broadcasts", self.m.receive(answer.payload) in ("opened", "ignored"))
        old = newest_broadcast(self.plain, self.gid, self.m.highest)
        self.check("the archive gives it again", self.m.receive(old.payload, asked=True) == "opened")
        self.check("unasked it is ignored", self.m.receive(old.payload) == "ignored")

    def read(self, where, path, accept, form):
        answer = good(where.request(GET, path, accept=accept), "2.05")
        obj = objects.SealedObject(answer.payload)
        self.check(f"form {form}", obj.form == form and answer.option(ETAG) == obj.etag)
        if form == 18:
            plaintext = objects.open_signed(obj, self.device, self.path, self.credentials, self.m.key)
        else:
            plaintext = obj.open(self.m.key(obj.session), self.device, self.path)
        order = objects.place(self.credentials[0].sids(self.gid), obj.sid, obj.seq)
        now, later = time.time(), self.m.later_began(obj.session)
        flags = objects.judge(obj, now, None, self.m.times.get(obj.session), order, 300, 5, later, self.looked)
        self.check(f"form {form} is fresh", flags == [])
        self.check(f"form {form} is SenML", obj.content_format == 112 and len(content.read_senml(plaintext)) > 0)
        return obj

    def objects_(self):
        hosted = ["d", "0x" + self.device.hex(), *self.path]
        obj = self.read(self.at_device, self.path, None, 18)
        self.read(self.at_device, self.path, 18, 18)
        self.read(self.at_device, self.path, 17, 17)
        self.read(self.at_proxy, hosted, None, 18)
        self.check("a proxy has signed objects only", dotted(self.at_proxy.request(GET, hosted, accept=17).code) == "4.06")
        try:
            objects.open_signed(obj, self.device, ["s", "other"], self.credentials, self.m.key, [self.path])
            self.check("another path", False)
        except ProtocolError as fault:
            self.check("an object of another path is swapped", fault.code == "object/swapped")
        identity = Credential.read(good(self.at_device.request(GET, ["id"]), "2.05").payload, self.pinned, time.time())
        self.check("the device's own credential", identity.address == self.device)

    def packs(self):
        hosted = ["d", "0x" + self.device.hex(), *self.path]
        last = time.monotonic() + PACK_SECONDS
        while time.monotonic() < last:
            links = good(self.at_proxy.request(GET, hosted, query=["from=0", "to=99999999999"]), "2.05").payload
            for link in re.findall(r"<([^>]*/@pack/\d+)>", links.decode())[::-1][:3]:
                segments = link.strip("/").split("/")
                obj = objects.SealedObject(good(self.at_proxy.request(GET, segments), "2.05").payload)
                if self.m.key(obj.session) is None:
                    continue
                at = content.pack_path(self.path)
                plaintext = objects.open_signed(obj, self.device, at, self.credentials, self.m.key)
                (low, high, first, until), records = content.read_pack(plaintext)
                self.check("a pack's place is its number", obj.seq == int(segments[-1]) and obj.content_format == 60)
                self.check("a pack holds readings", len(records) > 0 and low <= high and first <= until <= obj.iat)
                return
            time.sleep(1)
        self.check(f"a pack within {PACK_SECONDS} s", False)

    def membership(self):
        keys = messages.read(good(self.group(self.secure, *self.node), "2.05").payload, messages.NODE_KEYS)
        self.check("the personal key again", keys[27] == self.reply[27])
        num = cbor.decode(good(self.group(self.secure, "num"), "2.05").payload)
        self.check("num", num >= self.m.highest)
        kdc = messages.read(good(self.group(self.secure, "kdc-cred"), "2.05").payload, messages.KDC_CRED)
        self.check("kdc-cred", read_cose_key(cbor.decode(kdc[17])) == self.pinned)
        policies = messages.read(good(self.group(self.secure, "policies"), "2.05").payload, messages.POLICIES)
        self.check("policies", policies[16] == self.reply[16])
        groups = fetch_groups(self.secure, [self.gid, bytes(8)])
        self.check("groups by gid", groups[0] == [self.gid] and groups[1] == [self.gid.hex()])
        answer = self.group(
            self.secure, "creds", method=FETCH, payload=messages.creds_query(False, []), content_format=261
        )
        listed = messages.read(good(answer, "2.05").payload, messages.CREDS_LIST)
        self.check("credentials by query", listed[13] == self.reply[13])
        self.check("no other's node", self.group(self.secure, "nodes", "01" + "00" * 20).code >> 5 == 4)

    def leave(self):
        self.check("left", dotted(self.group(self.secure, *self.node, method=DELETE).code) == "2.02")
        last, answer = time.monotonic() + 30, None
        while time.monotonic() < last:
            answer = self.m.receive(newest_broadcast(self.plain, self.gid).payload)
            if answer == "not for me":
                break
            time.sleep(0.5)
        self.check("broadcasts after it hold nothing", answer == "not for me")
        self.check("nor does the node", self.group(self.secure, *self.node).code >> 5 == 4)
        self.tls.close()


def run(command):
    live, steps = Live(command), []
    for step in (
        "strangers", "log_in", "member", "next_broadcast", "mirrors", "objects_", "packs", "membership", "leave",
    ):  # fmt: skip
        try:
            getattr(live, step)()
            steps.append(step.rstrip("_"))
        except (ProtocolError, OSError, TimeoutError, KeyError, ValueError, TypeError) as fault:
            where = traceback.extract_tb(fault.__traceback__)
            live.failed.append(f"{step}: {fault!r} at {[f'{f.name}:{f.lineno}' for f in where[-4:]]}")
            break
    return {"checks": live.checks, "failed": live.failed, "steps": steps}
