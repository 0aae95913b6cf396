/** Every table that a stranger can make grow stays within its bound. */
import { afterEach, describe, expect, test } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { Deduplication } from '../../../transport/coap/deduplication.ts'
import { defaultLimits } from '../../../transport/coap/limits.ts'
import { decodeMessage, encodeMessage, type Message, MessageType } from '../../../transport/coap/message.ts'
import { textOption } from '../../../transport/coap/option-set.ts'
import { OptionNumber } from '../../../transport/coap/options.ts'
import { PipePeer } from '../../../transport/coap/pipe.ts'
import { ready } from '../../../transport/coap/reply.ts'
import { Router } from '../../../transport/coap/server.ts'
import { newStats } from '../../../transport/coap/stats.ts'
import { type RawPeer, type World, world } from './fixtures.ts'

describe('deduplication', () => {
  const message = (messageId: number, payload = 'x') =>
    decodeMessage(
      encodeMessage({ type: MessageType.con, code: Code.post, messageId, payload: utf8(payload) }),
    ) as Message

  test('stays within its octets, the oldest go first', () => {
    const stats = newStats()
    const table = new Deduplication({ ...defaultLimits, deduplicationOctets: 50_000 }, stats)
    for (let i = 0; i < 5000; i++) {
      const peer = new PipePeer('192.0.2.1', i)
      table.answer(table.remember(message(i), peer, i), new Uint8Array(100))
      expect(stats.deduplicationOctets).toBeLessThanOrEqual(50_000)
    }
    expect(table.find(message(4999), new PipePeer('192.0.2.1', 4999), 5000)).toBeDefined()
    expect(table.find(message(0), new PipePeer('192.0.2.1', 0), 5000)).toBeUndefined()
    table.clear()
    expect([stats.deduplicationOctets, table.size]).toEqual([0, 0])
  })

  test('one peer has its share, time ends it, a peer that is gone leaves nothing', () => {
    const stats = newStats()
    const table = new Deduplication({ ...defaultLimits, deduplicationPerPeer: 10 }, stats)
    const peer = new PipePeer('192.0.2.1', 1)
    const other = new PipePeer('192.0.2.2', 1)
    table.remember(message(1), other, 0)
    for (let i = 0; i < 100; i++) table.remember(message(i), peer, 0)
    expect(table.size).toBe(11)
    table.dropPeer(peer.key)
    expect(table.size).toBe(1)
    expect(table.find(message(1), other, 246_000)).toBeDefined()
    expect(table.find(message(1), other, 248_000)).toBeUndefined()
    table.remember(message(2), peer, 300_000)
    expect(table.size).toBe(1)
    // an answer that comes after its entry has gone changes nothing
    const late = table.remember(message(3), peer, 300_000)
    table.dropPeer(peer.key)
    table.answer(late, new Uint8Array(1000))
    expect(stats.deduplicationOctets).toBe(0)
  })

  test('a silent endpoint forgets what it saw', async () => {
    const w = world(new Router().add({ pattern: '/p', post: () => ({ code: Code.changed }) }))
    const raw = w.raw()
    raw.send({
      type: MessageType.con,
      code: Code.post,
      messageId: 1,
      options: [{ number: 11, value: utf8('p') }],
    })
    await w.timers.advance(1000)
    expect(w.server.stats.deduplicationOctets).toBeGreaterThan(0)
    await w.timers.advance(260_000)
    expect(w.server.stats.deduplicationOctets).toBe(0)
    expect(w.timers.pending).toBe(0)
    await w.close()
  })
})

