import { createSocket, type Socket } from 'node:dgram'
import { resolve } from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { connect } from '../../../transport/dtls/connect.ts'
import { helloRandom, looksLikeDtls } from '../../../transport/dtls/hello.ts'
import { HostTable, hostKey } from '../../../transport/dtls/host-table.ts'
import type { ConnectOptions, DtlsAssociation, RemoteAddress } from '../../../transport/dtls/types.ts'
import { ask, createWorld, type Server, startServer, type World } from './authority.ts'
import { mutate, seeded, startRelay } from './relay.ts'

/** Strangers that send whatever they like. */
let world: World
const open: { close(): unknown }[] = []

beforeAll(async () => {
  world = await createWorld()
})
afterEach(async () => {
  vi.restoreAllMocks()
  for (const thing of open.splice(0).reverse()) await thing.close()
})

async function serve(options: Parameters<typeof startServer>[0] = {}): Promise<Server> {
  const { cert, key } = world.server
  const server = await startServer({ cert, key, ca: world.ca, clientAuth: 'optional', ...options })
  open.push(server.endpoint)
  return server
}

function dial(port: number, options: ConnectOptions = {}): DtlsAssociation {
  const association = connect('127.0.0.1', port, { ca: world.ca, retransmitInitial: 100, ...options })
  open.push(association)
  return association
}

async function rawSocket(): Promise<Socket> {
  const socket = createSocket('udp4')
  await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
  open.push(socket)
  return socket
}

/** A ClientHello as our own client sends it. */
async function firstHello(): Promise<Buffer> {
  const socket = await rawSocket()
  const hello = new Promise<Buffer>((resolve) => socket.once('message', resolve))
  const association = connect('127.0.0.1', socket.address().port, { ca: world.ca })
  const datagram = await hello
  association.destroy()
  return datagram
}

