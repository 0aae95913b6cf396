/**
 * A WebSocket client for JSON-RPC (RFC 6455): text messages, ping, close; no extensions. Node 20 has none of its own, and
 * the libraries that reconnect by themselves hide exactly the moments that a reader of a chain has to know.
 */
import { createHash, randomBytes } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { Socket } from 'node:net'
import type { Wire, WireEvents } from './socket-rpc.ts'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const Opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const
const MAX_MESSAGE = 64 * 1024 * 1024

/** Connects; the promise is rejected if the other side does not speak WebSocket. */
export function openWebSocket(url: URL, events: WireEvents, timeoutMs: number): Promise<Wire> {
  return new Promise((resolve, reject) => {
    const key = randomBytes(16).toString('base64')
    const secure = url.protocol === 'wss:'
    const target = new URL(url.href.replace(/^ws/, 'http'))
    const attempt = (secure ? httpsRequest : httpRequest)(target, {
      headers: {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': key,
        ...(url.username !== '' && {
          authorization: `Basic ${btoa(`${url.username}:${decodeURIComponent(url.password)}`)}`,
        }),
      },
      timeout: timeoutMs,
    })
    attempt.on('timeout', () => attempt.destroy(new Error('timed out')))
    attempt.on('error', reject)
    attempt.on('response', (response) => {
      response.destroy()
      reject(new Error(`no WebSocket there (HTTP ${response.statusCode})`))
    })
    attempt.on('upgrade', (response, socket: Socket, head: Buffer) => {
      const expected = createHash('sha1')
        .update(key + GUID)
        .digest('base64')
      if (response.headers['sec-websocket-accept'] !== expected) {
        socket.destroy()
        reject(new Error('the WebSocket handshake does not fit'))
        return
      }
      socket.setTimeout(0)
      const frames = new FrameReader(socket, events)
      socket.on('data', (chunk: Buffer) => frames.take(chunk))
      socket.on('error', () => undefined)
      socket.on('close', () => events.onclose())
      if (head.length > 0) frames.take(head)
      resolve({
        send: (text) => socket.write(frame(Opcode.text, Buffer.from(text))),
        close: () => {
          socket.end(frame(Opcode.close, Buffer.alloc(0)))
          socket.destroySoon()
        },
        destroy: () => {
          socket.destroy()
        },
      })
    })
    attempt.end()
  })
}

/** One frame of a client: final, masked. */
export function frame(opcode: number, payload: Buffer): Buffer {
  const mask = randomBytes(4)
  const length = payload.length
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8
  const header = Buffer.alloc(2 + extended)
  header[0] = 0x80 | opcode
  header[1] = 0x80 | (extended === 0 ? length : extended === 2 ? 126 : 127)
  if (extended === 2) header.writeUInt16BE(length, 2)
  if (extended === 8) header.writeBigUInt64BE(BigInt(length), 2)
  const masked = Buffer.from(payload)
  for (let i = 0; i < length; i++) masked[i] = (masked[i] as number) ^ (mask[i % 4] as number)
  return Buffer.concat([header, mask, masked])
}

/** Takes a server's octets apart; anything that a server may not send ends the connection. */
class FrameReader {
  readonly #socket: Socket
  readonly #events: WireEvents
  #buffer: Buffer = Buffer.alloc(0)
  #message: Buffer[] = []
  #length = 0

  constructor(socket: Socket, events: WireEvents) {
    this.#socket = socket
    this.#events = events
  }

  take(chunk: Buffer): void {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk])
    while (!this.#socket.destroyed && this.#next()) {
      // one frame after the other
    }
  }

  /** @returns false if there is no whole frame yet */
  #next(): boolean {
    const b = this.#buffer
    if (b.length < 2) return false
    const [first, second] = b as unknown as [number, number]
    const short = second & 0x7f
    const header = 2 + (short === 126 ? 2 : short === 127 ? 8 : 0)
    if (b.length < header) return false
    const length = short === 126 ? b.readUInt16BE(2) : short === 127 ? Number(b.readBigUInt64BE(2)) : short
    // reserved bits, or a masked frame: no server of RFC 6455
    if ((first & 0x70) !== 0 || (second & 0x80) !== 0 || this.#length + length > MAX_MESSAGE) {
      this.#socket.destroy()
      return false
    }
    if (b.length < header + length) return false
    const payload = b.subarray(header, header + length)
    this.#buffer = b.subarray(header + length)
    this.#handle(first & 0x0f, (first & 0x80) !== 0, payload)
    return true
  }

  #handle(opcode: number, final: boolean, payload: Buffer): void {
    if (opcode === Opcode.ping) this.#socket.write(frame(Opcode.pong, payload))
    else if (opcode === Opcode.close) this.#socket.end(frame(Opcode.close, payload.subarray(0, 2)))
    else if (opcode <= Opcode.binary) {
      this.#message.push(payload)
      this.#length += payload.length
      if (!final) return
      const text = Buffer.concat(this.#message).toString('utf8')
      this.#message = []
      this.#length = 0
      this.#events.onmessage(text)
    }
  }
}