describe('a server under load', () => {
  let w: World
  afterEach(async () => {
    await w.close()
    expect(w.timers.pending).toBe(0)
  })

  let messageId = 1
  function post(raw: RawPeer, segment: string, type: MessageType = MessageType.con): void {
    const options = [textOption(OptionNumber.uriPath, segment)]
    raw.send({ type, code: Code.post, messageId: messageId++, token: Uint8Array.of(1), options })
  }

  test('runs a bounded number of handlers at once, of one peer and in all', async () => {
    let running = 0
    const waiting: (() => void)[] = []
    const router = new Router().add({
      pattern: '/hang',
      post: async () => {
        running++
        await new Promise<void>((resolve) => waiting.push(resolve))
        running--
        return { code: Code.changed }
      },
    })
    w = world(router, { server: { limits: { activeRequests: 40, activeRequestsPerPeer: 15 } } })
    const greedy = w.raw()
    for (let i = 0; i < 50; i++) post(greedy, 'hang')
    await w.timers.advance(50)
    expect(running).toBe(15)
    expect(greedy.take().filter((m) => m.code === Code.serviceUnavailable).length).toBe(35)
    for (let i = 0; i < 50; i++) post(w.raw(), 'hang')
    await w.timers.advance(50)
    expect(running).toBe(40)
    for (const resolve of waiting) resolve()
    await w.timers.advance(200_000)
    expect(running).toBe(0)
    post(greedy, 'hang')
    await w.timers.advance(50)
    expect(running).toBe(1)
  })

  test('limits the rate of a network that is not trusted', async () => {
    w = world(new Router().add({ pattern: '/p', post: () => ({ code: Code.changed }) }), {
      server: { limits: { requestsPerSecond: 10, requestBurst: 20 } },
    })
    const stranger = w.raw('198.51.100.1', 1)
    const local = w.raw()
    for (let i = 0; i < 100; i++) {
      post(stranger, 'p')
      post(local, 'p')
    }
    await w.timers.advance(50)
    expect([stranger.take().length, local.take().length]).toEqual([20, 100])
    expect(w.server.stats.dropped.rate).toBe(80)
    await w.timers.advance(1000)
    for (let i = 0; i < 100; i++) post(stranger, 'p')
    await w.timers.advance(50)
    expect(stranger.take().length).toBe(10)
  })

  test('tells a verified client that it asks too often', async () => {
    w = world(new Router().add({ pattern: '/p', post: () => ({ code: Code.changed, payload: new Uint8Array(800) }) }), {
      server: { limits: { requestsPerSecond: 1, requestBurst: 5, prefixBucketOctets: 0 } },
    })
    const client = w.client('198.51.100.1')
    const replies: string[] = []
    for (let i = 0; i < 6; i++) replies.push((await w.timers.until(client.post('/p', utf8('x')))).codeText)
    expect(replies.at(-1)).toBe('4.29')
  })

  test('keeps a bounded number of replies ready', async () => {
    const reply = ready({ code: Code.content, payload: utf8('x') })
    w = world(new Router().add({ pattern: '/r', get: () => reply }), { server: { limits: { readyReplies: 10 } } })
    const client = w.client()
    for (let i = 0; i < 100; i++) {
      expect((await w.timers.until(client.get(`/r?${i}`))).text).toBe('x')
    }
    expect((await w.timers.until(client.get(`/r?99`))).text).toBe('x')
    expect(w.server.stats.requestsReady).toBe(1)
  })

  test('a separate reply that must arrive says so', async () => {
    let arrived = 0
    w = world(
      new Router().add({
        pattern: '/p',
        post: () => ({ code: Code.changed, payload: utf8('key'), onAcknowledged: () => arrived++ }),
        get: () => ({ code: Code.content, payload: new Uint8Array(3000), onAcknowledged: () => arrived++ }),
      }),
    )
    const client = w.client()
    expect((await w.timers.until(client.post('/p', utf8('x')))).text).toBe('key')
    await w.timers.advance(50)
    expect(arrived).toBe(1)
    expect((await w.timers.until(client.get('/p'))).payload.length).toBe(3000)
    await w.timers.advance(50)
    expect(arrived).toBe(2)
    const gone = w.raw()
    post(gone, 'p')
    await w.timers.advance(100_000)
    // an empty ACK, then the reply five times
    expect(gone.take().map((m) => m.code)).toEqual([0, ...new Array(5).fill(Code.changed)])
    expect(arrived).toBe(2)
  })

  test('wants large requests in blocks, and keeps no large registration', async () => {
    w = world(
      new Router().add({
        pattern: '/p',
        observable: true,
        get: () => ({ code: Code.content }),
        put: ({ payload }) => ({ code: Code.changed, payload: utf8(String(payload.length)) }),
      }),
    )
    const raw = w.raw()
    const path = textOption(OptionNumber.uriPath, 'p')
    raw.send({ type: MessageType.con, code: Code.put, messageId: 1, options: [path], payload: new Uint8Array(5000) })
    const observe = { number: OptionNumber.observe, value: new Uint8Array(0) }
    const junk = { number: 2052, value: new Uint8Array(1300) }
    raw.send({ type: MessageType.con, code: Code.get, messageId: 2, options: [observe, path, junk] })
    await w.timers.advance(50)
    const [put, get] = raw.take()
    expect([put?.code, put?.options().getUint(OptionNumber.block1)]).toEqual([Code.requestEntityTooLarge, 6])
    expect([get?.code, get?.options().has(OptionNumber.observe)]).toEqual([Code.content, false])
    // a client that sends large ones does as it is told
    const client = w.client('127.0.0.1')
    expect((await w.timers.until(client.put('/p', new Uint8Array(5000)))).text).toBe('5000')
  })

  test('survives a callback that throws', async () => {
    w = world(
      new Router().add({
        pattern: '/p',
        get: () => ({
          code: Code.content,
          onAcknowledged: () => {
            throw new Error('not this time')
          },
        }),
      }),
      {
        server: {
          onEvent: () => {
            throw new Error('nor here')
          },
        },
      },
    )
    const client = w.client()
    expect((await w.timers.until(client.get('/p'))).codeText).toBe('2.05')
    await w.timers.advance(50)
    expect((await w.timers.until(client.get('/p', { confirmable: false }))).codeText).toBe('2.05')
    await w.timers.advance(50)
  })

  test('reports what it drops to whoever listens, without words of its own', async () => {
    const events: string[] = []
    w = world(new Router(), {
      server: { onEvent: (event) => events.push(`${event.kind} ${event.reason} ${event.peer}`) },
    })
    const raw = w.raw('127.0.0.1', 7)
    raw.sendOctets(utf8('nonsense that is no CoAP'))
    raw.send({ type: MessageType.ack, code: 0, messageId: 1 })
    await w.timers.advance(50)
    expect(events).toEqual(['dropped token-length 127.0.0.1:7', 'dropped stray-ack 127.0.0.1:7'])
    expect(w.server.stats.dropped['stray-ack']).toBe(1)
  })

  test('a peer whose association ends leaves nothing behind', async () => {
    w = world(
      new Router().add({
        pattern: '/o',
        observable: true,
        get: () => ({ code: Code.content, payload: new Uint8Array(5000) }),
        post: () => new Promise(() => {}),
      }),
    )
    const client = w.client('127.0.0.1', {}, 777)
    const observation = client.observe('/o', { onNotification: () => {} })
    await w.timers.until(observation.ready)
    client.post('/o', new Uint8Array(10)).catch(() => {})
    await w.timers.advance(1000)
    expect([w.server.stats.observers, w.server.stats.snapshots]).toEqual([1, 1])
    w.dropPeer(new PipePeer('127.0.0.1', 777))
    expect([w.server.stats.observers, w.server.stats.snapshots, w.server.stats.deduplicationOctets]).toEqual([0, 0, 0])
  })
})
