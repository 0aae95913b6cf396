"""Plaintexts: SenML, packs (§4.7), commands (§4.10)."""

from . import cbor
from .errors import ProtocolError, need

SENML, PACK = 112, 60
MAX_RECORDS = 4096
NAME, UNIT, VALUE, STRING, TRUTH, SUM, TIME, UPDATE, DATA = range(9)
BASE_VERSION, BASE_NAME, BASE_TIME, BASE_UNIT, BASE_VALUE, BASE_SUM = -1, -2, -3, -4, -5, -6
NUMERIC = {BASE_VERSION, BASE_TIME, BASE_VALUE, BASE_SUM, VALUE, SUM, TIME, UPDATE}
TEXTUAL = {BASE_NAME, BASE_UNIT, NAME, UNIT, STRING}
RELATIVE = 2**28


def number(x):
    return type(x) in (int, float)


def kind_fits(label, value):
    if label in NUMERIC:
        return number(value)
    if label in TEXTUAL:
        return isinstance(value, str)
    return isinstance(value, bool if label == TRUTH else bytes)


def records(items):
    """The records of an array as they stand, without the fields that nobody here knows."""
    need(isinstance(items, list) and len(items) <= MAX_RECORDS, "senml/malformed", "no array, or too many records")
    out = []
    for item in items:
        need(isinstance(item, dict), "senml/malformed", "no map")
        record = {}
        for label, value in item.items():
            if type(label) is not int or not BASE_SUM <= label <= DATA:
                mandatory = isinstance(label, str) and label.endswith("_")
                need(not mandatory, "senml/malformed", "an unknown mandatory field")
                continue
            need(kind_fits(label, value), "senml/malformed", f"field {label}")
            record[label] = value
        values = [label for label in (VALUE, STRING, TRUTH, DATA) if label in record]
        need(len(values) <= 1, "senml/malformed", "two values")
        out.append(record)
    return out


def resolve(items, now):
    """[name, time or None, unit or None, value or None] of each record, base fields applied (RFC 8428 §4.6)."""
    base = {BASE_NAME: "", BASE_TIME: 0, BASE_VALUE: 0, BASE_UNIT: None}
    out = []
    for record in items:
        base.update({label: value for label, value in record.items() if label < 0})
        time = base[BASE_TIME] + record.get(TIME, 0)
        time = now + time if time < RELATIVE else time
        if TIME not in record and base[BASE_TIME] == 0:
            time = None
        if VALUE in record:
            value = base[BASE_VALUE] + record[VALUE]
        else:
            value = next((record[label] for label in (STRING, TRUTH, DATA) if label in record), None)
        out.append([base[BASE_NAME] + record.get(NAME, ""), time, record.get(UNIT, base[BASE_UNIT]), value])
    return out


def read_senml(plaintext):
    try:
        item = cbor.decode(plaintext, strict=False)
    except ProtocolError as fault:
        raise ProtocolError("senml/malformed", str(fault)) from None
    return records(item)


def whole(x):
    """An unsigned integer; read leniently also as a float (§2.2)."""
    return number(x) and x == int(x) and 0 <= x < 2**53


def make_pack(from_seq, to_seq, first, last, senml):
    return cbor.encode([[from_seq, to_seq, first, last], *senml])


def read_pack(plaintext):
    code = "object/bad-pack"
    try:
        item = cbor.decode(plaintext, strict=False)
    except ProtocolError as fault:
        raise ProtocolError(code, str(fault)) from None
    need(isinstance(item, list) and item and isinstance(item[0], list) and len(item[0]) == 4, code)
    need(all(whole(n) for n in item[0]), code)
    from_seq, to_seq, first, last = item[0]
    need(from_seq <= to_seq < 2**40 and first <= last, code)
    return [int(n) for n in item[0]], records(item[1:])


def pack_path(path):
    return [*path, "@pack"]


def make_command(value):
    return cbor.encode([{TRUTH if isinstance(value, bool) else VALUE: value}])


def read_command(plaintext):
    """The truth or number of a command (the value as it stands: base values are refused)."""
    code = "object/bad-command"
    items = read_senml(plaintext)
    need(len(items) == 1, code, "one record")
    need(BASE_VALUE not in items[0], code, "a base value")
    need(TRUTH in items[0] or VALUE in items[0], code, "a truth or a number")
    return items[0].get(TRUTH, items[0].get(VALUE))
