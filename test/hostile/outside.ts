/**
 * Programs of the outer namespace, with real sockets:
 *
 *   outside get PORT PATH [CA_FILE]      our client; prints {"code","octets"} or {"error"}
 *   outside observe PORT PATH LOCAL      our client observes from port LOCAL until standard input ends; prints {"notifications"}
 *   outside victim HOST PORT COUNT       binds COUNT ports of a spoofed source; prints {"octets","datagrams"} at the end
 *   outside slow PORT READ UPLOAD COUNT  COUNT peers that begin everything and finish nothing, until standard input ends
 *   outside half-open PORT HOST COUNT    COUNT handshakes from HOST that stop after the cookie
 */
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { CoapClient } from '../../transport/coap/client.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { dial } from '../../transport/dial.ts'
import { block, coap, path } from './datagrams.ts'
import { SERVER_ADDRESS } from './namespaces.ts'

const say = (what: object): void => void process.stdout.write(`${JSON.stringify(what)}\n`)

async function inputEnds(): Promise<void> {
  process.stdin.resume()
  await once(process.stdin, 'end')
}

async function bound(host: string, port: number): Promise<Socket> {
  const socket = createSocket('udp4')
  socket.on('error', () => {})
  socket.bind(port, host)
  await once(socket, 'listening')
  return socket
}

async function get(port: string, resource: string, caFile?: string): Promise<void> {
  try {
    const client = await dial(`${caFile === undefined ? 'coap' : 'coaps'}://${SERVER_ADDRESS}:${port}`, {
      secure:
        caFile === undefined
          ? undefined
          : {
              ca: readFileSync(caFile, 'utf8'),
              servername: '127.0.0.1',
              handshakeTimeout: 8000,
              retransmitInitial: 250,
            },
    })
    const { codeText, payload } = await client.get(resource, { timeoutMs: 8000 })
    say({ code: codeText, octets: payload.length })
    await client.close()
  } catch (error) {
    say({ error: error instanceof Error ? error.message : String(error) })
  }
}

async function observe(port: string, resource: string, local: string): Promise<void> {
  const transport = await bindUdp({ host: '0.0.0.0', port: Number(local) })
  const client = new CoapClient(new CoapEndpoint(transport), await transport.peer(SERVER_ADDRESS, Number(port)))
  let notifications = 0
  let end: string | undefined
  const observation = client.observe(resource, {
    onNotification: () => notifications++,
    onEnd: (error) => {
      end = error?.message
    },
  })
  await observation.ready.catch(() => {})
  say({ ready: true, notifications })
  process.stdin.on('data', () => say({ notifications, end }))
  await inputEnds()
  observation.close()
  say({ notifications, end })
  await client.close()
}

async function victim(host: string, port: string, count: string): Promise<void> {
  let octets = 0
  let datagrams = 0
  const sockets = await Promise.all(Array.from({ length: Number(count) }, (_, i) => bound(host, Number(port) + i)))
  for (const socket of sockets) {
    socket.on('message', (message) => {
      octets += message.length
      datagrams++
    })
  }
  say({ ready: true })
  await inputEnds()
  say({ octets, datagrams })
}

/** Not the address of honest clients: what an address may draw is limited. */
const SLOW_ADDRESS = '10.99.4.4'

