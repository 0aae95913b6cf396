import { createSocket, type Socket } from 'node:dgram'
import { constants, networkInterfaces } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Peer } from '../../../transport/coap/transport.ts'
import { bindUdp, type UdpTransport } from '../../../transport/coap/udp.ts'
import { bindingFile } from '../../../transport/native.ts'
import { NativeSocket, type UdpBinding, type UdpHandle, udpBinding } from '../../../transport/udp/native-socket.ts'
import type { UdpPeer } from '../../../transport/udp/peer.ts'
import { HEADER, LENGTH_AT, OWN_AT } from '../../../transport/udp/send-batch.ts'

const native = udpBinding()
const SKIPPED = native === undefined ? ' (skipped: the binding is not built, or this is no Linux)' : ''
const V6 = Object.values(networkInterfaces())
  .flat()
  .some((one) => one?.address === '::1')

interface Listener {
  readonly socket: Socket
  readonly port: number
  readonly heard: Buffer[]
  readonly from: string[]
}

async function listener(type: 'udp4' | 'udp6', address: string): Promise<Listener> {
  const socket: Socket = createSocket({ type, recvBufferSize: 1 << 20 })
  const heard: Buffer[] = []
  const from: string[] = []
  socket.on('message', (datagram, remote) => {
    heard.push(datagram)
    from.push(`${remote.address}|${remote.port}`)
  })
  await new Promise<void>((done) => socket.bind(0, address, done))
  onTestFinished(() => void socket.close())
  return { socket, port: socket.address().port, heard, from }
}

async function transportAt(host: string): Promise<UdpTransport> {
  const transport = await bindUdp({ host })
  onTestFinished(() => transport.close())
  return transport
}

const numbered = (n: number, octets = 3): Buffer => Buffer.alloc(octets, 0x55).fill(n & 255, 0, 1)

