"""A DTLS 1.2 channel by `openssl s_client`, with its channel binding (§5.2)."""

import os
import re
import select
import subprocess
import time

PIECE = 1024
REST_SECONDS = 0.5


class Dtls:
    def __init__(self, host, port, certificate=None, key=None):
        command = [
            "openssl", "s_client", "-dtls1_2", "-connect", f"{host}:{port}",
            "-nocommands", "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32", "-showcerts",
        ]  # fmt: skip
        if certificate is not None:
            command += ["-cert", certificate, "-key", key]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self.buffer = b""
        text = self.until(rb"Keying material: ([0-9A-F]{64})\n.*---\n")
        self.binding = bytes.fromhex(re.search(rb"Keying material: ([0-9A-F]{64})", text)[1].decode())
        self.certificate = re.search(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.S)[0]

    def until(self, pattern):
        last = time.monotonic() + 20
        while time.monotonic() < last:
            found = re.search(pattern, self.buffer, re.S)
            if found:
                text, self.buffer = self.buffer[: found.end()], self.buffer[found.end() :]
                return text
            piece = self.read(1)
            if piece == b"":
                break
        self.close()
        raise ConnectionError("no DTLS: " + self.process.stderr.read().decode(errors="replace")[-600:])

    def read(self, seconds):
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.01, seconds))
        if not ready:
            return None
        piece = os.read(self.process.stdout.fileno(), 65536)
        self.buffer += piece
        return piece

    def send(self, octets):
        self.process.stdin.write(octets)

    def receive(self, seconds):
        """A record; s_client passes it on in pieces of at most 1024 octets. An empty acknowledgement may precede another message."""
        if not self.buffer and not self.read(seconds):
            return None
        while len(self.buffer) % PIECE == 0 and self.read(REST_SECONDS):
            pass
        if len(self.buffer) > 4 and self.buffer[1] == 0:
            octets, self.buffer = self.buffer[:4], self.buffer[4:]
        else:
            octets, self.buffer = self.buffer, b""
        return octets

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(5)
