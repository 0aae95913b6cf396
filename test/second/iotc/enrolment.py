"""§8: enrolment codes."""

import base64
import re

from .errors import need
from .primitives import hkdf_expand, hkdf_extract, sha256


def read_code(text):
    code = "message/bad-code"
    letters = re.sub(r"[\s-]", "", text).upper()
    need(re.fullmatch(r"[A-Z2-7]{26}", letters) is not None, code)
    octets = base64.b32decode(letters + "======")
    need(base64.b32encode(octets).decode().rstrip("=") == letters, code, "bits behind the end")
    return octets


def identity(code):
    return "enrol:" + sha256(code)[:8].hex()


def psk(code):
    return hkdf_expand(hkdf_extract(b"", code), b"iotc1 enrol", 32)
