"""Replays test/vectors/groups-and-objects.json: what is written there comes out here, to the octet."""

import json

from iotc import cose, objects
from iotc.broadcast import BAD, Broadcast, claim, verify
from iotc.errors import ProtocolError
from iotc.manager import Manager
from iotc.member import Member, open_with
from iotc.primitives import ed25519_public, kid_of, sha256
from iotc.tree import (
    PersonalKey, cover, dyadic, epoch_secret, group_key, label, label_all, pack_subset, personal_labels, time_node,
    unpack_subset,
)  # fmt: skip


def refused(code, what):
    try:
        what()
    except ProtocolError as fault:
        return fault.code == code or f"{fault.code} instead of {code}"
    return f"taken instead of {code}"


def derive(data, check):
    d = data["derive"]
    gid, em = bytes.fromhex(d["gid"]), bytes.fromhex(d["EM"])
    check("derive", "EM", epoch_secret(bytes.fromhex(d["root"]), gid, d["epoch"]) == em)
    check("derive", "label of all", label_all(em).hex() == d["label_all"])
    for x in d["labels"]:
        check("derive", f"label {x['i']}, {x['j']}", label(em, x["i"], x["j"]).hex() == x["label"])
    for x in d["session_keys"]:
        check("derive", f"K of {x['j']}", group_key(time_node(em, 32, x["j"])).hex() == x["K"])
    for x in d["time_nodes"]:
        check("derive", f"T({x['level']}, {x['prefix']})", time_node(em, x["level"], x["prefix"]).hex() == x["node"])
    for x in data["dyadic"]:
        check("dyadic", f"{x['lo']} to {x['hi']}", dyadic(x["lo"], x["hi"]) == [tuple(n) for n in x["nodes"]])
    for x in data["cover"]:
        subsets = cover(x["depth"], x["live"])
        packed = [pack_subset(*s).hex() for s in subsets]
        back = [unpack_subset(bytes.fromhex(p), x["depth"]) for p in x["packed"]]
        good = subsets == [tuple(s) for s in x["subsets"]] == back and packed == x["packed"]
        check("cover", f"depth {x['depth']}, {len(x['live'])} leaves", good)
    for x in data["personal"]:
        labels = personal_labels(em, x["depth"], x["leaf"])
        good = labels.hex() == x["labels"] if "labels" in x else sha256(labels).hex() == x["labels_sha256"]
        check("personal", f"depth {x['depth']}, leaf {x['leaf']}", good)


def scenario(s, check):
    """Makes every broadcast and personal key anew, and lets every member open what it may and nothing else."""
    gid, seed = bytes.fromhex(s["gid"]), bytes.fromhex(s["kdc_ed25519_seed"])
    manager = Manager(gid, bytes.fromhex(s["root"]), seed, s["window"], s["min_depth"])
    made, number = [], 0
    for n, op in enumerate(s["ops"]):
        if op[0] == "epoch":
            following = next(o for o in s["ops"][n:] if o[0] == "broadcast")
            members = manager.allocate(following[1])
            manager.activate()
            made += [(m.ident, manager.personal_key(m, manager.active.number)) for m in members]
        elif op[0] == "join":
            until = None if op[3] is None else 1700000000 + 900 * op[3] + 1
            m = manager.join(op[1], op[2] == manager.published, until)
            check("start of a join", f"scenario {s['seed']}: {op[1]}", m.start == op[2])
            made.append((m.ident, manager.personal_key(m, manager.active.number)))
        elif op[0] == "leave":
            manager.leave(op[1])
        else:
            octets, want = manager.broadcast(op[1], op[2]), s["broadcasts"][number]
            number += 1
            payload = manager.sessions[-1]["broadcast"].encode().hex()
            same = payload == want["payload"] and octets.hex() == want["sign1"]
            check("broadcast", f"scenario {s['seed']}, session {want['session']}", same)
    got = sorted((k.epoch, ident, k.depth, k.leaf, k.start, k.labels.hex()) for ident, k in made)
    wanted = sorted(
        (p["epoch"], p["id"], p["depth"], p["leaf"], p["start"], p["labels"]) for p in s["personal_keys"]
    )
    for p in wanted:
        check("personal key", f"scenario {s['seed']}, epoch {p[0]}, {p[1]}", p in got)
    check("number of personal keys", f"scenario {s['seed']}", len(got) == len(wanted))
    openings(s, gid, ed25519_public(seed), check)