async function slow(port: string, read: string, upload: string, count: string): Promise<void> {
  const sockets = await Promise.all(Array.from({ length: Number(count) }, () => bound(SLOW_ADDRESS, 0)))
  let answers = 0
  const body = Buffer.alloc(1024, 0x55)
  for (const socket of sockets) socket.on('message', () => answers++)
  for (const [i, socket] of sockets.entries()) {
    const token = Buffer.of(i >> 8, i & 255)
    const send = (datagram: Buffer): void => socket.send(datagram, Number(port), SERVER_ADDRESS)
    send(coap({ messageId: 1, token, options: [[6, Buffer.alloc(0)], ...path(read)] }))
    send(coap({ messageId: 2, token, options: [...path(read), [23, block(0, false, 0)]] }))
    send(
      coap({
        code: 3,
        messageId: 3,
        token,
        options: [...path(upload), [12, Buffer.of(18)], [27, block(0, true, 6)]],
        payload: body,
      }),
    )
    send(coap({ type: 'NON', messageId: 4, token, options: path('/.well-known/core') }))
  }
  say({ ready: true })
  // one block now and then, so that the uploads do not look abandoned
  let number = 1
  const timer = setInterval(() => {
    for (const [i, socket] of sockets.entries()) {
      const token = Buffer.of(i >> 8, i & 255)
      const options: (readonly [number, Uint8Array])[] = [
        ...path(upload),
        [12, Buffer.of(18)],
        [27, block(number, true, 6)],
      ]
      socket.send(
        coap({ code: 3, messageId: 100 + number, token, options, payload: body }),
        Number(port),
        SERVER_ADDRESS,
      )
    }
    number++
  }, 2000)
  await inputEnds()
  clearInterval(timer)
  say({ answers })
}

/** The ClientHello that our own client would send, with room for a cookie. */
async function firstHello(): Promise<Buffer> {
  const { connect } = await import('../../transport/dtls/connect.ts')
  const catcher = await bound('127.0.0.1', 0)
  const association = connect('127.0.0.1', catcher.address().port, {
    psk: { x: Buffer.alloc(16) },
    handshakeTimeout: 5000,
  })
  association.opened.catch(() => {})
  const [hello] = (await once(catcher, 'message')) as [Buffer]
  association.destroy()
  catcher.close()
  return hello
}

/** Puts a cookie into a ClientHello: record 13 octets, handshake 12, version 2, random 32, session ID, cookie. */
export function withCookie(hello: Buffer, cookie: Buffer): Buffer {
  const at = 13 + 12 + 2 + 32
  const cookieAt = at + 1 + hello.readUInt8(at)
  const out = Buffer.concat([
    hello.subarray(0, cookieAt),
    Buffer.of(cookie.length),
    cookie,
    hello.subarray(cookieAt + 1),
  ])
  const grown = cookie.length - hello.readUInt8(cookieAt)
  out.writeUInt16BE(out.readUInt16BE(11) + grown, 11)
  for (const length of [14, 22]) out.writeUIntBE(out.readUIntBE(length, 3) + grown, length, 3)
  out.writeUIntBE(1, 5, 6) // second record
  out.writeUInt16BE(1, 17) // second handshake message
  return out
}

async function halfOpen(port: string, host: string, count: string): Promise<void> {
  const hello = await firstHello()
  let verified = 0
  for (let i = 0; i < Number(count); i++) {
    const socket = await bound(host, 0)
    socket.on('message', (message) => {
      // HelloVerifyRequest: handshake type 3; version, then the cookie
      if (message[0] !== 22 || message[13] !== 3) return
      verified++
      const length = message.readUInt8(27)
      socket.send(withCookie(hello, message.subarray(28, 28 + length)), Number(port), SERVER_ADDRESS)
    })
    socket.send(hello, Number(port), SERVER_ADDRESS)
    if (i % 20 === 19) await delay(20)
  }
  await delay(1000)
  say({ ready: true, verified })
  await inputEnds()
}

const MODES: Readonly<Record<string, (...args: string[]) => Promise<void>>> = {
  get: (port, resource, caFile) => get(port!, resource!, caFile),
  observe: (port, resource, local) => observe(port!, resource!, local!),
  victim: (host, port, count) => victim(host!, port!, count!),
  slow: (port, read, upload, count) => slow(port!, read!, upload!, count!),
  'half-open': (port, host, count) => halfOpen(port!, host!, count!),
}

const [, , mode, ...args] = process.argv
const run = MODES[mode ?? '']
if (run === undefined) {
  process.stderr.write(`usage: outside ${Object.keys(MODES).join('|')} …\n`)
  process.exit(2)
}
await run(...args)
process.exit(0)
