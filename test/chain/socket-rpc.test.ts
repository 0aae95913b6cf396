import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { JsonRpc } from '../../chain/rpc.ts'
import { connectRpc, SocketRpc } from '../../chain/socket-rpc.ts'
import { frame } from '../../chain/websocket.ts'

/** One frame of a server: unmasked. */
function served(text: string, opcode = 1, final = true): Buffer {
  const payload = Buffer.from(text)
  const long = payload.length > 65_535 ? 8 : payload.length > 125 ? 2 : 0
  const header = Buffer.alloc(2 + long)
  header[0] = (final ? 0x80 : 0) | opcode
  header[1] = long === 0 ? payload.length : long === 2 ? 126 : 127
  if (long === 2) header.writeUInt16BE(payload.length, 2)
  if (long === 8) header.writeBigUInt64BE(BigInt(payload.length), 2)
  return Buffer.concat([header, payload])
}

/** The frames of a client, taken apart. */
function unmask(octets: Buffer): { opcode: number; text: string }[] {
  const found: { opcode: number; text: string }[] = []
  for (let rest = octets; rest.length > 0; ) {
    const short = (rest[1] as number) & 0x7f
    const at = 2 + (short === 126 ? 2 : short === 127 ? 8 : 0)
    const length = short === 126 ? rest.readUInt16BE(2) : short === 127 ? Number(rest.readBigUInt64BE(2)) : short
    const mask = rest.subarray(at, at + 4)
    const payload = rest.subarray(at + 4, at + 4 + length).map((v, i) => v ^ (mask[i % 4] as number))
    found.push({ opcode: (rest[0] as number) & 15, text: Buffer.from(payload).toString() })
    rest = rest.subarray(at + 4 + length)
  }
  return found
}

