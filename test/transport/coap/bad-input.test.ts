/** Each rule about input that is wrong, from a peer that sends octet by octet. */
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { fromHex, toHex, utf8 } from '../../../protocol/bytes.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { MessageType, type OutgoingMessage } from '../../../transport/coap/message.ts'
import { type CoapOption, textOption, uintOption } from '../../../transport/coap/option-set.ts'
import { OptionNumber } from '../../../transport/coap/options.ts'
import { decodeProblem } from '../../../transport/coap/problem-details.ts'
import { ready } from '../../../transport/coap/reply.ts'
import { Router } from '../../../transport/coap/server.ts'
import { type RawPeer, type World, world } from './fixtures.ts'

let w: World
let raw: RawPeer
let executed: number

beforeEach(() => {
  executed = 0
  const reading = ready({ code: Code.content, payload: utf8('21.5'), etag: Uint8Array.of(1), contentFormat: 0 })
  w = world(
    new Router()
      .add({ pattern: '/s', get: () => reading, observable: true })
      .add({ pattern: '/count', post: () => ({ code: Code.changed, payload: Uint8Array.of(++executed) }) })
      .add({
        pattern: '/thing',
        get: () => ({ code: Code.content, payload: utf8('v1'), etag: Uint8Array.of(7) }),
        put: () => ({ code: Code.changed }),
      })
      .add({ pattern: '/void', get: () => undefined as never, post: () => ({ code: 7 }) }),
  )
  raw = w.raw()
})

afterEach(async () => {
  await w.close()
  expect(w.timers.pending).toBe(0)
})

const path = (text: string): CoapOption => textOption(OptionNumber.uriPath, text)
let messageId = 100

async function ask(message: Partial<OutgoingMessage>) {
  messageId++
  raw.send({ type: MessageType.con, code: Code.get, messageId, token: Uint8Array.of(1, 2), ...message })
  await w.timers.advance(50)
  return raw.take()
}

async function send(hex: string): Promise<string[]> {
  raw.sendOctets(fromHex(hex))
  await w.timers.advance(50)
  return raw.received.splice(0).map((octets) => toHex(octets))
}

async function stillServes(): Promise<void> {
  const [reply] = await ask({ options: [path('s')] })
  expect(reply?.code).toBe(Code.content)
}

describe('messages that are wrong', () => {
  test.each([
    ['nothing at all', '', []],
    ['too short', '4001', []],
    ['version 2', '80011234', []],
    ['a token of 9 octets in a CON', '49011234010203040506070809', ['70001234']],
    ['a token of 15 octets in a NON', '5f011234', []],
    ['a truncated token', '4401123401', ['70001234']],
    ['a reserved code class in a CON', '40611234', ['70001234']],
    ['a reserved code class in a NON', '50611234', []],
    ['an empty CON with a payload', '40001234ff01', ['70001234']],
    ['a marker without payload', '40011234b173ff', ['70001234']],
    ['a truncated option', '40011234b5', ['70001234']],
    ['an option with delta 15', '40011234f1', ['70001234']],
    ['a malformed ACK', '6f451234', []],
    ['a malformed RST', '7f001234', []],
    ['a ping', '40001234', ['70001234']],
    ['an empty NON', '50001234', []],
    ['a stray ACK', '60001234', []],
    ['a stray RST', '70001234', []],
    ['an ACK that carries a request', '60011234b173', []],
    ['an RST that carries a code', '70451234', []],
    ['a stray response in an ACK', '6145123401', []],
    ['a stray confirmable response', '4145123401', ['70001234']],
    ['a stray NON response', '5145123401', ['70001234']],
  ])('%s', async (_name, hex, answers) => {
    expect(await send(hex)).toEqual(answers)
    await stillServes()
  })

  test('source port 0 and octets of chance kill nothing', async () => {
    const zero = w.raw('127.0.0.1', 0)
    zero.sendOctets(fromHex('40011234b173'))
    await w.timers.advance(50)
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(3), (octets, type) => {
        if (octets.length > 0) octets[0] = 0x40 | (type << 4) | ((octets[0] as number) & 15)
        raw.sendOctets(octets)
      }),
      { numRuns: 1500 },
    )
    await w.timers.advance(1000)
    raw.received.length = 0
    await stillServes()
  })
})

