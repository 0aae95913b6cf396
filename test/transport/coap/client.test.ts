/** The client against servers that are slow, wrong or hostile. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { encodeBlock } from '../../../transport/coap/block.ts'
import { CoapClient } from '../../../transport/coap/client.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../../transport/coap/endpoint.ts'
import {
  decodeMessage,
  encodeMessage,
  isMalformed,
  type Message,
  MessageType,
  type OutgoingMessage,
} from '../../../transport/coap/message.ts'
import { type CoapOption, uintOption } from '../../../transport/coap/option-set.ts'
import { OptionNumber } from '../../../transport/coap/options.ts'
import { PipeNetwork, type PipeTransport, seededRandom } from '../../../transport/coap/pipe.ts'
import type { Peer } from '../../../transport/coap/transport.ts'
import { VirtualTimers } from '../../../transport/coap/virtual-timers.ts'
import { seededBytes } from './fixtures.ts'

let timers: VirtualTimers
let network: PipeNetwork
let transport: PipeTransport
let client: CoapClient
let seen: Message[]
let answer: (message: Message) => (OutgoingMessage | undefined)[]
let from: Peer

beforeEach(() => {
  timers = new VirtualTimers()
  network = new PipeNetwork({ latencyMs: 5, timers })
  transport = network.attach('192.0.2.1', 5683)
  seen = []
  answer = () => []
  transport.onmessage = (datagram, peer) => {
    const message = decodeMessage(Buffer.from(datagram))
    if (isMalformed(message)) throw new Error(message.malformed)
    seen.push(message)
    from = peer
    for (const reply of answer(message)) if (reply !== undefined) tell(reply)
  }
  const options = { timers, random: seededRandom(3), randomBytes: seededBytes(4) }
  client = new CoapClient(new CoapEndpoint(network.attach('192.0.2.2', 40_000), options), transport.self)
})

afterEach(async () => {
  await client.close()
  await timers.advance(1000)
  expect(timers.pending).toBe(0)
  expect(client.endpoint.stats.outstanding).toBe(0)
})

const tell = (message: OutgoingMessage) => transport.send(encodeMessage(message), from)
const until = <T>(promise: Promise<T>) => timers.until(promise)
const ack = (to: Message, code = 0, options: CoapOption[] = [], payload?: Uint8Array): OutgoingMessage => ({
  type: MessageType.ack,
  code,
  messageId: to.messageId,
  token: code === 0 ? undefined : to.token,
  options,
  payload,
})
const isRequest = (message: Message) => message.code > 0 && message.code < 32
const requests = () => seen.filter(isRequest)
const block = (option: number, number: number, more: boolean, szx = 6): CoapOption => ({
  number: option,
  value: encodeBlock({ number, more, szx }),
})
const blockNumber = (message: Message, option: number) => (message.options().getUint(option) ?? 0) >>> 4

describe('messages', () => {
  test('an unanswered request is sent five times, further and further apart, then given up', async () => {
    const times: number[] = []
    answer = () => {
      times.push(timers.monotonicMs())
      return []
    }
    await expect(until(client.get('/x'))).rejects.toMatchObject({ code: 'coap/timeout', hint: expect.any(String) })
    expect(times.length).toBe(5)
    const gaps = times.slice(1).map((t, i) => t - (times[i] as number))
    expect(gaps[0]).toBeGreaterThanOrEqual(2000)
    expect(gaps[0]).toBeLessThanOrEqual(3000)
    for (const [i, gap] of gaps.slice(1).entries()) expect(gap / (gaps[i] as number)).toBeCloseTo(2, 3)
    expect(new Set(seen.map((m) => m.messageId)).size).toBe(1)
  })

  test('RST fails the request', async () => {
    answer = (m) => [{ type: MessageType.reset, code: 0, messageId: m.messageId }]
    await expect(until(client.get('/x'))).rejects.toMatchObject({ code: 'coap/reset' })
  })

  test('a separate response is acknowledged, however often it comes', async () => {
    answer = (m) => (isRequest(m) ? [ack(m)] : [])
    const reply = client.get('/x')
    await timers.advance(30_000)
    const [request] = requests()
    const response = {
      type: MessageType.con,
      code: Code.content,
      messageId: 9,
      token: request?.token,
      payload: utf8('x'),
    }
    tell(response)
    expect((await until(reply)).text).toBe('x')
    tell(response)
    tell(response)
    await timers.advance(100)
    expect(requests().length).toBe(1)
    const acks = seen.filter((m) => m.type === MessageType.ack)
    expect(acks.map((m) => [m.code, m.messageId])).toEqual([
      [0, 9],
      [0, 9],
      [0, 9],
    ])
  })

  test('a separate response that never comes is given up', async () => {
    answer = (m) => (isRequest(m) ? [ack(m)] : [])
    await expect(until(client.get('/x'))).rejects.toMatchObject({ code: 'coap/timeout' })
    expect(timers.monotonicMs()).toBeGreaterThan(59_000)
    expect(timers.monotonicMs()).toBeLessThan(61_000)
    expect(requests().length).toBe(1)
  })

  test('a response that overtakes the acknowledgement ends the retransmissions', async () => {
    answer = (m) => (isRequest(m) ? [{ type: MessageType.non, code: Code.content, messageId: 5, token: m.token }] : [])
    expect((await until(client.get('/x'))).codeText).toBe('2.05')
    await timers.advance(100_000)
    expect(requests().length).toBe(1)
  })

  test('an acknowledgement with another token is none', async () => {
    answer = (m) =>
      requests().length < 3 ? [{ ...ack(m, Code.content), token: Uint8Array.of(1) }] : [ack(m, Code.valid)]
    expect((await until(client.get('/x'))).codeText).toBe('2.03')
    expect(requests().length).toBe(3)
  })

  test('responses that nobody asked for draw RST', async () => {
    answer = (m) => [ack(m, Code.content)]
    await until(client.get('/x'))
    seen.length = 0
    tell({ type: MessageType.con, code: Code.content, messageId: 1, token: Uint8Array.of(1) })
    tell({ type: MessageType.non, code: Code.content, messageId: 2, token: Uint8Array.of(2) })
    tell({ type: MessageType.con, code: 0, messageId: 3 })
    tell({ type: MessageType.con, code: Code.get, messageId: 4 })
    tell({ type: MessageType.non, code: Code.get, messageId: 5 })
    await timers.advance(100)
    expect(seen.map((m) => [m.type, m.messageId])).toEqual([1, 2, 3, 4].map((id) => [MessageType.reset, id]))
  })

  test('a critical option that nobody knows spoils a response', async () => {
    const bad = [{ number: 9, value: new Uint8Array(0) }]
    answer = (m) => [ack(m, Code.content, bad)]
    await expect(until(client.get('/x'))).rejects.toMatchObject({ code: 'coap/bad-response' })
    answer = (m) =>
      isRequest(m)
        ? [ack(m), { type: MessageType.con, code: Code.content, messageId: 7, token: m.token, options: bad }]
        : []
    await expect(until(client.get('/x', { timeoutMs: 5000 }))).rejects.toMatchObject({ code: 'coap/timeout' })
    expect(seen.at(-1)?.type).toBe(MessageType.reset)
  })

  test('NSTART: one request is outstanding at a time, the others wait in order', async () => {
    const paths: (string | undefined)[] = []
    answer = (m) => {
      paths.push(m.options().getText(OptionNumber.uriPath))
      expect(client.endpoint.stats.outstanding).toBe(1)
      return [ack(m, Code.content)]
    }
    await until(Promise.all(['a', 'b', 'c', 'd'].map((p) => client.get(p))))
    expect(paths).toEqual(['a', 'b', 'c', 'd'])
  })

  test('an empty acknowledgement lets the next request out', async () => {
    answer = (m) => [ack(m, m.options().getText(11) === 'slow' ? 0 : Code.content)]
    const slow = client.get('/slow', { timeoutMs: 50_000 }).catch((error: unknown) => error)
    expect((await until(client.get('/fast'))).codeText).toBe('2.05')
    expect(await until(slow)).toMatchObject({ code: 'coap/timeout' })
    expect(timers.monotonicMs()).toBeLessThan(50_001)
  })

  test('a NON request waits for its response, and not for ever', async () => {
    answer = (m) => [{ type: MessageType.non, code: Code.content, messageId: 1, token: m.token }]
    expect((await until(client.get('/x', { confirmable: false }))).codeText).toBe('2.05')
    answer = () => []
    await expect(until(client.get('/x', { confirmable: false }))).rejects.toMatchObject({ code: 'coap/timeout' })
    expect(requests().length).toBe(2)
  })

  test('a time limit, a signal and close() end requests at once', async () => {
    await expect(until(client.get('/x', { timeoutMs: 700 }))).rejects.toMatchObject({ code: 'coap/timeout' })
    expect(timers.monotonicMs()).toBeLessThan(710)
    const controller = new AbortController()
    const cancelled = client.get('/x', { signal: controller.signal })
    cancelled.catch(() => {})
    await timers.advance(10)
    controller.abort()
    await expect(until(cancelled)).rejects.toMatchObject({ code: 'coap/aborted' })
    await expect(client.get('/x', { signal: controller.signal })).rejects.toMatchObject({ code: 'coap/aborted' })
    const open = client.get('/x')
    const queued = client.get('/y')
    for (const promise of [open, queued]) promise.catch(() => {})
    await client.close()
    await expect(open).rejects.toMatchObject({ code: 'coap/closed' })
    await expect(queued).rejects.toMatchObject({ code: 'coap/closed' })
    await expect(client.get('/x')).rejects.toMatchObject({ code: 'coap/closed' })
  })

  test('an association that ends fails what waits for it', async () => {
    const open = client.get('/x')
    open.catch(() => {})
    await timers.advance(10)
    const own = network.attach('192.0.2.2', 40_001)
    const endpoint = new CoapEndpoint(own, { timers })
    const waiting = endpoint.request(transport.self, { path: '/x' })
    waiting.catch(() => {})
    const ends: unknown[] = []
    endpoint.observe(transport.self, { path: '/o' }, { onNotification: () => {}, onEnd: (error) => ends.push(error) })
    own.onpeergone?.(transport.self)
    await expect(waiting).rejects.toMatchObject({ code: 'coap/peer-gone' })
    await timers.advance(1)
    expect(ends[0]).toMatchObject({ code: 'coap/peer-gone' })
    await endpoint.close()
  })

  test('the network that refuses twice is believed', async () => {
    const own = network.attach('192.0.2.2', 40_002)
    const endpoint = new CoapEndpoint(own, { timers })
    const send = own.send.bind(own)
    own.send = (datagram, peer) => {
      send(datagram, peer)
      own.onunreachable?.(peer, new Error('ECONNREFUSED'))
    }
    await expect(until(endpoint.request(transport.self, { path: '/x' }))).rejects.toMatchObject({
      code: 'coap/unreachable',
    })
    await timers.advance(10)
    expect(requests().length).toBe(2)
    await endpoint.close()
  })

  test('requests over the limits are refused, not queued for ever', async () => {
    const endpoint = new CoapEndpoint(network.attach('192.0.2.2', 40_003), {
      timers,
      limits: { outstandingRequests: 20, queuedPerPeer: 5 },
    })
    const results = Array.from({ length: 30 }, () =>
      endpoint.request(transport.self, { path: '/x' }).catch((e: unknown) => e),
    )
    const busy = (await until(Promise.all(results))).filter((e) => (e as { code?: string }).code === 'coap/busy')
    expect(busy.length).toBe(24)
    await endpoint.close()
  })

  test('a ping is answered by RST', async () => {
    answer = (m) => [{ type: MessageType.reset, code: 0, messageId: m.messageId }]
    expect(await until(client.endpoint.ping(client.peer))).toBe(10)
    answer = () => []
    await expect(until(client.endpoint.ping(client.peer))).rejects.toMatchObject({ code: 'coap/timeout' })
  })
})

describe('Block1', () => {
  const body = Uint8Array.from({ length: 2500 }, (_, i) => i)

  test('one token and one Request-Tag serve the whole transfer', async () => {
    answer = (m) => {
      const number = blockNumber(m, OptionNumber.block1)
      return [ack(m, number < 2 ? Code.continue : Code.changed, [block(OptionNumber.block1, number, number < 2)])]
    }
    expect((await until(client.put('/x', body))).codeText).toBe('2.04')
    expect(new Set(seen.map((m) => m.tokenKey)).size).toBe(1)
    const tags = seen.map((m) => m.options().get(OptionNumber.requestTag)?.toString())
    expect([tags.length, new Set(tags).size, tags[0]]).toEqual([3, 1, expect.any(String)])
    expect(seen[0]?.options().getUint(OptionNumber.size1)).toBe(2500)
    expect(Buffer.concat(seen.map((m) => m.payload))).toEqual(Buffer.from(body))
  })

  test('the server may want smaller blocks, by 2.31 or by 4.13', async () => {
    for (const first of [Code.continue, Code.requestEntityTooLarge]) {
      seen.length = 0
      const got: Uint8Array[] = []
      answer = (m) => {
        const value = m.options().getUint(OptionNumber.block1) ?? 0
        const [number, more, szx] = [value >>> 4, (value & 8) !== 0, value & 7]
        if (szx === 6 && first === Code.requestEntityTooLarge)
          return [ack(m, first, [block(OptionNumber.block1, 0, false, 4)])]
        got.push(m.payload)
        return [ack(m, more ? Code.continue : Code.changed, [block(OptionNumber.block1, number, more, 4)])]
      }
      expect((await until(client.put('/x', body))).codeText).toBe('2.04')
      expect(Buffer.concat(got)).toEqual(Buffer.from(body))
    }
  })

  test('a server that lost the upload gets it once more from the beginning', async () => {
    let lost = false
    answer = (m) => {
      const number = blockNumber(m, OptionNumber.block1)
      if (number === 1 && !lost) {
        lost = true
        return [ack(m, Code.requestEntityIncomplete)]
      }
      return [ack(m, number < 2 ? Code.continue : Code.changed, [block(OptionNumber.block1, number, number < 2)])]
    }
    expect((await until(client.put('/x', body))).codeText).toBe('2.04')
    expect(requests().length).toBe(5)
    answer = (m) => [ack(m, Code.requestEntityIncomplete)]
    expect((await until(client.put('/x', body))).codeText).toBe('4.08')
  })

  test('a server that takes the first block for the whole body is not believed', async () => {
    answer = (m) => [ack(m, Code.changed)]
    await expect(until(client.put('/x', body))).rejects.toMatchObject({ code: 'coap/bad-response' })
  })

  test('an error in the middle is the response', async () => {
    answer = (m) => [ack(m, Code.forbidden)]
    expect((await until(client.put('/x', body))).codeText).toBe('4.03')
    expect(requests().length).toBe(1)
  })

  test('a late separate response to an earlier block is passed by', async () => {
    let id = 100
    answer = (m) => {
      if (!isRequest(m)) return []
      const number = blockNumber(m, OptionNumber.block1)
      const done = number === 2
      const reply = (n: number, code: number): OutgoingMessage => ({
        type: MessageType.con,
        code,
        messageId: id++,
        token: m.token,
        options: [block(OptionNumber.block1, n, code === Code.continue)],
      })
      // the response to the block before comes again, under an ID of its own
      const late = number > 0 ? reply(number - 1, Code.continue) : undefined
      return [ack(m), late, reply(number, done ? Code.changed : Code.continue)]
    }
    expect((await until(client.put('/x', body))).codeText).toBe('2.04')
    expect(requests().length).toBe(3)
  })
})

describe('Block2', () => {
  const body = Uint8Array.from({ length: 2500 }, (_, i) => i)
  const serve = (m: Message, more: CoapOption[] = []): OutgoingMessage => {
    const number = blockNumber(m, OptionNumber.block2)
    const end = (number + 1) * 1024
    const options = [block(OptionNumber.block2, number, end < body.length), ...more]
    return ack(m, Code.content, options, body.subarray(number * 1024, end))
  }
  const etag = (n: number): CoapOption => ({ number: OptionNumber.etag, value: Uint8Array.of(n) })

  test('blocks of another ETag are not appended: the fetch begins anew', async () => {
    let n = 0
    answer = (m) => [serve(m, [etag(++n === 2 ? 1 : 2)])]
    expect(Buffer.from((await until(client.get('/x'))).payload)).toEqual(Buffer.from(body))
    expect(requests().length).toBe(5)
    n = 0
    answer = (m) => [serve(m, [etag(++n)])]
    await expect(until(client.get('/x'))).rejects.toMatchObject({ code: 'coap/changed' })
  })

  test.each([
    [
      'another number',
      (m: Message) => ack(m, Code.content, [block(OptionNumber.block2, 5, true)], body.subarray(0, 1024)),
    ],
    ['no block at all', (m: Message) => ack(m, Code.content, [], utf8('x'))],
    ['the reserved size', (m: Message) => ack(m, Code.content, [uintOption(OptionNumber.block2, 0x1f)], utf8('x'))],
  ])('%s is not believed', async (_name, second) => {
    answer = (m) => [requests().length % 2 === 1 ? serve(m) : second(m)]
    await expect(until(client.get('/x'))).rejects.toMatchObject({ code: 'coap/bad-response' })
  })

  test('a block in the middle that is not full is not believed', async () => {
    answer = (m) => [ack(m, Code.content, [block(OptionNumber.block2, 0, true)], utf8('short'))]
    await expect(until(client.get('/x'))).rejects.toMatchObject({ code: 'coap/bad-response' })
  })

  test('what never ends, or announces too much, is cut off', async () => {
    const endpoint = new CoapEndpoint(network.attach('192.0.2.2', 40_004), { timers, limits: { responseOctets: 8192 } })
    answer = (m) => [ack(m, Code.content, [block(OptionNumber.block2, blockNumber(m, 23), true)], new Uint8Array(1024))]
    await expect(until(endpoint.request(transport.self, { path: '/x' }))).rejects.toMatchObject({
      code: 'coap/too-large',
    })
    expect(requests().length).toBeLessThan(11)
    seen.length = 0
    answer = (m) => [serve(m, [uintOption(OptionNumber.size2, 9000)])]
    await expect(until(endpoint.request(transport.self, { path: '/x' }))).rejects.toMatchObject({
      code: 'coap/too-large',
    })
    expect(requests().length).toBe(1)
    await endpoint.close()
  })

  test('the server may change to smaller blocks on the way', async () => {
    answer = (m) => {
      const value = m.options().getUint(OptionNumber.block2) ?? 6
      const start = (value >>> 4) * (16 << (value & 7))
      const szx = start === 0 ? 6 : 5
      const size = 16 << szx
      return [
        ack(
          m,
          Code.content,
          [block(OptionNumber.block2, start / size, start + size < body.length, szx)],
          body.subarray(start, start + size),
        ),
      ]
    }
    expect(Buffer.from((await until(client.get('/x'))).payload)).toEqual(Buffer.from(body))
  })

  test('a POST whose response is forgotten is not sent again', async () => {
    answer = (m) => [blockNumber(m, OptionNumber.block2) === 0 ? serve(m) : ack(m, Code.requestEntityIncomplete)]
    await expect(until(client.post('/x', utf8('a')))).rejects.toMatchObject({ code: 'coap/bad-response' })
    expect(requests().filter((m) => m.payload.length > 0).length).toBe(1)
  })

  test('Uri-Host, query and Accept go with every block, If-Match and ETag options in order', async () => {
    answer = (m) => [serve(m)]
    const named = new CoapClient(client.endpoint, client.peer, 'example.org')
    await until(named.get('/a%20b/?c=d', { query: ['e'], accept: 60, etag: [Uint8Array.of(1), Uint8Array.of(2)] }))
    const list = (m: Message | undefined) => [...(m?.options() ?? [])].map((o) => `${o.number}:${Buffer.from(o.value)}`)
    const common = ['3:example.org', '11:a b', '11:', '15:c=d', '15:e', '17:<']
    expect(list(seen[0])).toEqual(['3:example.org', '4:\x01', '4:\x02', ...common.slice(1)])
    expect(list(seen[1]).slice(0, 6)).toEqual(common)
  })
})

describe('Echo (RFC 9175)', () => {
  test('is returned with the same request, and not for ever', async () => {
    const echo = { number: OptionNumber.echo, value: utf8('fresh') }
    answer = (m) => [m.options().has(OptionNumber.echo) ? ack(m, Code.changed) : ack(m, Code.unauthorized, [echo])]
    expect((await until(client.put('/x', utf8('a')))).codeText).toBe('2.04')
    expect(seen.map((m) => m.payload.toString())).toEqual(['a', 'a'])
    answer = (m) => [ack(m, Code.unauthorized, [echo])]
    seen.length = 0
    expect((await until(client.put('/x', utf8('a')))).codeText).toBe('4.01')
    expect(requests().length).toBe(3)
  })

  test('serves an observation too', async () => {
    const echo = { number: OptionNumber.echo, value: utf8('fresh') }
    answer = (m) => {
      if (!isRequest(m)) return []
      if (!m.options().has(OptionNumber.echo)) return [ack(m, Code.unauthorized, [echo])]
      return [
        ack(m, Code.content, m.options().getUint(6) === 0 ? [uintOption(OptionNumber.observe, 5)] : [], utf8('v')),
      ]
    }
    const observation = client.observe('/x', { onNotification: () => {} })
    expect((await until(observation.ready)).text).toBe('v')
    observation.close()
    await timers.advance(100)
  })
})
