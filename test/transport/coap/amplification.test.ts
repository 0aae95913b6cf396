/** What a source that may be spoofed can make us send, and that plain clients are served all the same. */
import { afterEach, describe, expect, test } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { MessageType } from '../../../transport/coap/message.ts'
import { type CoapOption, textOption, uintOption } from '../../../transport/coap/option-set.ts'
import { OptionNumber } from '../../../transport/coap/options.ts'
import { ready } from '../../../transport/coap/reply.ts'
import { Router } from '../../../transport/coap/server.ts'
import { type RawPeer, type World, world } from './fixtures.ts'

let w: World
let posts = 0
afterEach(async () => {
  await w.close()
  expect(w.timers.pending).toBe(0)
})

const VICTIM = '198.51.100.7'
const path = (text: string): CoapOption => textOption(OptionNumber.uriPath, text)

function open(limits = {}): Router {
  posts = 0
  const reading = ready({ code: Code.content, payload: new Uint8Array(175), etag: Uint8Array.of(1) })
  const router = new Router()
    .add({ pattern: '/s', get: () => reading, observable: true })
    .add({ pattern: '/slow', get: () => Promise.resolve(reading) })
    .add({ pattern: '/big', get: () => ({ code: Code.content, payload: new Uint8Array(10_000) }) })
    .add({
      pattern: '/p',
      post: () => {
        posts++
        return { code: Code.changed, payload: new Uint8Array(900) }
      },
      put: () => ({ code: Code.changed }),
    })
    .add({ pattern: '/fresh', put: () => ({ code: Code.changed }), freshSeconds: 30 })
  w = world(router, { server: { limits } })
  return router
}

let messageId = 1
function get(
  raw: RawPeer,
  segment: string,
  more: CoapOption[] = [],
  type: MessageType = MessageType.con,
  code = Code.get as number,
): void {
  const token = Uint8Array.of(messageId >> 8, messageId & 255)
  raw.send({ type, code, messageId: messageId++ & 0xffff, token, options: [path(segment), ...more] })
}

/** Octets that go to the victim and octets that came from its address. */
function count(): { sent: number; received: number; datagrams: number } {
  const counter = { sent: 0, received: 0, datagrams: 0 }
  w.network.filter = (datagram, from, to) => {
    if (from.address.startsWith('198.51.100.')) counter.received += datagram.length
    if (to.address.startsWith('198.51.100.')) {
      counter.sent += datagram.length
      counter.datagrams++
    }
    return true
  }
  return counter
}

describe('the budget', () => {
  test.each([
    ['s', 20_000],
    ['slow', 4000],
    ['big', 4000],
    ['nowhere', 20_000],
  ])('of /%s: %i spoofed GETs draw at most 16 KiB + 1 KiB/s + 3 × what was sent', async (segment, gets) => {
    open()
    const counter = count()
    const ports = Array.from({ length: 40 }, (_, i) => w.raw(VICTIM, 1000 + i))
    for (let i = 0; i < gets / 100; i++) {
      for (let j = 0; j < 100; j++) get(ports[(i + j) % 40] as RawPeer, segment)
      await w.timers.advance(100)
      for (const port of ports) port.received.length = 0
    }
    await w.timers.advance(100_000)
    expect(w.server.stats.datagramsReceived).toBe(gets)
    // 1 000 requests a second; nothing is sent after the last
    expect(counter.sent).toBeLessThanOrEqual(16 * 1024 + gets * 1.024 + 3 * counter.received)
    expect(counter.datagrams).toBeLessThanOrEqual(gets)
  })

  test('beyond the free three times, one network gets 16 KiB and then 1 KiB a second', async () => {
    open({ requestsPerSecond: 1e6, requestBurst: 1e6 })
    const counter = count()
    const raw = w.raw(VICTIM, 1000)
    for (let i = 0; i < 1000; i++) get(raw, 's')
    await w.timers.advance(100)
    const paid = () => raw.received.filter((d) => d.length > 100).reduce((sum, d) => sum + d.length, 0)
    expect(paid()).toBeGreaterThan(16_000)
    expect(paid()).toBeLessThanOrEqual(16 * 1024)
    const challenges = raw.take().filter((m) => m.code === Code.unauthorized)
    expect(challenges.length).toBeGreaterThan(800)
    expect(challenges.every((m) => m.options().has(OptionNumber.echo))).toBe(true)
    await w.timers.advance(4000)
    for (let i = 0; i < 100; i++) get(raw, 's')
    await w.timers.advance(100)
    expect(paid()).toBeGreaterThan(3500)
    expect(paid()).toBeLessThanOrEqual(4 * 1024 + 300)
    expect(counter.sent).toBeGreaterThan(0)
  })

  test('all such sources together share 256 KiB and 64 KiB a second', async () => {
    open()
    let paid = 0
    w.network.filter = (datagram, from) => {
      if (from.port === 5683 && datagram.length > 100) paid += datagram.length
      return true
    }
    for (let net = 0; net < 250; net++) {
      const raw = w.raw(`203.0.113.${net}`, 1000)
      for (let i = 0; i < 20; i++) get(raw, 's')
    }
    await w.timers.advance(50)
    expect(paid).toBeLessThanOrEqual(256 * 1024 + 4096)
    expect(paid).toBeGreaterThan(250 * 1024)
  })

  test('a network cannot get a new bucket by having the old one pushed out of the table', async () => {
    open({ prefixes: 50 })
    const raw = w.raw(VICTIM, 1000)
    const paid = () => raw.received.filter((d) => d.length > 100).reduce((sum, d) => sum + d.length, 0)
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 200; i++) get(raw, 's')
      for (let net = 0; net < 200; net++) get(w.raw(`203.0.113.${net}`, 1000 + round), 's')
      await w.timers.advance(10)
    }
    expect(paid()).toBeLessThanOrEqual(16 * 1024 + 300)
  })

  test('a request of an unverified source draws one datagram at most, never repeated', async () => {
    const router = open()
    let resolve: (() => void) | undefined
    router.add({
      pattern: '/later',
      get: async () => {
        await new Promise<void>((r) => {
          resolve = r
        })
        return { code: Code.content, payload: utf8('x') }
      },
    })
    const raw = w.raw(VICTIM, 1000)
    get(raw, 'later')
    await w.timers.advance(10_000)
    expect(raw.take()).toEqual([])
    resolve?.()
    await w.timers.advance(100_000)
    expect(raw.take().map((m) => [m.type, m.code])).toEqual([[MessageType.ack, Code.content]])
  })
})

