"""§6 to §8: Keccak-256, EIP-712 digests, secp256k1 signatures with recovery."""

from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from .errors import need

MASK = (1 << 64) - 1
ROTATIONS = [
    [0, 36, 3, 41, 18], [1, 44, 10, 45, 2], [62, 6, 43, 15, 61], [28, 55, 25, 21, 56], [27, 20, 39, 8, 14],
]  # fmt: skip


def round_constants():
    out, lfsr = [], 1
    for _ in range(24):
        constant = 0
        for j in range(7):
            if lfsr & 1:
                constant |= 1 << ((1 << j) - 1)
            lfsr = (lfsr << 1) ^ (0x171 if lfsr & 0x80 else 0)
        out.append(constant)
    return out


CONSTANTS = round_constants()


def rotate(x, n):
    return ((x << n) | (x >> (64 - n))) & MASK if n else x


def keccak_f(a):
    for constant in CONSTANTS:
        c = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        d = [c[(x - 1) % 5] ^ rotate(c[(x + 1) % 5], 1) for x in range(5)]
        b = [[0] * 5 for _ in range(5)]
        for x in range(5):
            for y in range(5):
                b[y][(2 * x + 3 * y) % 5] = rotate(a[x][y] ^ d[x], ROTATIONS[x][y])
        a = [[b[x][y] ^ (~b[(x + 1) % 5][y] & MASK & b[(x + 2) % 5][y]) for y in range(5)] for x in range(5)]
        a[0][0] ^= constant
    return a


def keccak256(octets):
    padded = bytearray(octets + b"\x01" + bytes(-(len(octets) + 1) % 136))
    padded[-1] |= 0x80
    state = [[0] * 5 for _ in range(5)]
    for block in range(0, len(padded), 136):
        for n in range(17):
            lane = int.from_bytes(padded[block + 8 * n : block + 8 * n + 8], "little")
            state[n % 5][n // 5] ^= lane
        state = keccak_f(state)
    return b"".join(state[n % 5][n // 5].to_bytes(8, "little") for n in range(4))


def word(kind, value):
    if kind == "string":
        return keccak256(value.encode())
    if kind == "bytes":
        return keccak256(value)
    if kind.startswith("bytes"):
        need(len(value) == int(kind[5:]), "cose/malformed", kind)
        return value.ljust(32, b"\0")
    if kind == "address":
        return value.rjust(32, b"\0")
    return value.to_bytes(32, "big")


def struct_hash(type_text, values):
    fields = type_text[type_text.index("(") + 1 : -1].split(",")
    words = [word(field.split(" ")[0], value) for field, value in zip(fields, values, strict=True)]
    return keccak256(keccak256(type_text.encode()) + b"".join(words))


def domain(chain_id=None, contract=None):
    if chain_id is None:
        return struct_hash("EIP712Domain(string name,string version)", ["IoTChain", "1"])
    text = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    return struct_hash(text, ["IoTChain", "1", chain_id, contract])


def digest(domain_hash, type_text, values):
    return keccak256(b"\x19\x01" + domain_hash + struct_hash(type_text, values))


KEY_REQUEST = (
    "KeyRequest(address client,address device,bytes4 claims,bytes32 keyServer,bytes32 channel,"
    "bytes32 nonce,bytes32 signKey,uint64 issuedAt,uint64 expiresAt)"
)
REGISTRATION = (
    "Registration(address device,address owner,bytes32 signingKey,bytes32 keyServer,uint256 nonce,uint256 deadline)"
)
ENROLMENT = "Enrolment(address device,bytes32 csrHash,bytes32 signingKey,bytes32 channel)"

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def add(a, b):
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(point, n):
    out = None
    while n:
        if n & 1:
            out = add(out, point)
        point = add(point, point)
        n >>= 1
    return out


def address_of_point(point):
    return keccak256(point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big"))[12:]


def address_of(secret):
    return address_of_point(multiply(G, secret))


def recover(digest_octets, signature):
    """The address that made r ‖ s ‖ v (v is 27 or 28, or 0 or 1), or None."""
    if len(signature) != 65:
        return None
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    v = v + 27 if v in (0, 1) else v
    if v not in (27, 28) or not (0 < r < N and 0 < s <= N // 2):
        return None
    y = pow((pow(r, 3, P) + 7) % P, (P + 1) // 4, P)
    if (y * y - pow(r, 3, P) - 7) % P:
        return None
    point = (r, y if y % 2 == (v - 27) else P - y)
    z, inverse = int.from_bytes(digest_octets, "big"), pow(r, -1, N)
    key = add(multiply(point, s * inverse % N), multiply(G, -z * inverse % N))
    return None if key is None else address_of_point(key)


def sign(digest_octets, secret):
    key = ec.derive_private_key(secret, ec.SECP256K1())
    r, s = utils.decode_dss_signature(key.sign(digest_octets, ec.ECDSA(utils.Prehashed(SHA256()))))
    s = min(s, N - s)
    own = address_of(secret)
    for v in (27, 28):
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v])
        if recover(digest_octets, signature) == own:
            return signature
    raise AssertionError("one of the two recovers")
