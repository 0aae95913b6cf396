import { createSocket, type Socket } from 'node:dgram'
import { networkInterfaces } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Peer } from '../../../transport/coap/transport.ts'
import { bindUdp, type UdpTransport } from '../../../transport/coap/udp.ts'
import { type BatchBinding, batchBinding, SendBatch } from '../../../transport/coap/udp-batch.ts'

const native = batchBinding()
const SKIPPED = native === undefined ? ' (skipped: the binding is not built, or this is no Linux)' : ''
const V6 = Object.values(networkInterfaces())
  .flat()
  .some((one) => one?.address === '::1')

async function listener(
  type: 'udp4' | 'udp6',
  address: string,
): Promise<{ port: number; heard: Buffer[]; from: string[] }> {
  const socket: Socket = createSocket({ type, recvBufferSize: 1 << 20 })
  const heard: Buffer[] = []
  const from: string[] = []
  socket.on('message', (datagram, remote) => {
    heard.push(datagram)
    from.push(`${remote.address}|${remote.port}`)
  })
  await new Promise<void>((done) => socket.bind(0, address, done))
  onTestFinished(() => void socket.close())
  return { port: socket.address().port, heard, from }
}

async function transportAt(host: string): Promise<UdpTransport> {
  const transport = await bindUdp({ host })
  onTestFinished(() => transport.close())
  return transport
}

const numbered = (n: number, octets = 3): Buffer => Buffer.alloc(octets, 0x55).fill(n & 255, 0, 1)

describe(`what is sent in one turn${SKIPPED}`, () => {
  test.skipIf(native === undefined)('arrives, whole and in order, from the address of the server', async () => {
    const there = await listener('udp4', '127.0.0.1')
    const transport = await transportAt('127.0.0.1')
    const peer = await transport.peer('127.0.0.1', there.port)
    for (let n = 0; n < 200; n++) {
      const datagram = numbered(n, 1 + n)
      transport.send(datagram, peer)
      datagram.fill(0xee) // it has been copied
    }
    await expect.poll(() => there.heard.length).toBe(200)
    there.heard.forEach((datagram, n) => {
      expect(datagram.equals(numbered(n, 1 + n))).toBe(true)
    })
    expect(new Set(there.from)).toEqual(new Set([`127.0.0.1|${transport.address.port}`]))
  })

  test.skipIf(native === undefined || !V6)('goes to IPv6 and to IPv4 by a socket for both', async () => {
    const six = await listener('udp6', '::1')
    const four = await listener('udp4', '127.0.0.1')
    const transport = await transportAt('::')
    transport.send(numbered(1), await transport.peer('::1', six.port))
    transport.send(numbered(2), await transport.peer('127.0.0.1', four.port))
    transport.send(numbered(3), {
      ...(await transport.peer('::1', four.port)),
      address: '127.0.0.1',
      port: four.port,
    } as Peer)
    await expect.poll(() => six.heard).toEqual([numbered(1)])
    await expect.poll(() => four.heard).toEqual([numbered(2), numbered(3)])
  })

  test.skipIf(native === undefined)('arrives beside what cannot be sent', async () => {
    const there = await listener('udp4', '127.0.0.1')
    const transport = await transportAt('127.0.0.1')
    const peer = await transport.peer('127.0.0.1', there.port)
    const nowhere = await transport.peer('255.255.255.255', 9)
    const odd = { ...peer, key: 'x', secure: undefined, address: 'no address', port: there.port } as Peer
    transport.send(numbered(1), peer)
    transport.send(numbered(2), nowhere)
    transport.send(Buffer.alloc(65_600), peer)
    transport.send(numbered(3), peer)
    transport.send(numbered(4), odd)
    transport.send(Buffer.alloc(60_000, 5), peer)
    transport.send(Buffer.alloc(60_000, 6), peer)
    transport.send(numbered(7), peer)
    await expect.poll(() => there.heard.map((d) => d[0])).toEqual([1, 3, 5, 6, 7])
  })

  test.skipIf(native === undefined)('leaves before the socket is closed, and nothing after', async () => {
    const there = await listener('udp4', '127.0.0.1')
    const transport = await bindUdp({ host: '127.0.0.1' })
    const peer = await transport.peer('127.0.0.1', there.port)
    transport.send(numbered(1), peer)
    const closed = transport.close()
    transport.send(numbered(2), peer)
    await closed
    await delay(50)
    expect(there.heard).toEqual([numbered(1)])
  })
})

test('what the socket does not take goes alone, and who hears of it may send again', () => {
  const batches: number[] = []
  const full: BatchBinding = {
    socketAddress: (text) => (text === 'odd' ? undefined : Buffer.alloc(16)),
    bindUdp: () => 0,
    // takes two of each handful
    sendBatch: (_descriptor, _octets, _from, count) => {
      batches.push(count)
      return Math.min(2, count)
    },
  }
  const alone: string[] = []
  const batch: SendBatch<{ address: string; port: number; name: string }> = new SendBatch(
    full,
    7,
    false,
    (datagram, to) => {
      alone.push(`${to.name} ${datagram[0]}`)
      if (to.name === 'c') batch.add(Uint8Array.of(99), { address: 'a', port: 1, name: 'again' })
    },
  )
  for (const [n, name] of ['a', 'b', 'c', 'd', 'e', 'f', 'g'].entries()) {
    batch.add(Uint8Array.of(n), { address: 'a', port: 1, name })
  }
  batch.flush()
  expect(alone).toEqual(['c 2', 'f 5'])
  expect(batches).toEqual([7, 4, 1])
  batch.flush()
  expect(batches).toEqual([7, 4, 1, 1])
  batch.add(Uint8Array.of(1), { address: 'odd', port: 1, name: 'odd' })
  expect(alone.at(-1)).toBe('odd 1')
})

test.skipIf(native === undefined)('the binding reads nothing beyond its octets', () => {
  const { sendBatch, socketAddress, bindUdp } = native as BatchBinding
  for (const [from, count] of [
    [0, 65],
    [-1, 1],
    [0, -1],
    [90, 1],
    [0, 2],
  ] as const) {
    const octets = Buffer.alloc(100)
    octets.writeUInt16BE(60, 29)
    expect(sendBatch(-1, octets, from, count)).toBeUndefined()
  }
  const long = Buffer.alloc(100)
  long[0] = 29
  expect(sendBatch(-1, long, 0, 1)).toBeUndefined()
  expect(sendBatch(-1, Buffer.alloc(100), 0, 1)).toBe(0)
  for (const text of ['', 'localhost', '1.2.3', '::1%lo', 'x'.repeat(100)]) {
    expect(socketAddress(text, true)).toBeUndefined()
    expect(bindUdp(text, true, 0, false, false) ?? -1).toBeLessThan(0)
  }
})
