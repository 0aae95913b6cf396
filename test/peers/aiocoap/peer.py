"""A CoAP server and client on aiocoap, driven over standard input and output (test/peers/protocol.ts says how).

    peer.py server HOST PORT     serves the resources that every peer serves, until standard input ends
    peer.py client HOST PORT     one command a line, one JSON result a line
    peer.py version
"""

import asyncio
import json
import logging
import os
import sys

os.environ["AIOCOAP_CLIENT_TRANSPORT"] = "udp6"
os.environ["AIOCOAP_SERVER_TRANSPORT"] = "udp6"

import aiocoap
import aiocoap.meta
import aiocoap.resource as resource
from aiocoap import Code, Message
from aiocoap.optiontypes import OpaqueOption

SMALL = b"a small body of 29 octets: ok"
PATIENCE_SECONDS = 8


def pattern(size, seed):
    return bytes((i * 31 + (i >> 8) * 17 + seed) & 255 for i in range(size))


async def stdin_lines():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode()


# ------------------------------------------------------------------ server


class Fixed(resource.Resource):
    def __init__(self, payload, content_format):
        super().__init__()
        self.payload = payload
        self.content_format = content_format

    async def render_get(self, request):
        return Message(payload=self.payload, content_format=self.content_format)


class Slow(resource.Resource):
    async def render_get(self, request):
        await asyncio.sleep(0.5)
        return Message(payload=b"late", content_format=0)


class Ticking(resource.ObservableResource):
    def __init__(self, render, seconds):
        super().__init__()
        self.count = 0
        self.render_count = render
        self.seconds = seconds

    async def tick(self):
        while True:
            await asyncio.sleep(self.seconds)
            self.count += 1
            self.updated_state()

    async def render_get(self, request):
        return self.render_count(self.count)


class Store(resource.Resource):
    def __init__(self):
        super().__init__()
        self.body = b""

    async def render_get(self, request):
        return Message(payload=self.body, content_format=42)

    async def render_put(self, request):
        self.body = request.payload
        return Message(code=Code.CHANGED)

    render_post = render_put


class Tagged(resource.Resource):
    TAG = bytes.fromhex("653031")

    async def render_get(self, request):
        if self.TAG in request.opt.etags:
            return Message(code=Code.VALID, etag=self.TAG)
        return Message(payload=b"tagged body", etag=self.TAG)


class Picky(resource.Resource):
    async def render_get(self, request):
        if request.opt.accept not in (None, 0):
            return Message(code=Code.NOT_ACCEPTABLE)
        return Message(payload=b"plain", content_format=0)


class Guarded(resource.Resource):
    TAG = bytes.fromhex("653032")

    async def render_put(self, request):
        if request.opt.if_none_match or (request.opt.if_match and self.TAG not in request.opt.if_match):
            return Message(code=Code.PRECONDITION_FAILED)
        return Message(code=Code.CHANGED)


async def server(host, port):
    site = resource.Site()
    obs = Ticking(lambda n: Message(payload=b"tick %d" % n), 0.05)
    obs_large = Ticking(
        lambda n: Message(payload=pattern(10240, n & 255), content_format=42, etag=b"\x20" + (n & 0xFFFF).to_bytes(2, "big")),
        0.4,
    )
    for path, entry in {
        "small": Fixed(SMALL, 0),
        "large": Fixed(pattern(10240, 1), 42),
        "reading": Fixed(pattern(175, 3), 18),
        "slow": Slow(),
        "obs": obs,
        "obslarge": obs_large,
        "store": Store(),
        "etag": Tagged(),
        "accept": Picky(),
        "ifmatch": Guarded(),
        "critical": Fixed(SMALL, 0),
    }.items():
        site.add_resource([path], entry)
    context = await aiocoap.Context.create_server_context(site, bind=(host, port))
    ticking = [asyncio.create_task(obs.tick()), asyncio.create_task(obs_large.tick())]
    print(json.dumps({"ready": True, "port": port}), flush=True)
    async for _ in stdin_lines():
        pass
    for task in ticking:
        task.cancel()
    await context.shutdown()


# ------------------------------------------------------------------ client


def outcome(response):
    found = {"code": response.code.dotted, "payload": response.payload.hex()}
    if response.opt.etag is not None:
        found["etag"] = response.opt.etag.hex()
    if response.opt.content_format is not None:
        found["format"] = int(response.opt.content_format)
    return found


def build(base, fields):
    tuning = aiocoap.Unreliable if fields.get("type") == "NON" else aiocoap.Reliable
    payload = pattern(int(fields["size"]), int(fields.get("seed", 0))) if "size" in fields else b""
    request = Message(
        code=getattr(Code, fields.get("method", "GET")), uri=base + fields["path"], payload=payload, transport_tuning=tuning
    )
    if "etag" in fields:
        request.opt.etags = [bytes.fromhex(fields["etag"])]
    if "ifmatch" in fields:
        request.opt.if_match = [bytes.fromhex(fields["ifmatch"])]
    if "ifnonematch" in fields:
        request.opt.if_none_match = True
    if "accept" in fields:
        request.opt.accept = int(fields["accept"])
    if "format" in fields:
        request.opt.content_format = int(fields["format"])
    if "critical" in fields:
        request.opt.add_option(OpaqueOption(int(fields["critical"]), b"x"))
    return request


async def observe(context, base, fields):
    request = build(base, fields)
    request.opt.observe = 0
    wanted = int(fields.get("count", 1))
    running = context.request(request)
    found = []
    enough = asyncio.Event()

    def take(response, at=None):
        if len(found) < wanted:
            found.insert(len(found) if at is None else at, {**outcome(response), "observe": response.opt.observe is not None})
        if len(found) >= wanted:
            enough.set()

    running.observation.register_callback(take, _suppress_deprecation=True)
    # a notification may be handed over before this task gets the first response
    take(await asyncio.wait_for(running.response, PATIENCE_SECONDS), 0)
    await asyncio.wait_for(enough.wait(), PATIENCE_SECONDS)
    # aiocoap forgets the observation: the next notification draws a RST
    running.observation.cancel()
    return {"notifications": found}


async def client(host, port):
    context = await aiocoap.Context.create_client_context()
    base = "coap://%s:%d" % ("[%s]" % host if ":" in host else host, port)
    async for line in stdin_lines():
        op, *rest = line.split()
        fields = dict(item.split("=", 1) for item in rest)
        try:
            if op == "observe":
                result = await observe(context, base, fields)
            else:
                response = context.request(build(base, fields)).response
                result = outcome(await asyncio.wait_for(response, PATIENCE_SECONDS))
        except Exception as error:  # the library's own word is the result
            result = {"error": "%s %s" % (type(error).__name__, error)}
        print(json.dumps({"id": int(fields["id"]), **result}), flush=True)
    await context.shutdown()


logging.basicConfig(level=logging.CRITICAL)
if sys.argv[1:] == ["version"]:
    print(json.dumps({"name": "aiocoap", "version": aiocoap.meta.version}))
elif len(sys.argv) == 4 and sys.argv[1] in ("server", "client"):
    asyncio.run((server if sys.argv[1] == "server" else client)(sys.argv[2], int(sys.argv[3])))
else:
    sys.exit("usage: peer.py server|client HOST PORT")
