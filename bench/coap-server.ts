/**
 * One contender of the CoAP bench in a process of its own: `node coap-server.js KIND [OCTETS]`. Prints `ready PORT`.
 * KIND: `engine` (a reply kept ready), `handler` (the handler runs for each request), `node-coap`, `echo` (bare dgram).
 */
import { createSocket } from 'node:dgram'
import { Code } from '../transport/coap/codes.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { CoapEndpoint } from '../transport/coap/endpoint.ts'
import { ready } from '../transport/coap/reply.ts'
import { Router } from '../transport/coap/server.ts'
import { bindUdp } from '../transport/coap/udp.ts'

const HOST = '127.0.0.1'

function announce(port: number): void {
  process.stdout.write(`ready ${port}\n`)
}

async function serveEngine(object: Uint8Array): Promise<void> {
  const sealed = {
    code: Code.content,
    payload: object,
    contentFormat: ContentFormat.coseSign1,
    etag: object.subarray(0, 8),
    maxAge: 10,
  }
  const reply = ready({ ...sealed })
  const router = new Router()
    .add({ pattern: '/sealed', get: () => reply })
    .add({ pattern: '/handler', get: () => sealed, put: () => ({ code: Code.changed }) })
  const transport = await bindUdp({ host: HOST })
  new CoapEndpoint(transport, { router })
  announce(transport.address.port)
}

async function serveNodeCoap(object: Uint8Array): Promise<void> {
  const { createServer } = await import('coap')
  const body = Buffer.from(object)
  const server = createServer({ type: 'udp4' }, (_request, response) => {
    response.setOption('ETag', body.subarray(0, 8))
    response.setOption('Content-Format', Buffer.from([ContentFormat.coseSign1]))
    response.setOption('Max-Age', 10)
    response.end(body)
  })
  server.listen(0, HOST, () => announce((server._sock as unknown as { address(): { port: number } }).address().port))
}

function serveEcho(): void {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1024 * 1024 })
  socket.on('message', (datagram, remote) => socket.send(datagram, remote.port, remote.address))
  socket.bind(0, HOST, () => announce(socket.address().port))
}

const [kind = 'engine', octets = '178'] = process.argv.slice(2)
const object = Uint8Array.from({ length: Number(octets) }, (_, i) => (i * 89) & 255)
process.stdin.on('end', () => process.exit(0)).resume()
if (kind === 'node-coap') await serveNodeCoap(object)
else if (kind === 'echo') serveEcho()
else await serveEngine(object)
