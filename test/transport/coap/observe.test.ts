import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { type Message, MessageType } from '../../../transport/coap/message.ts'
import type { CoapResponse } from '../../../transport/coap/messages.ts'
import { type CoapOption, textOption, uintOption } from '../../../transport/coap/option-set.ts'
import { OptionNumber } from '../../../transport/coap/options.ts'
import { ready } from '../../../transport/coap/reply.ts'
import { type CoapReply, Router } from '../../../transport/coap/server.ts'
import { type RawPeer, type World, world } from './fixtures.ts'

let w: World
let router: Router
let state: CoapReply

function text(value: string, more: Partial<CoapReply> = {}): CoapReply {
  return { code: Code.content, payload: utf8(value), contentFormat: 0, ...more }
}

function start(limits = {}): void {
  state = text('0')
  router = new Router().add({ pattern: '/v', observable: true, get: () => state })
  w = world(router, { server: { limits } })
}

beforeEach(() => start())
afterEach(async () => {
  await w.close()
  expect(w.timers.pending).toBe(0)
})

function set(reply: CoapReply): void {
  state = reply
  router.notify('/v')
}

let messageId = 1
async function observe(raw: RawPeer, value: 0 | 1 = 0, token = 1, options: CoapOption[] = []): Promise<Message> {
  raw.send({
    type: MessageType.con,
    code: Code.get,
    messageId: messageId++,
    token: Uint8Array.of(token),
    options: [uintOption(OptionNumber.observe, value), textOption(OptionNumber.uriPath, 'v'), ...options],
  })
  await w.timers.advance(50)
  const [reply] = raw.take()
  if (reply === undefined) throw new Error('no reply')
  return reply
}

/** Changes the state and returns what the observer hears; acknowledges what wants it. */
async function hear(raw: RawPeer, reply: CoapReply, answer: 'ack' | 'reset' | 'silence' = 'ack'): Promise<Message[]> {
  set(reply)
  await w.timers.advance(50)
  const got = raw.take()
  for (const message of got) {
    if (answer === 'reset') raw.send({ type: MessageType.reset, code: 0, messageId: message.messageId })
    else if (answer === 'ack' && message.type === MessageType.con) {
      raw.send({ type: MessageType.ack, code: 0, messageId: message.messageId })
    }
  }
  await w.timers.advance(50)
  return got
}