describe('over WebSocket', () => {
  let server: HttpServer
  let sockets: Socket[]
  let answer: (request: { id: number; method: string; params: unknown[] }, socket: Socket) => void
  let url: string

  beforeEach(async () => {
    sockets = []
    answer = (r, socket) => socket.write(served(JSON.stringify({ jsonrpc: '2.0', id: r.id, result: r.params })))
    server = createHttpServer((_, response) => response.writeHead(404).end())
    server.on('upgrade', (request, socket: Socket) => {
      sockets.push(socket)
      const key = String(request.headers['sec-websocket-key'])
      const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
      const path = request.url ?? ''
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${path === '/liar' ? 'x' : accept}\r\n\r\n`,
      )
      socket.on('error', () => undefined)
      socket.on('data', (chunk: Buffer) => {
        for (const { opcode, text } of unmask(chunk)) if (opcode === 1) answer(JSON.parse(text), socket)
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterEach(() => {
    for (const s of sockets) s.destroy()
    server.close()
  })

  test('asks and is answered, in any order', async () => {
    const rpc = new SocketRpc({ url })
    const held: { id: number; params: unknown[] }[] = []
    answer = (r, socket) => {
      held.push(r)
      if (held.length === 3) {
        for (const h of held.reverse())
          socket.write(served(JSON.stringify({ jsonrpc: '2.0', id: h.id, result: h.params })))
      }
    }
    const first = rpc.call('x', [1])
    await new Promise((resolve) => setTimeout(resolve, 20))
    const second = rpc.call('x', [2])
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(await Promise.all([first, second, rpc.call('x', [3])])).toEqual([[1], [2], [3]])
    expect(sockets).toHaveLength(1)
    rpc.close()
  })

  test('long answers, in fragments, between pings', async () => {
    const rpc = new SocketRpc({ url })
    const long = 'a'.repeat(200_000)
    answer = (r, socket) => {
      const text = JSON.stringify({ jsonrpc: '2.0', id: r.id, result: long })
      socket.write(served(text.slice(0, 70_000), 1, false))
      socket.write(served('ping', 9))
      socket.write(served(text.slice(70_000), 0, true))
    }
    expect(await rpc.call('x')).toBe(long)
    rpc.close()
  })

  test('an error of the node', async () => {
    const rpc = new SocketRpc({ url })
    answer = (r, socket) =>
      socket.write(
        served(
          JSON.stringify({ jsonrpc: '2.0', id: r.id, error: { code: 3, message: 'execution reverted', data: '0x12' } }),
        ),
      )
    await expect(rpc.call('x')).rejects.toMatchObject({ code: 'chain/rpc', rpcCode: 3, data: '0x12' })
    rpc.close()
  })

  test('a broken connection fails what is under way; the next request connects again', async () => {
    const rpc = new SocketRpc({ url })
    const normal = answer
    answer = (r, socket) => {
      if (r.method === 'y') socket.destroy()
    }
    const all = await Promise.allSettled([rpc.call('x'), rpc.call('y')])
    expect(all.map((r) => (r as PromiseRejectedResult).reason.code)).toEqual(['chain/unreachable', 'chain/unreachable'])
    answer = normal
    expect(await rpc.call('x', [1])).toEqual([1])
    rpc.close()
  })

  test('silence, nonsense, masked frames and reserved bits', async () => {
    const rpc = new SocketRpc({ url, timeoutMs: 100 })
    answer = () => undefined
    await expect(rpc.call('x')).rejects.toMatchObject({
      code: 'chain/unreachable',
      message: expect.stringContaining('timed out'),
    })
    answer = (_, socket) => socket.write(served('no json'))
    await expect(rpc.call('x')).rejects.toMatchObject({ code: 'chain/unreachable' })
    for (const bad of [
      frame(1, Buffer.from('{}')),
      Buffer.from([0xf1, 0]),
      Buffer.from([0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]),
    ]) {
      answer = (_, socket) => socket.write(bad)
      await expect(rpc.call('x')).rejects.toMatchObject({
        code: 'chain/unreachable',
        message: expect.stringContaining('closed'),
      })
    }
    rpc.close()
  })

  test('a connection that died without a sign: the next request takes another one', async () => {
    const rpc = new SocketRpc({ url, timeoutMs: 150 })
    const normal = answer
    answer = (r, socket) => {
      if (socket !== sockets[0]) normal(r, socket)
    }
    const closed = new Promise((resolve) => server.once('upgrade', (_, socket: Socket) => socket.on('end', resolve)))
    await expect(rpc.call('x')).rejects.toMatchObject({ message: expect.stringContaining('timed out') })
    expect(await rpc.call('x', [1])).toEqual([1])
    expect(sockets).toHaveLength(2)
    await closed
    rpc.close()
  })

  test('a request that takes too long on a connection that lives', async () => {
    const rpc = new SocketRpc({ url, timeoutMs: 150 })
    const normal = answer
    answer = (r, socket) => {
      if (r.method !== 'slow') normal(r, socket)
    }
    const slow = expect(rpc.call('slow')).rejects.toMatchObject({ message: expect.stringContaining('timed out') })
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect(await rpc.call('x', [1])).toEqual([1])
    await slow
    expect(await rpc.call('x', [2])).toEqual([2])
    expect(sockets).toHaveLength(1)
    rpc.close()
  })

  test('no WebSocket there, a false handshake, nobody there', async () => {
    await expect(new SocketRpc({ url: `${url}/liar` }).call('x')).rejects.toMatchObject({ code: 'chain/unreachable' })
    server.removeAllListeners('upgrade')
    await expect(new SocketRpc({ url }).call('x')).rejects.toMatchObject({ code: 'chain/unreachable' })
    await expect(new SocketRpc({ url: 'ws://127.0.0.1:1' }).call('x')).rejects.toMatchObject({
      code: 'chain/unreachable',
    })
  })
})

describe('over a socket file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ii-'))
  const path = join(folder, 'n.ipc')

  test('asks, loses the node, and finds it again', async () => {
    let sockets: Socket[] = []
    const listen = () => {
      const server = createServer((socket) => {
        sockets.push(socket)
        socket.on('error', () => undefined)
        socket.on('data', (chunk) => {
          const replies = String(chunk)
            .trim()
            .split('\n')
            .map((line) => JSON.parse(line))
            .map(({ id, params }) => `${JSON.stringify({ jsonrpc: '2.0', id, result: params })}\n`)
            .join('')
          // in two pieces, as a stream may
          socket.write(replies.slice(0, 5))
          setTimeout(() => socket.write(replies.slice(5)), 5)
        })
      })
      return new Promise<typeof server>((resolve) => server.listen(path, () => resolve(server)))
    }
    const rpc = connectRpc({ url: path })
    await expect(rpc.call('x')).rejects.toMatchObject({
      code: 'chain/unreachable',
      message: expect.stringContaining('ENOENT'),
    })
    const first = await listen()
    expect(await Promise.all([rpc.call('x', [1]), rpc.call('x', [2])])).toEqual([[1], [2]])
    for (const s of sockets) s.destroy()
    await new Promise((resolve) => first.close(resolve))
    await expect(rpc.call('x')).rejects.toMatchObject({ code: 'chain/unreachable' })
    sockets = []
    const second = await listen()
    expect(await rpc.call('x', [3])).toEqual([3])
    rpc.close?.()
    second.close()
    rmSync(folder, { recursive: true, force: true })
  })
})

test('the address says the way', () => {
  expect(connectRpc({ url: 'http://x' })).toBeInstanceOf(JsonRpc)
  expect(connectRpc({ url: 'ws://x' })).toBeInstanceOf(SocketRpc)
  expect(connectRpc({ url: '/x' })).toBeInstanceOf(SocketRpc)
  expect(connectRpc({ url: 'ipc:///x/y' }).name).toBe('/x/y')
  expect(() => connectRpc({ url: 'ws:' })).toThrow(expect.objectContaining({ code: 'chain/bad-url' }))
})