describe('hellos without a cookie', () => {
  test('leave nothing behind, and are answered with fewer octets than they had', async () => {
    const server = await serve()
    const hello = await firstHello()
    const socket = await rawSocket()
    let answers = 0
    let largest = 0
    socket.on('message', (answer) => {
      answers++
      largest = Math.max(largest, answer.length)
    })
    for (let i = 0; i < 5000; i++) {
      hello.writeUInt32BE(i, 27)
      socket.send(hello, server.port, '127.0.0.1')
      if (i % 20 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await vi.waitFor(() => expect(server.endpoint.stats.helloVerifySent).toBeGreaterThan(1000))
    await vi.waitFor(() => expect(answers).toBeGreaterThan(1000))
    expect(largest).toBeLessThan(hello.length)
    expect(server.endpoint.stats).toMatchObject({ accepted: 0, refused: 0, associations: 0 })
    await dial(server.port).opened
  })

  test('with the cookie of another port, or one that is minutes old, are asked again', async () => {
    const server = await serve()
    const hellos: Buffer[] = []
    const relay = await startRelay({
      port: server.port,
      seed: 1,
      filter: (datagram, direction) => {
        if (direction === 'up' && helloRandom(datagram) !== undefined) hellos.push(Buffer.from(datagram))
        return true
      },
    })
    open.push(relay)
    await dial(relay.port, { retransmitInitial: 5000 }).opened
    expect(hellos).toHaveLength(2)
    const stolen = hellos[1]!
    const socket = await rawSocket()
    const answered = new Promise<Buffer>((resolve) => socket.once('message', resolve))
    socket.send(stolen, server.port, '127.0.0.1')
    expect((await answered)[13]).toBe(3) // HelloVerifyRequest
    expect(server.endpoint.stats).toMatchObject({ accepted: 1, associations: 1 })
  })

  test('a cookie lives for one to two minutes', async () => {
    const server = await serve()
    const hello = await firstHello()
    const socket = await rawSocket()
    const send = async (datagram: Buffer): Promise<Buffer> => {
      const answer = new Promise<Buffer>((resolve) => socket.once('message', resolve))
      socket.send(datagram, server.port, '127.0.0.1')
      return answer
    }
    let now = performance.now()
    vi.spyOn(performance, 'now').mockImplementation(() => now)
    const request = await send(hello)
    const cookie = request.subarray(28, 28 + (request[27] as number))
    now += 59_000
    expect((await send(withCookie(hello, cookie, 1)))[13]).toBe(2) // ServerHello
    now += 62_000
    expect((await send(withCookie(hello, cookie, 2)))[13]).toBe(3)
  })
})

/** The second hello: the same with the cookie in it, another random to be a new one. */
function withCookie(hello: Buffer, cookie: Buffer, mark: number): Buffer {
  const at = 59 + 1 + (hello[59] as number)
  const out = Buffer.concat([hello.subarray(0, at), Buffer.of(cookie.length), cookie, hello.subarray(at + 1)])
  out.writeUInt16BE(out.length - 13, 11)
  out.writeUIntBE(out.length - 25, 14, 3)
  out.writeUInt16BE(1, 17) // message_seq
  out.writeUIntBE(out.length - 25, 22, 3)
  out[10] = mark // record sequence number
  out[27] = mark
  return out
}

describe('caps', () => {
  test('on associations in all: the next is turned away, and gets in when there is room', async () => {
    const server = await serve({ maxAssociations: 3 })
    const first = [dial(server.port), dial(server.port), dial(server.port)]
    await Promise.all(first.map((a) => a.opened))
    const fourth = dial(server.port, { retransmitInitial: 30 })
    await vi.waitFor(() => expect(server.endpoint.stats.rejected).toBeGreaterThan(0))
    expect(server.endpoint.stats.associations).toBe(3)
    first[0]!.close()
    await fourth.opened
    expect(await ask(fourth, 'ab')).toBe('ba')
    expect(server.endpoint.stats.associations).toBe(3)
  })

  test('on associations of one host', async () => {
    const server = await serve({ host: '::', maxAssociationsPerHost: 2 })
    const two = [dial(server.port), dial(server.port)]
    await Promise.all(two.map((a) => a.opened))
    const third = dial(server.port, { retransmitInitial: 30, handshakeTimeout: 150 })
    await expect(third.opened).rejects.toMatchObject({ code: 'dtls/timeout' })
    expect(server.endpoint.stats.rejected).toBeGreaterThan(0)
    const elsewhere = connect('::1', server.port, { ca: world.ca })
    open.push(elsewhere)
    await elsewhere.opened
  })

  test('the one that was silent for longest makes room', async () => {
    const server = await serve({ maxAssociations: 2 })
    const [quiet, lively] = [dial(server.port), dial(server.port)]
    await quiet.opened
    await lively.opened
    let now = performance.now() + 11_000
    vi.spyOn(performance, 'now').mockImplementation(() => now)
    await ask(lively, 'here')
    now += 1
    const third = dial(server.port, { retransmitInitial: 30 })
    await third.opened
    await quiet.closed
    expect(server.associations[0]!.error).toMatchObject({ code: 'dtls/idle' })
    expect(await ask(lively, 'ab')).toBe('ba')
  })

  test('count an IPv6 host by its /64', () => {
    const six = (address: string): RemoteAddress => ({ address, port: 1, family: 'IPv6' })
    const same = ['2001:db8::1', '2001:db8:0:0:ffff::2', '2001:0db8:0:0:1:2:3:4', '2001:db8::192.0.2.1']
    expect(new Set(same.map((a) => hostKey(six(a))))).toEqual(new Set(['2001:db8:0:0']))
    expect(hostKey(six('2001:db8:0:1::1'))).toBe('2001:db8:0:1')
    expect(hostKey(six('fe80::1%eth0'))).toBe('fe80:0:0:0')
    expect(hostKey(six('::1'))).toBe('0:0:0:0')
    expect(hostKey(six('::'))).toBe('0:0:0:0')
    expect(hostKey({ address: '192.0.2.1', port: 1, family: 'IPv4' })).toBe('192.0.2.1')
    const table = new HostTable(10)
    for (const address of same) table.add(six(address), 0)
    expect(table.count(six('2001:db8::99'))).toBe(4)
    for (const address of same) table.remove(six(address))
    table.sweep(0)
    expect(table.size).toBe(1)
    table.sweep(1000)
    expect(table.size).toBe(0)
  })

  test('on handshakes a second of one host: each costs a signature', () => {
    const host: RemoteAddress = { address: '192.0.2.1', port: 1, family: 'IPv4' }
    const table = new HostTable(4)
    const begun = (from: number, to: number): number => {
      let count = 0
      for (let now = from; now < to; now += 10) {
        if (!table.admits(host, now)) continue
        table.add(host, now)
        table.remove(host)
        count++
      }
      return count
    }
    expect(begun(0, 1000)).toBe(7) // four at once, four a second
    expect(begun(1000, 6000)).toBe(20)
    table.sweep(6000)
    expect(table.size).toBe(1)
    expect(begun(20_000, 20_010)).toBe(1)
    expect(table.admits({ ...host, address: '192.0.2.2' }, 6000)).toBe(true)
  })
})

describe('garbage', () => {
  test('random datagrams, and mutations of a genuine hello, end nothing', async () => {
    const server = await serve()
    const association = dial(server.port)
    await association.opened
    const hello = await firstHello()
    const socket = await rawSocket()
    const random = seeded(99)
    for (let i = 0; i < 3000; i++) {
      const noise =
        i % 2 === 0
          ? Buffer.from(Array.from({ length: Math.floor(random() * 120) }, () => Math.floor(random() * 256)))
          : mutate(hello, random)
      socket.send(noise, server.port, '127.0.0.1')
      if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    expect(await ask(association, 'still')).toBe('llits')
    expect(server.endpoint.stats.accepted).toBe(1)
    expect(server.associations).toHaveLength(1)
  })

  test('handshakes through a line that changes one datagram in eight authenticate nobody wrongly', async () => {
    const server = await serve({ retransmitInitial: 30, handshakeTimeout: 1500 })
    const relay = await startRelay({ port: server.port, seed: 5, mutate: 0.12 })
    open.push(relay)
    const { cert, key } = world.device
    const bindings = new Set<string>()
    // Ten at a time, so that a busy machine does not run into the time-out that is meant for broken handshakes.
    for (let begun = 0; begun < 60 || (bindings.size <= 20 && begun < 300); begun += 10) {
      const clients = Array.from({ length: 10 }, () =>
        dial(relay.port, { cert, key, retransmitInitial: 30, handshakeTimeout: 1500 }),
      )
      await Promise.all(clients.map((client) => client.opened.catch(() => undefined)))
      for (const client of clients) {
        if (client.protocol !== undefined && !client.error) bindings.add(client.channelBinding().toString('hex'))
      }
    }
    for (const association of server.associations) {
      if (association.error !== undefined) continue
      expect(association.authorized).toBe(true)
    }
    expect(bindings.size).toBeGreaterThan(20)
    const fine = dial(server.port)
    await fine.opened
    expect(await ask(fine, 'ab')).toBe('ba')
  }, 60_000)

  test('is told from DTLS before OpenSSL sees it', () => {
    const record = Buffer.alloc(60)
    record.set([22, 0xfe, 0xfd])
    expect(looksLikeDtls(record)).toBe(true)
    expect(looksLikeDtls(record.subarray(0, 13))).toBe(false)
    expect(looksLikeDtls(Buffer.alloc(0))).toBe(false)
    for (const type of [0, 19, 24, 64, 255]) {
      record[0] = type
      expect(looksLikeDtls(record)).toBe(false)
    }
    record.set([22, 0xfe, 0xfd])
    record[13] = 1
    expect(helloRandom(record)).toHaveLength(32)
    expect(helloRandom(record.subarray(0, 58))).toBeUndefined()
    record[4] = 1 // epoch 1
    expect(helloRandom(record)).toBeUndefined()
  })
})

test('200 at once', async () => {
  const server = await serve()
  const { cert, key } = world.device
  const clients = Array.from({ length: 200 }, () => dial(server.port, { cert, key, retransmitInitial: 1000 }))
  await Promise.all(clients.map((client) => client.opened))
  const answers = await Promise.all(clients.map((client, i) => ask(client, `n${i}`)))
  expect(answers).toEqual(clients.map((_, i) => [...`n${i}`].reverse().join('')))
  expect(server.endpoint.stats).toMatchObject({ accepted: 200, refused: 0, rejected: 0, associations: 200 })
  expect(new Set(clients.map((c) => c.channelBinding().toString('hex'))).size).toBe(200)
})

test('worker threads each have their own', async () => {
  const file = resolve(import.meta.dirname, '../../../native/build/dtls.node')
  const source = `
    const { parentPort, workerData } = require('node:worker_threads')
    const dtls = require(workerData)
    const context = dtls.createContext({ server: 0, ciphers: Buffer.from('ECDHE-ECDSA-AES128-GCM-SHA256') })
    const association = dtls.createAssociation(context, { mtu: 1200, retransmitInitial: 1000 })
    const happened = dtls.receive(association)
    parentPort.postMessage({ happened, octets: dtls.takeOutgoing(association).length })
  `
  const server = await serve()
  const association = dial(server.port)
  await association.opened
  for (let round = 0; round < 3; round++) {
    const results = await Promise.all(
      [0, 1].map(
        () =>
          new Promise((done, failed) => {
            const worker = new Worker(source, { eval: true, workerData: file })
            worker.on('message', done)
            worker.on('error', failed)
          }),
      ),
    )
    for (const result of results) expect(result).toMatchObject({ happened: 2, octets: expect.any(Number) })
    expect(await ask(association, 'ab')).toBe('ba')
  }
})