describe('the server', () => {
  test('numbers notifications, NON but for the first and at least every 20th', async () => {
    const raw = w.raw()
    const registration = await observe(raw)
    let last = registration.options().getUint(OptionNumber.observe) as number
    const types: number[] = []
    for (let i = 1; i <= 45; i++) {
      const [message, extra] = await hear(raw, text(String(i)))
      expect(extra).toBeUndefined()
      expect([message?.payload.toString(), message?.tokenKey]).toEqual([String(i), '\x01'])
      const sequence = message?.options().getUint(OptionNumber.observe) as number
      expect((sequence - last) & 0xffffff).toBeLessThan(0x800000)
      expect(sequence).not.toBe(last)
      last = sequence
      types.push(message?.type as number)
    }
    const confirmable = types.flatMap((type, i) => (type === MessageType.con ? [i] : []))
    expect(confirmable).toEqual([0, 20, 40])
    expect(types.every((type) => type === MessageType.con || type === MessageType.non)).toBe(true)
  })

  test('makes one confirmable after 24 hours', async () => {
    const raw = w.raw()
    await observe(raw)
    await hear(raw, text('1'))
    expect((await hear(raw, text('2')))[0]?.type).toBe(MessageType.non)
    await w.timers.advance(25 * 3600_000)
    expect((await hear(raw, text('3')))[0]?.type).toBe(MessageType.con)
  })

  test.each([
    ['RST to a confirmable notification', 1],
    ['RST to a NON notification', 2],
  ])('%s ends the relation', async (_name, changes) => {
    const raw = w.raw()
    await observe(raw)
    for (let i = 1; i < changes; i++) await hear(raw, text(String(i)))
    await hear(raw, text('x'), 'reset')
    expect(w.server.stats.observers).toBe(0)
    expect(await hear(raw, text('y'))).toEqual([])
  })

  test('Observe=1 with the token ends the relation, with another token it does not', async () => {
    const raw = w.raw()
    await observe(raw, 0, 1)
    expect((await observe(raw, 1, 2)).code).toBe(Code.content)
    expect(w.server.stats.observers).toBe(1)
    const reply = await observe(raw, 1, 1)
    expect([reply.code, reply.options().has(OptionNumber.observe)]).toEqual([Code.content, false])
    expect(w.server.stats.observers).toBe(0)
  })

  test('a client that does not acknowledge loses all its relations', async () => {
    const raw = w.raw()
    await observe(raw, 0, 1)
    await observe(raw, 0, 2)
    expect(w.server.stats.observers).toBe(2)
    await hear(raw, text('1'), 'silence')
    await w.timers.advance(100_000)
    expect(w.server.stats.observers).toBe(0)
    // NSTART: only one of the two was on its way; 1 + 4 transmissions
    expect(raw.take().length).toBe(4)
  })

  test('a retransmission carries the newest state', async () => {
    const raw = w.raw()
    await observe(raw)
    const [first] = await hear(raw, text('old'), 'silence')
    await hear(raw, text('newer'), 'silence')
    await hear(raw, text('newest'), 'silence')
    await w.timers.advance(3000)
    const [again, extra] = raw.take()
    expect(extra).toBeUndefined()
    expect(again?.payload.toString()).toBe('newest')
    expect(again?.messageId).not.toBe(first?.messageId)
    raw.send({ type: MessageType.ack, code: 0, messageId: again?.messageId as number })
    await w.timers.advance(60_000)
    expect(raw.take()).toEqual([])
    expect(w.server.stats.observers).toBe(1)
  })

  test('what changed while one was on its way goes out when that is acknowledged', async () => {
    const raw = w.raw()
    await observe(raw)
    const [first] = await hear(raw, text('1'), 'silence')
    await hear(raw, text('2'), 'silence')
    await hear(raw, text('3'), 'silence')
    raw.send({ type: MessageType.ack, code: 0, messageId: first?.messageId as number })
    await w.timers.advance(50)
    expect(raw.take().map((m) => m.payload.toString())).toEqual(['3'])
  })

  test('several changes in one turn are one notification', async () => {
    const raw = w.raw()
    await observe(raw)
    set(text('1'))
    set(text('2'))
    expect((await hear(raw, text('3'))).map((m) => m.payload.toString())).toEqual(['3'])
  })

  test('an error is the last notification', async () => {
    const raw = w.raw()
    await observe(raw)
    await hear(raw, text('1'))
    const [last] = await hear(raw, { code: Code.serviceUnavailable })
    expect([last?.code, last?.options().has(OptionNumber.observe)]).toEqual([Code.serviceUnavailable, false])
    expect(w.server.stats.observers).toBe(0)
    state = text('2')
    await observe(raw)
    router.remove('/v')
    await w.timers.advance(50)
    expect(raw.take()[0]?.code).toBe(Code.notFound)
    expect(w.server.stats.observers).toBe(0)
  })

  test('another content format ends the relation with 4.06', async () => {
    const raw = w.raw()
    await observe(raw)
    const [last] = await hear(raw, text('{}', { contentFormat: 50 }))
    expect(last?.code).toBe(Code.notAcceptable)
    expect(w.server.stats.observers).toBe(0)
  })

  test('an ETag that the client named makes a notification 2.03', async () => {
    const raw = w.raw()
    await observe(raw, 0, 1, [{ number: OptionNumber.etag, value: Uint8Array.of(5) }])
    const [message] = await hear(raw, text('1', { etag: Uint8Array.of(5) }))
    expect([message?.code, message?.payload.length, message?.options().has(OptionNumber.observe)]).toEqual([
      Code.valid,
      0,
      true,
    ])
  })

  test('relations are capped, per peer and in all; over it a plain reply comes', async () => {
    await w.close()
    start({ observers: 6, observersPerPeer: 3 })
    const raw = w.raw()
    for (let token = 1; token <= 5; token++) expect((await observe(raw, 0, token)).options().has(6)).toBe(true)
    expect(w.server.stats.observers).toBe(3)
    for (let i = 0; i < 5; i++) {
      const reply = await observe(w.raw())
      expect([reply.code, reply.options().has(OptionNumber.observe)]).toEqual([Code.content, i < 3])
    }
    expect(w.server.stats.observers).toBe(6)
    // 3, 4 and 5 are the newest of the first
    set(text('1'))
    await w.timers.advance(50)
    expect(raw.take()[0]?.tokenKey).toBe('\x03')
  })

  test('a renewed registration is the same relation', async () => {
    const raw = w.raw()
    await observe(raw)
    await hear(raw, text('1'))
    await observe(raw)
    expect(w.server.stats.observers).toBe(1)
    expect((await hear(raw, text('2')))[0]?.type).toBe(MessageType.non)
  })

  test('a handler is asked once for all observers if its reply is ready', async () => {
    let asked = 0
    router.add({
      pattern: '/r',
      observable: true,
      get: () => {
        asked++
        return ready(text(String(asked)))
      },
    })
    const clients = Array.from({ length: 10 }, () => w.client())
    const heard: string[][] = clients.map(() => [])
    for (const [i, client] of clients.entries()) client.observe('/r', { onNotification: (n) => heard[i]?.push(n.text) })
    await w.timers.advance(100)
    asked = 100
    router.notify('/r')
    await w.timers.advance(100)
    expect(asked).toBe(101)
    expect(heard.every((h) => h.at(-1) === '101')).toBe(true)
  })

  test('a slow handler tells the newest state only', async () => {
    let value = 0
    router.add({
      pattern: '/slow',
      observable: true,
      get: () =>
        new Promise((resolve) => {
          const now = String(value)
          w.timers.after(value === 0 ? 0 : 100, () => resolve(text(now)))
        }),
    })
    const heard: string[] = []
    w.client().observe('/slow', { onNotification: (n) => heard.push(n.text) })
    await w.timers.advance(50)
    for (value = 1; value < 10; value++) {
      router.notify('/slow')
      await w.timers.advance(20)
    }
    await w.timers.advance(1000)
    expect(heard.length).toBeLessThan(6)
    expect(heard.at(-1)).toBe('10')
  })
})