describe('verification', () => {
  test('whoever returns our Echo is served at length, for ten minutes', async () => {
    open({ prefixBucketOctets: 0 })
    const raw = w.raw(VICTIM, 1000)
    const other = w.raw(VICTIM, 1001)
    const ask = async (peer: RawPeer, more: CoapOption[] = []) => {
      get(peer, 's', more)
      await w.timers.advance(50)
      return peer.take()[0]
    }
    const challenge = await ask(raw)
    expect(challenge?.code).toBe(Code.unauthorized)
    const echo = { number: OptionNumber.echo, value: Buffer.from(challenge?.options().get(OptionNumber.echo) ?? []) }
    // it is worth nothing to another port, nor with a bit changed, nor with another time
    expect((await ask(other, [echo]))?.code).toBe(Code.unauthorized)
    for (const at of [0, 2, 10]) {
      const forged = Buffer.from(echo.value)
      forged[at] = (forged[at] as number) ^ 1
      expect((await ask(raw, [{ number: OptionNumber.echo, value: forged }]))?.code).toBe(Code.unauthorized)
    }
    expect((await ask(raw, [{ number: OptionNumber.echo, value: utf8('x') }]))?.code).toBe(Code.unauthorized)
    expect((await ask(raw, [echo]))?.code).toBe(Code.content)
    expect((await ask(raw))?.code).toBe(Code.content)
    await w.timers.advance(601_000)
    expect((await ask(raw))?.code).toBe(Code.unauthorized)
    // an old Echo is worth nothing either
    expect((await ask(raw, [echo]))?.code).toBe(Code.unauthorized)
  })

  test('our client returns it by itself, and reads and writes without noticing', async () => {
    open({ prefixBucketOctets: 0 })
    const client = w.client('198.51.100.9')
    expect((await w.timers.until(client.get('/s'))).payload.length).toBe(175)
    expect((await w.timers.until(client.get('/big'))).payload.length).toBe(10_000)
    expect((await w.timers.until(client.post('/p', utf8('x')))).payload.length).toBe(900)
    expect(posts).toBe(1)
  })

  test('a plain client is served within the budget', async () => {
    open()
    const raw = w.raw('198.51.100.8', 1000)
    for (let i = 0; i < 20; i++) get(raw, 's')
    await w.timers.advance(50)
    expect(raw.take().every((m) => m.code === Code.content)).toBe(true)
    for (let block = 0; block < 10; block++) {
      get(raw, 'big', [uintOption(OptionNumber.block2, block * 16 + 6)])
      await w.timers.advance(50)
    }
    expect(raw.take().reduce((sum, m) => sum + m.payload.length, 0)).toBe(10_000)
  })

  test('an unsafe request that could not be answered is not executed but challenged', async () => {
    open({ prefixBucketOctets: 400 })
    const raw = w.raw(VICTIM, 1000)
    get(raw, 'p', [], MessageType.con, Code.post)
    await w.timers.advance(50)
    const challenge = raw.take()[0]
    expect([challenge?.code, posts]).toEqual([Code.unauthorized, 0])
  })

  test('the reply to an unsafe request that was executed comes in blocks as small as it takes', async () => {
    open({ prefixBucketOctets: 600 })
    const raw = w.raw(VICTIM, 1000)
    get(raw, 'p', [], MessageType.con, Code.post)
    await w.timers.advance(50)
    const [reply] = raw.take()
    expect([reply?.code, posts, reply?.payload.length]).toEqual([Code.changed, 1, 512])
    expect((reply?.options().getUint(OptionNumber.block2) ?? 0) & 15).toBe(8 + 5)
  })

  test('a resource may demand an Echo that is fresh', async () => {
    open()
    const client = w.client()
    expect((await w.timers.until(client.put('/fresh', utf8('x')))).codeText).toBe('2.04')
    const raw = w.raw('127.0.0.1', 999)
    get(raw, 'fresh', [], MessageType.con, Code.put)
    await w.timers.advance(50)
    const echo = {
      number: OptionNumber.echo,
      value: Buffer.from(raw.take()[0]?.options().get(OptionNumber.echo) ?? []),
    }
    await w.timers.advance(40_000)
    get(raw, 'fresh', [echo], MessageType.con, Code.put)
    await w.timers.advance(50)
    expect(raw.take()[0]?.code).toBe(Code.unauthorized)
  })

  test('DTLS, loopback and trusted networks need no proof', async () => {
    open({ prefixBucketOctets: 0 })
    await w.close()
    const router = new Router().add({
      pattern: '/s',
      get: () => ({ code: Code.content, payload: new Uint8Array(200) }),
    })
    w = world(router, { server: { limits: { prefixBucketOctets: 0 }, trustedPrefixes: ['198.51.100.0/24'] } })
    for (const address of [VICTIM, '127.0.0.1', '203.0.113.1']) {
      const raw = w.raw(address, 2000)
      get(raw, 's')
      await w.timers.advance(50)
      expect(raw.take()[0]?.code).toBe(address === '203.0.113.1' ? Code.unauthorized : Code.content)
    }
  })
})

