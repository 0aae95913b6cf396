"""§5.5 and §6: what a join sends and gets."""

from . import cbor
from .errors import need
from .tree import PersonalKey

PERSONAL_KEY = 27
MAX_UINT = 2**53 - 1


def uint(x, most=MAX_UINT):
    return type(x) is int and 0 <= x <= most


def upto(most):
    return lambda x: uint(x, most)


def octets(low, high=None):
    return lambda x: isinstance(x, bytes) and low <= len(x) <= (low if high is None else high)


def text(most):
    return lambda x: isinstance(x, str) and len(x.encode("utf-16-le")) // 2 <= most


def many(rule, low, high):
    return lambda x: isinstance(x, list) and low <= len(x) <= high and all(rule(item) for item in x)


def row(*rules):
    return lambda x: isinstance(x, list) and len(x) == len(rules) and all(r(item) for r, item in zip(rules, x))


def fields(required, optional=None):
    """A map of exactly these labels, each with what its rule takes."""
    rules = {**required, **(optional or {})}

    def fits(x):
        if not isinstance(x, dict) or not set(required) <= set(x) <= set(rules):
            return False
        return all(rules[label](value) for label, value in x.items())

    return fits


def is_(*values):
    return lambda x: type(x) in {type(v) for v in values} and x in values


def either(*rules):
    return lambda x: any(rule(x) for rule in rules)


def group_number(x):
    return uint(x, 0xFFFFFFFF) and x >= 1


def signed_request(x):
    return row(
        row(
            octets(20), octets(20), octets(4), octets(32), octets(32), octets(32), octets(32), uint, uint,
        ),
        octets(65, 4096),
    )(x) and x[0][7] < x[0][8]  # fmt: skip


SID, KEY, PERSONAL = octets(1, 7), octets(1, 256), octets(1, 8192)
PROFILE = is_(-70001)
NUM = upto(0xFFFFFFFF)
KEYS = many(row(group_number, octets(16)), 1, 64)
GROUP_POLICIES = fields(
    {
        1: uint, 2: uint, -70001: is_(24, 10, 1), -70002: uint, -70003: uint, -70004: uint,
        -70005: either(uint, is_("safe", "finalized")),
    }
)  # fmt: skip

JOIN_REQUEST = fields({3: upto(31)}, {5: KEY, 24: either(octets(64), signed_request)})
JOIN_RESPONSE = fields(
    {
        7: PROFILE, 9: NUM, 11: uint, 12: uint, 13: many(octets(1, 32768), 0, 1024), 15: many(SID, 0, 1024),
        16: GROUP_POLICIES, 17: KEY, 20: PROFILE, 26: text(512), 27: PERSONAL, 28: text(512), -70002: uint,
    },
    {8: KEYS, 21: SID},
)  # fmt: skip
NODE_KEYS = fields(
    {7: PROFILE, 9: NUM, 11: uint, 12: uint, 27: PERSONAL, -70002: uint}, {8: KEYS, 21: SID, -70003: PERSONAL}
)
SENDER_ID = fields({21: SID})
CREDS_LIST = fields({9: NUM, 13: many(octets(1, 32768), 0, 4096), 15: many(SID, 0, 4096)})
CREDS_QUERY = fields({4: row(is_(False, True), many(SID, 0, 0), many(SID, 0, 256))})
GROUPS_QUERY = fields({0: many(octets(8), 1, 64)})
KDC_CRED = fields({17: KEY})
POLICIES = fields({16: GROUP_POLICIES})
AUTHZ_REQUEST = fields({"client": octets(20), "device": octets(20), "claims": octets(4)})
CHALLENGE = fields({12: upto(86400), 30: octets(32)})
RELAY_TASK = fields({12: upto(86400), 30: octets(32), "difficulty": upto(64)})
RELAY_REQUEST = row(
    octets(32), octets(8), octets(20), octets(20), upto(0xFFFFFFFF), uint, octets(0, 8192), uint, octets(65, 4096)
)
RELAY_REPLY = fields({"transaction": octets(32)})
ENROL_BODY = row(octets(1, 4096), KEY, octets(20), octets(65))
CHAIN = fields({1: uint, 2: octets(20)}, {3: octets(1, 16384)})
CERTIFICATE = octets(1, 8192)
ENROL_REPLY = row(CERTIFICATE, many(CERTIFICATE, 1, 8), KEY, octets(20), octets(32), CHAIN)
RENEWAL = row(octets(1, 4096))
RENEWAL_REPLY = row(CERTIFICATE, many(CERTIFICATE, 1, 8))
BATCH = many(row(many(text(255), 1, 16), octets(1, 65535)), 1, 512)
BATCH_REPLY = many(lambda x: uint(x, 255) and x >= 64, 1, 512)


def GROUPS_REPLY(x):
    same_length = isinstance(x, dict) and len({len(v) for v in x.values() if isinstance(v, list)}) == 1
    lists = fields({0: many(octets(8), 0, 64), 1: many(text(64), 0, 64), 2: many(text(512), 0, 64)})
    return same_length and lists(x)


def read(body, rule, code="message/malformed"):
    need(len(body) > 0, code, "empty")
    item = cbor.decode(body)
    need(rule(item), code, repr(item)[:200])
    return item


def personal_key_of(reply):
    return PersonalKey.parse(reply[PERSONAL_KEY])


def authz_request(client, device, claims):
    return cbor.encode({"client": client, "device": device, "claims": claims})


def signed_key_request(values, signature):
    """`values` in the order of the EIP-712 type."""
    return [list(values), signature]


def join_request(scope, client_cred=None, verify=None):
    item = {3: scope}
    if client_cred is not None:
        item[5] = cbor.encode(client_cred)
    if verify is not None:
        item[24] = verify
    return cbor.encode(item)


def groups_query(gids):
    return cbor.encode({0: gids})


def creds_query(inclusion, sids):
    return cbor.encode({4: [inclusion, [], sids]})