describe('requests that are wrong', () => {
  test('an unknown critical option draws 4.02 in a CON and RST in a NON', async () => {
    const options = [{ number: 9, value: new Uint8Array(0) }, path('s')]
    const refused = (await ask({ options }))[0]
    expect(refused?.code).toBe(Code.badOption)
    expect(decodeProblem(refused?.payload as Uint8Array)?.detail).toBe('option 9 is not understood')
    const [rejected] = await ask({ options, type: MessageType.non })
    expect([rejected?.type, rejected?.code, rejected?.messageId]).toEqual([MessageType.reset, 0, messageId])
    expect((await ask({ options: [path('s'), { number: 2052, value: utf8('x') }] }))[0]?.code).toBe(Code.content)
  })

  test.each([
    ['an unknown path', { options: [path('nowhere')] }, Code.notFound],
    ['an unknown method', { code: 8, options: [path('s')] }, Code.methodNotAllowed],
    ['a method that the resource lacks', { code: Code.delete, options: [path('s')] }, Code.methodNotAllowed],
    ['a proxy request', { options: [textOption(OptionNumber.proxyUri, 'coap://x/')] }, Code.proxyingNotSupported],
    [
      'a proxy scheme',
      { options: [path('s'), textOption(OptionNumber.proxyScheme, 'http')] },
      Code.proxyingNotSupported,
    ],
    ['a path that is no UTF-8', { options: [{ number: 11, value: Uint8Array.of(0xc0) }] }, Code.badRequest],
    ['the reserved block size', { options: [path('s'), uintOption(OptionNumber.block2, 7)] }, Code.badRequest],
    ['a block beyond the end', { options: [path('s'), uintOption(OptionNumber.block2, 0x56)] }, Code.badRequest],
    ['a format that is not there', { options: [path('s'), uintOption(OptionNumber.accept, 60)] }, Code.notAcceptable],
    ['the format that is there', { options: [path('s'), uintOption(OptionNumber.accept, 0)] }, Code.content],
    ['an ETag that is current', { options: [path('s'), { number: 4, value: Uint8Array.of(1) }] }, Code.valid],
    ['an ETag that is not', { options: [path('s'), { number: 4, value: Uint8Array.of(2) }] }, Code.content],
    ['a handler without reply', { options: [path('void')] }, Code.internalServerError],
    ['a handler with a nonsensical code', { code: Code.post, options: [path('void')] }, Code.internalServerError],
    [
      'If-Match that holds',
      { code: Code.put, options: [path('thing'), { number: 1, value: Uint8Array.of(7) }] },
      Code.changed,
    ],
    [
      'If-Match of anything',
      { code: Code.put, options: [path('thing'), { number: 1, value: new Uint8Array(0) }] },
      Code.changed,
    ],
    [
      'If-Match that fails',
      { code: Code.put, options: [path('thing'), { number: 1, value: Uint8Array.of(8) }] },
      Code.preconditionFailed,
    ],
    [
      'If-None-Match that fails',
      { code: Code.put, options: [path('thing'), { number: 5, value: new Uint8Array(0) }] },
      Code.preconditionFailed,
    ],
    [
      'a condition on what cannot be read',
      { code: Code.post, options: [path('count'), { number: 5, value: new Uint8Array(0) }] },
      Code.preconditionFailed,
    ],
  ] as [string, Partial<OutgoingMessage>, number][])('%s', async (_name, message, code) => {
    const [reply, more] = await ask(message)
    expect(more).toBeUndefined()
    expect([reply?.type, reply?.messageId, reply?.code]).toEqual([MessageType.ack, messageId, code])
    expect([...(reply?.token ?? [])]).toEqual([1, 2])
  })

  test('2.03 has the ETag and no payload', async () => {
    const [reply] = await ask({ options: [path('s'), { number: 4, value: Uint8Array.of(1) }] })
    expect(reply?.payload.length).toBe(0)
    expect([...(reply?.options().get(OptionNumber.etag) ?? [])]).toEqual([1])
  })
})