describe('observers that may be spoofed', () => {
  const register = async (raw: RawPeer) => {
    raw.send({
      type: MessageType.con,
      code: Code.get,
      messageId: messageId++ & 0xffff,
      token: Uint8Array.of(1),
      options: [uintOption(OptionNumber.observe, 0), path('s')],
    })
    await w.timers.advance(50)
    return raw.take()[0]
  }

  test('get one confirmable notification, once; silence ends the relation', async () => {
    const router = open()
    const raw = w.raw(VICTIM, 1000)
    expect((await register(raw))?.options().has(OptionNumber.observe)).toBe(true)
    router.notify('/s')
    await w.timers.advance(200_000)
    expect(raw.take().map((m) => m.type)).toEqual([MessageType.con])
    expect(w.server.stats.observers).toBe(0)
  })

  test('that acknowledge become like any other', async () => {
    const router = open()
    const raw = w.raw(VICTIM, 1000)
    await register(raw)
    router.notify('/s')
    await w.timers.advance(50)
    const [first] = raw.take()
    raw.send({ type: MessageType.ack, code: 0, messageId: first?.messageId as number })
    await w.timers.advance(50)
    for (let i = 0; i < 300; i++) {
      router.notify('/s')
      await w.timers.advance(20)
      for (const message of raw.take()) {
        if (message.type === MessageType.con) raw.send({ type: MessageType.ack, code: 0, messageId: message.messageId })
      }
      await w.timers.advance(20)
    }
    // some fell into the round-trip time of the one before, and gave way to the next
    expect(w.server.stats.notifications).toBeGreaterThan(280)
    expect(w.server.stats.observers).toBe(1)
  })

  test('that guess message IDs lose the relation instead of verifying the victim', async () => {
    const router = open()
    const raw = w.raw(VICTIM, 1000)
    await register(raw)
    router.notify('/s')
    await w.timers.advance(50)
    const real = raw.take()[0]?.messageId as number
    for (let guess = 0; guess < 200; guess++)
      raw.send({ type: MessageType.ack, code: 0, messageId: (real + 1 + guess) & 0xffff })
    raw.send({ type: MessageType.ack, code: 0, messageId: real })
    await w.timers.advance(50)
    expect(w.server.stats.observers).toBe(0)
    expect(w.server.stats.dropped['stray-ack']).toBe(201)
  })

  test('cannot shut out the next one, and cost a bounded number of octets', async () => {
    const router = open({ observersUnverified: 10 })
    const counter = count()
    for (let i = 0; i < 100; i++) await register(w.raw(VICTIM, 1000 + i))
    expect(w.server.stats.observers).toBe(10)
    const before = counter.sent
    for (let i = 0; i < 50; i++) {
      router.notify('/s')
      await w.timers.advance(1000)
    }
    expect(counter.sent - before).toBeLessThan(10 * 220)
    expect(w.server.stats.observers).toBe(0)
  })
})
