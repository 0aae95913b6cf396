"""An Ethereum key from a version 3 keystore with scrypt."""

import json

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from .ethereum import keccak256


def open_keystore(path, password):
    with open(path, encoding="utf-8") as handle:
        store = json.load(handle)
    crypto = {key.lower(): value for key, value in store.items()}["crypto"]
    p = crypto["kdfparams"]
    kdf = Scrypt(salt=bytes.fromhex(p["salt"]), length=p["dklen"], n=p["n"], r=p["r"], p=p["p"])
    derived, sealed = kdf.derive(password.encode()), bytes.fromhex(crypto["ciphertext"])
    if keccak256(derived[16:32] + sealed).hex() != crypto["mac"]:
        raise ValueError("wrong password")
    iv = bytes.fromhex(crypto["cipherparams"]["iv"])
    return int.from_bytes(Cipher(algorithms.AES(derived[:16]), modes.CTR(iv)).decryptor().update(sealed), "big")
