"""Errors carry the stable codes of docs/errors.md."""


class ProtocolError(Exception):
    def __init__(self, code, text=""):
        super().__init__(f"{code}: {text}" if text else code)
        self.code = code


def need(condition, code, text=""):
    if not condition:
        raise ProtocolError(code, text)