describe.skipIf(native === undefined)(`what is sent in one turn${SKIPPED}`, () => {
  test('arrives, whole and in order, from the address of the server', async () => {
    const there = await listener('udp4', '127.0.0.1')
    const transport = await transportAt('127.0.0.1')
    expect(transport.gives).toBe(false)
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

  test.skipIf(!V6)('goes to IPv6 and to IPv4 by a socket for both', async () => {
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

  test('arrives beside what cannot be sent', async () => {
    const there = await listener('udp4', '127.0.0.1')
    const transport = await transportAt('127.0.0.1')
    const refused: string[] = []
    transport.onunreachable = (peer, cause) =>
      void refused.push(`${peer?.address ?? 'somebody'} ${(cause as NodeJS.ErrnoException).code}`)
    const peer = await transport.peer('127.0.0.1', there.port)
    const nowhere = await transport.peer('255.255.255.255', 9)
    const odd = { key: 'x', address: 'no address', port: there.port }
    transport.send(numbered(1), peer)
    transport.send(numbered(2), nowhere)
    transport.send(Buffer.alloc(65_600), peer)
    transport.send(Buffer.alloc(65_520), peer)
    transport.send(numbered(3), peer)
    transport.send(numbered(4), odd)
    transport.send(Buffer.alloc(60_000, 5), peer)
    transport.send(Buffer.alloc(60_000, 6), peer)
    transport.send(numbered(7), peer)
    await expect.poll(() => there.heard.map((d) => d[0])).toEqual([1, 3, 5, 6, 7])
    expect(refused.toSorted()).toEqual([
      '127.0.0.1 EMSGSIZE',
      'no address EINVAL',
      'somebody EACCES',
      'somebody EMSGSIZE',
    ])
  })

  test('leaves before the socket is closed, and nothing after', async () => {
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

describe.skipIf(native === undefined)(`what a socket receives${SKIPPED}`, () => {
  test('comes whole and in order, each from its sender, whatever its length', async () => {
    const transport = await transportAt('127.0.0.1')
    const got: string[] = []
    transport.onmessage = (datagram, peer) => {
      // lent: it is looked at now
      const same = datagram.every((octet, i) => octet === (i === 0 ? (datagram[0] as number) : 0x55))
      got.push(`${peer.key} ${datagram[0]} ${datagram.length} ${same}`)
    }
    const one = await listener('udp4', '127.0.0.1')
    const two = await listener('udp4', '127.0.0.1')
    const wanted: string[] = []
    for (let n = 0; n < 60; n++) {
      const octets = n % 7 === 0 ? 30_000 : 1 + n
      const { socket, port } = n % 2 === 0 ? one : two
      wanted.push(`127.0.0.1|${port} ${n} ${octets} true`)
      await new Promise((sent) => socket.send(numbered(n, octets), transport.address.port, '127.0.0.1', sent))
    }
    await expect.poll(() => got.length).toBe(60)
    expect(got).toEqual(wanted)
  })

  test('may be empty, or as long as UDP allows', async () => {
    const transport = await transportAt('127.0.0.1')
    const lengths: number[] = []
    transport.onmessage = (datagram) => void lengths.push(datagram.length)
    const { socket } = await listener('udp4', '127.0.0.1')
    for (const length of [0, 65_507, 0, 1]) {
      await new Promise((sent) => socket.send(Buffer.alloc(length), transport.address.port, '127.0.0.1', sent))
    }
    await expect.poll(() => lengths).toEqual([0, 65_507, 0, 1])
  })

  test('is answered where it came from', async () => {
    const transport = await transportAt('127.0.0.1')
    transport.onmessage = (datagram, peer) => transport.send(datagram, peer)
    const all = await Promise.all(Array.from({ length: 40 }, () => listener('udp4', '127.0.0.1')))
    for (const [n, { socket }] of all.entries()) {
      for (let i = 0; i < 5; i++) socket.send(numbered(n), transport.address.port, '127.0.0.1')
    }
    await expect.poll(() => all.map(({ heard }) => heard.length)).toEqual(all.map(() => 5))
    for (const [n, { heard }] of all.entries()) expect(heard).toEqual(new Array(5).fill(numbered(n)))
  })

  test.skipIf(!V6)('comes from IPv6 and from IPv4, named as Node names them', async () => {
    const transport = await transportAt('::')
    const keys: string[] = []
    transport.onmessage = (_datagram, peer) => void keys.push(peer.key)
    const six = await listener('udp6', '::1')
    const four = await listener('udp4', '127.0.0.1')
    six.socket.send('x', transport.address.port, '::1')
    await expect.poll(() => keys).toEqual([`::1|${six.port}`])
    four.socket.send('x', transport.address.port, '127.0.0.1')
    await expect.poll(() => keys).toEqual([`::1|${six.port}`, `::ffff:127.0.0.1|${four.port}`])
  })

  test.each([
    ['0.0.0.0', 'udp4', '127.0.0.2'],
    ['::', 'udp4', '127.0.0.3'],
    ['::', 'udp6', '::1'],
  ] as const)('at %s is answered from the address that was asked (%s)', async (host, type, asked) => {
    if (host === '::' && !V6) return
    const transport = await transportAt(host)
    transport.onmessage = (datagram, peer) => transport.send(datagram, peer)
    const client = await listener(type, type === 'udp4' ? '127.0.0.1' : '::1')
    for (let n = 0; n < 3; n++) client.socket.send(numbered(n), transport.address.port, asked)
    await expect.poll(() => client.from).toEqual(new Array(3).fill(`${asked}|${transport.address.port}`))
  })

  test.each(['0.0.0.0', '::'])('at %s is nothing that was sent to a group or to everybody', async (host) => {
    if (host === '::' && !V6) return
    const transport = await transportAt(host)
    const { port } = transport.address
    const heard: number[] = []
    transport.onmessage = (datagram) => void heard.push(datagram[0] as number)
    const member = createSocket({ type: 'udp4', reuseAddr: true })
    onTestFinished(() => void member.close())
    await new Promise<void>((done) => member.bind(0, '0.0.0.0', done))
    member.addMembership('224.0.1.187', '127.0.0.1')
    member.setMulticastInterface('127.0.0.1')
    member.setBroadcast(true)
    for (const [n, address] of ['224.0.1.187', '127.255.255.255', '127.0.0.1'].entries()) {
      await new Promise((sent) => member.send(Buffer.of(n), port, address, sent))
    }
    await expect.poll(() => heard).toEqual([2])
  })

  test('is no longer heard once the socket is closed, even from within', async () => {
    const transport = await bindUdp({ host: '127.0.0.1' })
    const { port } = transport.address
    let heard = 0
    let closed: Promise<void> | undefined
    transport.onmessage = () => {
      heard++
      closed = transport.close()
    }
    const { socket } = await listener('udp4', '127.0.0.1')
    for (let n = 0; n < 40; n++) socket.send('x', port, '127.0.0.1')
    await expect.poll(() => heard).toBe(1)
    await closed
    await delay(50)
    expect(heard).toBe(1)
    const again = await bindUdp({ host: '127.0.0.1', port }) // the port is free
    await again.close()
  })
})

describe.skipIf(native === undefined)(`the binding${SKIPPED}`, () => {
  const binding = native as UdpBinding
  const open = (): UdpHandle => {
    const udp = binding.openUdp('127.0.0.1', false, 0, false, false)
    expect(udp).toBeTypeOf('object')
    onTestFinished(() => binding.closeUdp(udp as UdpHandle))
    return udp as UdpHandle
  }

  test('reads nothing beyond its octets', () => {
    const udp = open()
    for (const [from, count] of [
      [0, 65],
      [-1, 1],
      [0, -1],
      [90, 1],
      [0, 2],
    ] as const) {
      const octets = Buffer.alloc(100)
      octets.writeUInt16BE(60, LENGTH_AT)
      expect(binding.sendBatch(udp, octets, from, count)).toBeUndefined()
    }
    for (const [at, length] of [
      [0, 29],
      [OWN_AT, 20],
      [OWN_AT, 21],
      [OWN_AT, 255],
    ] as const) {
      const long = Buffer.alloc(100)
      long[at] = length
      expect(binding.sendBatch(udp, long, 0, 1)).toBeUndefined()
    }
    expect(binding.sendBatch(udp, Buffer.alloc(100), 0, 1)).toBeLessThan(0)
    for (const text of ['', 'localhost', '1.2.3', '::1%', '::1%no-such-if', 'x'.repeat(100)]) {
      expect(binding.socketAddress(text, true)).toBeUndefined()
      expect(binding.openUdp(text, true, 0, false, false) ?? -1).toBeLessThan(0)
    }
    for (const octets of [Buffer.alloc(0), Buffer.alloc(16), Buffer.alloc(28), Buffer.alloc(400)]) {
      expect(binding.addressText(octets)).toBeUndefined()
    }
  })

  test('takes no space that is too small, and one reader', () => {
    const udp = open()
    expect(binding.readUdp(udp, Buffer.alloc(1000), () => {})).toBeUndefined()
    const space = Buffer.allocUnsafeSlow(2 * 1024 * 1024)
    expect(binding.readUdp(udp, space, () => {})).toBe(0)
    expect(binding.readUdp(udp, space, () => {})).toBeUndefined()
  })

  test('writes nothing into memory that its space has lost', async () => {
    const udp = open()
    const port = (binding.udpAddress(udp) as Buffer).readUInt16BE(2)
    const space = Buffer.allocUnsafeSlow(2 * 1024 * 1024)
    const told = new Promise<number>((resolve) => binding.readUdp(udp, space, resolve))
    const memory = space.buffer as ArrayBuffer
    structuredClone(memory, { transfer: [memory] })
    const { socket } = await listener('udp4', '127.0.0.1')
    socket.send('x', port, '127.0.0.1')
    expect(await told).toBe(-constants.errno.EFAULT)
    await expect.poll(() => binding.udpAddress(udp)).toBeUndefined()
  })

  test('takes no other object for a socket, and a closed one for nothing', () => {
    expect(() => binding.sendBatch({}, Buffer.alloc(100), 0, 1)).toThrow(TypeError)
    expect(() => binding.closeUdp(undefined as never)).toThrow(TypeError)
    const udp = open()
    binding.closeUdp(udp)
    binding.closeUdp(udp)
    binding.awaitRoom(udp)
    expect(binding.udpAddress(udp)).toBeUndefined()
    expect(binding.sendBatch(udp, Buffer.alloc(100), 0, 1)).toBeLessThan(0)
    expect(binding.readUdp(udp, Buffer.allocUnsafeSlow(2 * 1024 * 1024), () => {})).toBeUndefined()
  })

  test('knows zones by name and by number', () => {
    for (const zone of ['lo', '1']) {
      const address = binding.socketAddress(`fe80::1%${zone}`, true) as Buffer
      expect(binding.addressText(address)).toBe('fe80::1%lo')
    }
  })

  test('tells when a socket has room again', async () => {
    const udp = open()
    const told = new Promise<number>((resolve) => {
      binding.readUdp(udp, Buffer.allocUnsafeSlow(2 * 1024 * 1024), resolve)
    })
    binding.awaitRoom(udp)
    expect(await told).toBe(0)
  })

  test('ends with the worker that has it, its sockets open', async () => {
    const worker = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads')
       const binding = require(workerData)
       for (let i = 0; i < 20; i++) {
         const udp = binding.openUdp('127.0.0.1', false, 0, false, false)
         if (i % 2) binding.readUdp(udp, Buffer.allocUnsafeSlow(2 * 1024 * 1024), () => {})
       }
       parentPort.postMessage('open')
       setInterval(() => {}, 1000)`,
      { eval: true, workerData: bindingFile() },
    )
    await new Promise((opened) => worker.once('message', opened))
    expect(await worker.terminate()).toBe(1)
  })
})

/** A binding whose sockets receive what `arrive` says: one datagram of one octet from each of `count` ports of `from`. */
function doubled(from: string, fault = 0) {
  let told: ((count: number, octets: number) => void) | undefined
  let space: Uint8Array = Buffer.alloc(0)
  let closed = 0
  const binding = {
    udpAddress: () => Buffer.alloc(16),
    addressText: () => from,
    sendBatch: (_udp: UdpHandle, _octets: Uint8Array, _from: number, count: number) => count,
    readUdp: (_udp: UdpHandle, into: Uint8Array, callback: typeof told) => {
      space = into
      told = callback
      return fault
    },
    closeUdp: () => void closed++,
  } as unknown as UdpBinding
  const arrive = (count: number): void => {
    for (let i = 0; i < count; i++) {
      const at = i * (HEADER + 1)
      space.fill(0, at, at + HEADER + 1)
      space[at] = 28
      space[at + 4] = 1 + i // the port
      space[at + LENGTH_AT + 1] = 1
      space[at + HEADER] = i
    }
    told?.(count, count * (HEADER + 1))
  }
  return { socket: new NativeSocket(binding, {}, true), arrive, closed: () => closed }
}

describe('a socket of the binding', () => {
  test('hands over what came beside a datagram whose taker throws', () => {
    const raised = vi.spyOn(process, 'nextTick').mockImplementation(() => undefined)
    onTestFinished(() => raised.mockRestore())
    const { socket, arrive } = doubled('::1')
    const got: number[] = []
    const onmessage = (datagram: Uint8Array): void => {
      got.push(datagram[0] as number)
      if (datagram[0] === 1) throw new Error('of one')
    }
    socket.start({ onmessage, onfailure: () => undefined })
    arrive(4)
    expect(got).toEqual([0, 1, 2, 3])
    expect(raised.mock.calls.map(([, error]) => (error as unknown as Error).message)).toEqual(['of one'])
  })

  test.each([
    ['2001:db8::1', true],
    // the interface may be another one by the next datagram
    ['fe80::1%eth0', false],
  ])('knows a peer by its octets, but not for long by the number of an interface: %s', (from, kept) => {
    const { socket, arrive } = doubled(from)
    const peers: UdpPeer[] = []
    socket.start({ onmessage: (_datagram, peer) => void peers.push(peer), onfailure: () => undefined })
    arrive(1)
    arrive(1)
    expect(peers.map(({ system }) => system !== undefined)).toEqual([kept, kept])
    expect(peers[0] === peers[1]).toBe(kept)
  })

  test('is closed when it cannot be read', () => {
    const { socket, closed } = doubled('::1', -constants.errno.ENOSPC)
    expect(() => socket.start({ onmessage: () => undefined, onfailure: () => undefined })).toThrow(
      expect.objectContaining({ code: 'ENOSPC' }),
    )
    expect(closed()).toBe(1)
  })
})