describe('the client', () => {
  const collect = () => {
    const heard: string[] = []
    const ended: (Error | undefined)[] = []
    const interrupted: Error[] = []
    return {
      heard,
      ended,
      interrupted,
      callbacks: {
        onNotification: (n: { text: string }) => heard.push(n.text),
        onEnd: (error?: Error) => ended.push(error),
        onInterrupted: (error: Error) => interrupted.push(error),
      },
    }
  }

  test('renews before Max-Age is over, and so learns of a restarted server', async () => {
    const { heard, callbacks } = collect()
    state = text('0', { maxAge: 100 })
    const client = w.client()
    const observation = client.observe('/v', callbacks)
    await w.timers.until(observation.ready)
    await w.server.close()
    // the same address, a process that knows nothing
    await w.timers.advance(20_000)
    const again = world(new Router())
    await again.close()
    const { CoapEndpoint } = await import('../../../transport/coap/endpoint.ts')
    const restarted = new CoapEndpoint(w.network.attach('127.0.0.1', 5683), { router, timers: w.timers })
    state = text('after', { maxAge: 100 })
    await w.timers.advance(79_000)
    expect(heard).toEqual(['0', 'after'])
    expect(restarted.stats.observers).toBe(1)
    state = text('more')
    router.notify('/v')
    await w.timers.advance(100)
    expect(heard.at(-1)).toBe('more')
    observation.close()
    await w.timers.advance(100)
    expect(restarted.stats.observers).toBe(0)
    await restarted.close()
  })

  test('does not ask for what comes regularly by itself', async () => {
    const { heard, callbacks } = collect()
    state = text('0', { maxAge: 10 })
    const observation = w.client().observe('/v', callbacks)
    await w.timers.until(observation.ready)
    for (let i = 1; i <= 20; i++) {
      await w.timers.advance(10_000)
      set(text(String(i), { maxAge: 10 }))
    }
    await w.timers.advance(100)
    expect(heard.at(-1)).toBe('20')
    // the registration, and one renewal before it was known that the resource is regular
    expect(w.server.stats.requestsServed).toBeLessThanOrEqual(2)
    // and when it stops being so, the client asks
    await w.timers.advance(26_000)
    expect(w.server.stats.requestsServed).toBeGreaterThan(2)
    observation.close()
  })

  test('goes on when the server is silent for a while', async () => {
    const { heard, ended, interrupted, callbacks } = collect()
    state = text('0', { maxAge: 20 })
    const observation = w.client().observe('/v', callbacks)
    await w.timers.until(observation.ready)
    w.network.filter = () => false
    await w.timers.advance(600_000)
    expect(interrupted.length).toBeGreaterThan(2)
    expect(interrupted[0]).toMatchObject({ code: 'coap/timeout' })
    state = text('back', { maxAge: 20 })
    w.network.filter = undefined
    await w.timers.advance(160_000)
    expect(heard.at(-1)).toBe('back')
    expect(ended).toEqual([])
    observation.close()
    expect(ended).toEqual([undefined])
  })

  test('ends when the server refuses, or nobody answers at first', async () => {
    const refused = collect()
    const observation = w.client().observe('/nowhere', refused.callbacks)
    await expect(w.timers.until(observation.ready)).rejects.toMatchObject({ code: 'coap/observe-refused' })
    expect(refused.ended[0]).toMatchObject({ message: expect.stringContaining('4.04 Not Found') })
    w.network.filter = () => false
    const silent = collect()
    const other = w.client().observe('/v', silent.callbacks)
    await expect(w.timers.until(other.ready)).rejects.toMatchObject({ code: 'coap/timeout' })
    const persistent = collect()
    const third = w.client().observe('/v', persistent.callbacks, { persistent: true })
    await w.timers.advance(300_000)
    w.network.filter = undefined
    await w.timers.until(third.ready)
    expect(persistent.heard).toEqual(['0'])
    third.close()
  })

  test('a refusal that passes by itself interrupts it, another one ends it and is handed on', async () => {
    const { heard, ended, interrupted } = collect()
    const refusals: (CoapResponse | undefined)[] = []
    const observation = w.client().observe(
      '/v',
      {
        onNotification: (response) => heard.push(response.text),
        onInterrupted: (error, refusal) => {
          interrupted.push(error)
          refusals.push(refusal)
        },
        onEnd: (error, refusal) => {
          ended.push(error)
          refusals.push(refusal)
        },
      },
      { passing: [Code.notFound] },
    )
    await w.timers.until(observation.ready)
    set({ code: Code.notFound })
    await w.timers.advance(600_000)
    // after 2, 4, 8 … 60 s
    expect(interrupted.length).toBeGreaterThan(8)
    expect(interrupted.length).toBeLessThan(25)
    expect(ended).toEqual([])
    set(text('back'))
    await w.timers.advance(60_000)
    expect(heard.at(-1)).toBe('back')
    set({ code: Code.forbidden })
    await w.timers.advance(10_000)
    expect(ended).toMatchObject([{ code: 'coap/observe-refused' }])
    expect([refusals[0]?.code, refusals.at(-1)?.code]).toEqual([Code.notFound, Code.forbidden])
  })

  test('polls what cannot be observed', async () => {
    router.add({ pattern: '/plain', get: () => text(String(w.timers.monotonicMs()), { maxAge: 60 }) })
    const { heard, callbacks } = collect()
    const observation = w.client().observe('/plain', callbacks)
    await w.timers.until(observation.ready)
    await w.timers.advance(200_000)
    expect(heard.length).toBeGreaterThanOrEqual(4)
    expect(heard.length).toBeLessThanOrEqual(6)
    observation.close()
  })

  test('gets whole notifications of 10 kB, and the newest of many', async () => {
    const big = (c: string) => text(c.repeat(10_000), { maxAge: 600 })
    state = big('a')
    const { heard, callbacks } = collect()
    const observation = w.client().observe('/v', callbacks)
    await w.timers.until(observation.ready)
    for (const c of 'bcdefgh') {
      set(big(c))
      await w.timers.advance(30)
    }
    await w.timers.advance(3000)
    expect(heard.every((h) => h.length === 10_000 && new Set(h).size === 1)).toBe(true)
    expect(heard.at(-1)?.[0]).toBe('h')
    observation.close()
  })

  test('drops what is older than what it has', async () => {
    const heard: string[] = []
    const observation = w.client('127.0.0.1', {}, 60_001).observe('/v', { onNotification: (n) => heard.push(n.text) })
    await w.timers.until(observation.ready)
    const held: Uint8Array[] = []
    w.network.filter = (datagram, from) => {
      if (from.port !== 5683 || (datagram[0] as number) >> 4 !== 5) return true
      held.push(Buffer.from(datagram))
      return false
    }
    for (const value of ['1', '2', '3']) {
      set(text(value))
      await w.timers.advance(100)
    }
    w.network.filter = undefined
    for (const datagram of held.reverse()) w.network.carry(datagram, w.serverPeer, w.raw('127.0.0.1', 60_002).self)
    const self = { key: '127.0.0.1|60001', address: '127.0.0.1', port: 60_001 }
    for (const datagram of held) w.network.carry(datagram, w.serverPeer, self)
    await w.timers.advance(100)
    // '1' came confirmably; of the two NON the newer arrived first
    expect(heard).toEqual(['0', '1', '3'])
    observation.close()
  })

  test('an observer that is gone is told by RST', async () => {
    const client = w.client()
    const observation = client.observe('/v', { onNotification: () => {} })
    await w.timers.until(observation.ready)
    w.network.filter = (datagram) => (datagram[1] as number) !== Code.get
    observation.close()
    await w.timers.advance(100_000)
    expect(w.server.stats.observers).toBe(1)
    set(text('1'))
    await w.timers.advance(100)
    expect(w.server.stats.observers).toBe(0)
  })
})