def openings(s, gid, pinned, check):
    members, keys = {}, {}
    for p in s["personal_keys"]:
        member = members.setdefault(p["id"], Member(gid, pinned))
        labels = bytes.fromhex(p["labels"])
        key = PersonalKey(gid, p["epoch"], p["depth"], p["leaf"], p["start"], labels)
        member.take_personal(PersonalKey.parse(key.encode()))
    for b in s["broadcasts"]:
        keys[b["session"]] = bytes.fromhex(b["K"])
        for ident, member in members.items():
            what = f"scenario {s['seed']}, session {b['session']}, {ident}"
            got = member.receive(bytes.fromhex(b["sign1"]))
            first = b["opens_from"].get(ident)
            check("who opens", what, (got == "opened") == (first is not None))
            if first is not None:
                run = open_with(Broadcast.parse(bytes.fromhex(b["payload"])), member.personal[b["epoch"]][0])
                right = all(group_key(run.node(j)) == keys[j] for j in range(run.first, b["session"] + 1))
                check("keys opened", what, run.first == first and right and run.node(first - 1) is None)


def negative(data, check):
    n = data["negative"]
    s = next(x for x in data["scenarios"] if x["seed"] == n["scenario"])
    gid, pinned = bytes.fromhex(s["gid"]), ed25519_public(bytes.fromhex(s["kdc_ed25519_seed"]))
    for x in n["must_not_parse"]:
        octets = bytes.fromhex(x["sign1"])
        check("negative", x["name"], refused(BAD, lambda: verify(claim(octets), pinned)))
    for x in n["must_not_open"]:
        octets = bytes.fromhex(x["sign1"])
        good, tried = True, 0
        epoch = verify(claim(octets), pinned).epoch
        for p in s["personal_keys"]:
            if p["epoch"] == epoch:
                member = Member(gid, pinned)
                labels = bytes.fromhex(p["labels"])
                member.take_personal(PersonalKey(gid, epoch, p["depth"], p["leaf"], p["start"], labels))
                try:
                    good = good and member.receive(octets) == "not for me"
                except ProtocolError as fault:
                    good, tried = good and fault.code == "group/kcv-mismatch", tried + 1
                good = good and not member.runs and member.highest == 0
        check("negative", x["name"], good and tried > 0)
    for x in n["must_not_verify"]:
        octets, codes = bytes.fromhex(x["sign1"]), ("group/bad-signature", "group/unknown-key")
        results = [refused(code, lambda: verify(claim(octets), pinned)) for code in codes]
        check("negative", x["name"], True in results or results[0])


def sealed(data, check):
    o = data["objects"]
    seed = bytes.fromhex(o["device_ed25519_seed"])
    public = ed25519_public(seed)
    check("kid", "of the device", kid_of(public).hex() == o["kid"])
    for x in o["cases"]:
        device, path, plaintext = bytes.fromhex(x["device"]), x["path"], bytes.fromhex(x["plaintext"])
        key, gid, sid = bytes.fromhex(x["K"]), bytes.fromhex(x["gid"]), bytes.fromhex(x["sid"])
        keys = objects.Keys(gid, x["session"], key, device, sid, path, x["alg"])
        inner = keys.seal(x["seq"], x["iat"], x["content_format"], plaintext)
        signed, maced = objects.sign(inner, device, path, seed, public), objects.mac(inner, keys)
        good = (
            keys.cek.hex() == x["cek"] and keys.base_iv.hex() == x["base_iv"] and keys.mack.hex() == x["mac_key"]
            and keys.nonce(x["seq"]).hex() == x["nonce"]
            and objects.external_aad(device, path).hex() == x["external_aad"]
            and inner.hex() == x["encrypt0"] and signed.hex() == x["sign1"] and maced.hex() == x["mac0"]
        )  # fmt: skip
        for octets in (signed, maced):
            obj = objects.SealedObject(octets)
            good = good and obj.open(key, device, path) == plaintext and obj.seq == x["seq"]
            good = good and (obj.form == cose.MAC0 or obj.signature_holds(device, path, public))
        good = good and refused("object/malformed", lambda: objects.SealedObject(inner)) is True
        check("object", f"alg {x['alg']}, {path}, seq {x['seq']}", good)


def replay(file, check):
    with open(file, encoding="utf-8") as handle:
        data = json.load(handle)
    derive(data, check)
    for s in data["scenarios"]:
        scenario(s, check)
    negative(data, check)
    sealed(data, check)