describe('repetitions', () => {
  test('a POST runs once however often its datagram comes', async () => {
    const post = { code: Code.post, messageId: 77, options: [path('count')] }
    for (let i = 0; i < 3; i++) {
      const [reply] = await ask(post)
      expect([reply?.messageId, reply?.payload[0]]).toEqual([77, 1])
    }
    expect(executed).toBe(1)
    // the same ID for another message: the peer has come round
    expect((await ask({ ...post, token: Uint8Array.of(9) }))[0]?.payload[0]).toBe(2)
    // after EXCHANGE_LIFETIME the ID is free
    await w.timers.advance(248_000)
    expect((await ask({ ...post, token: Uint8Array.of(9) }))[0]?.payload[0]).toBe(3)
  })

  test('a NON POST runs once and is answered once', async () => {
    const post = { type: MessageType.non, code: Code.post, messageId: 78, options: [path('count')] }
    expect((await ask(post)).length).toBe(1)
    expect((await ask(post)).length).toBe(0)
    expect(executed).toBe(1)
  })

  test('a GET leaves nothing behind', async () => {
    for (let i = 0; i < 100; i++) await ask({ options: [path('thing')] })
    expect(w.server.stats.deduplicationOctets).toBe(0)
  })
})

describe('No-Response (RFC 7967)', () => {
  test.each([
    [2, Code.get, 's', undefined],
    [2, Code.get, 'nowhere', Code.notFound],
    [8, Code.get, 'nowhere', undefined],
    [8, Code.get, 's', Code.content],
    [16, Code.get, 'void', undefined],
    [26, Code.post, 'count', undefined],
  ])('interest %i in /%s %s', async (value, code, segment, expected) => {
    const options = [path(segment), uintOption(OptionNumber.noResponse, value)]
    const [con] = await ask({ code, options })
    expect(con?.code).toBe(expected ?? Code.empty)
    expect(con?.type).toBe(MessageType.ack)
    expect((await ask({ type: MessageType.non, code, options }))[0]?.code).toBe(expected)
  })
})

describe('the fast path', () => {
  test('answers the same octets as the long way, CON and NON', async () => {
    const [slow] = await ask({ options: [path('s')] })
    const before = w.server.stats.requestsReady
    const [fast] = await ask({ options: [path('s')] })
    expect(w.server.stats.requestsReady).toBe(before + 1)
    expect(toHex(fast?.octets.subarray(4) ?? new Uint8Array(0))).toBe(
      toHex(slow?.octets.subarray(4) ?? Uint8Array.of(1)),
    )
    const [non] = await ask({ type: MessageType.non, options: [path('s')], token: new Uint8Array(8) })
    expect([non?.type, non?.code, non?.payload.toString(), non?.tokenLength]).toEqual([1, Code.content, '21.5', 8])
    expect((await ask({ options: [path('s')], token: new Uint8Array(0) }))[0]?.payload.toString()).toBe('21.5')
  })

  test('is left when the state changes or Max-Age is over', async () => {
    await ask({ options: [path('s')] })
    const { stats } = w.server
    w.server.notify('/s')
    const before = stats.requestsReady
    await ask({ options: [path('s')] })
    expect(stats.requestsReady).toBe(before)
    await ask({ options: [path('s')] })
    expect(stats.requestsReady).toBe(before + 1)
    await w.timers.advance(61_000)
    await ask({ options: [path('s')] })
    expect(stats.requestsReady).toBe(before + 1)
  })

  test('is not taken where more than the octets matters', async () => {
    for (const extra of [
      uintOption(OptionNumber.observe, 1),
      uintOption(OptionNumber.noResponse, 0),
      uintOption(OptionNumber.block2, 6),
    ]) {
      const before = w.server.stats.requestsReady
      const options = [path('s'), extra].sort((a, b) => a.number - b.number)
      await ask({ options })
      expect((await ask({ options }))[0]?.code).toBe(Code.content)
      expect(w.server.stats.requestsReady - before).toBe(extra.number === OptionNumber.noResponse ? 1 : 0)
    }
  })
})
