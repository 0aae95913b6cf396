/** Seeded chaos: well-formed nonsense in any order. Nothing throws, nothing hangs, nothing stays behind. */
import { describe, expect, test } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { isIotchainError } from '../../../protocol/errors.ts'
import { Code, isRequest } from '../../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../../transport/coap/endpoint.ts'
import { decodeMessage, encodeMessage, isMalformed, type MessageType } from '../../../transport/coap/message.ts'
import type { CoapOption } from '../../../transport/coap/option-set.ts'
import { PipeNetwork, seededRandom } from '../../../transport/coap/pipe.ts'
import { ready } from '../../../transport/coap/reply.ts'
import { Router } from '../../../transport/coap/server.ts'
import { VirtualTimers } from '../../../transport/coap/virtual-timers.ts'
import { seededBytes, world } from './fixtures.ts'

const OPTIONS = [1, 3, 4, 5, 6, 7, 11, 11, 12, 14, 15, 17, 23, 23, 27, 27, 28, 35, 39, 60, 252, 258, 292, 9, 2052]
const PATHS = ['now', 'later', 'big', 'store', 'fail', 'nowhere']

class Dice {
  readonly #random: () => number
  readonly #bytes: (length: number) => Uint8Array

  constructor(seed: number) {
    this.#random = seededRandom(seed)
    this.#bytes = seededBytes(seed + 1)
  }

  below(n: number): number {
    return Math.floor(this.#random() * n)
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }

  octets(max: number): Uint8Array {
    return this.#bytes(this.below(max + 1))
  }

  options(): CoapOption[] {
    const path = { number: 11, value: utf8(this.of(PATHS)) }
    const more = Array.from({ length: this.below(4) }, () => ({
      number: this.of(OPTIONS),
      value: this.octets(this.of([0, 1, 1, 2, 3, 9])),
    }))
    return this.below(10) === 0 ? more : [path, ...more]
  }
}

describe.each([1, 2, 3, 4])('seed %i', (seed) => {
  test('a server goes through 4 000 messages of any kind', async () => {
    const dice = new Dice(seed)
    const small = ready({ code: Code.content, payload: utf8('now'), etag: Uint8Array.of(1), contentFormat: 0 })
    const router = new Router()
      .add({ pattern: '/now', observable: true, get: () => small, fetch: () => small })
      .add({
        pattern: '/later',
        observable: true,
        get: () => new Promise((resolve) => w.timers.after(dice.below(5000), () => resolve({ code: Code.content }))),
        post: ({ payload }) =>
          new Promise((resolve) =>
            w.timers.after(dice.below(900), () => resolve({ code: Code.changed, payload, onAcknowledged: () => {} })),
          ),
      })
      .add({
        pattern: '/big',
        observable: true,
        get: () => ({ code: Code.content, payload: new Uint8Array(3000).fill(dice.below(9)) }),
        put: ({ payload }) => ({ code: Code.changed, payload }),
      })
      .add({
        pattern: '/store',
        put: () => ({ code: Code.created }),
        delete: () => ({ code: Code.deleted }),
        multicast: true,
        freshSeconds: 60,
      })
      .add({
        pattern: '/fail',
        observable: true,
        get: () => {
          if (dice.below(2) === 0) throw new Error('now and then')
          return { code: Code.content }
        },
        post: () => Promise.reject(new Error('always')),
      })
    const w = world(router, { pipe: { loss: 0.05, duplicate: 0.05, reorder: 0.1, seed, latencyMs: 20 } })
    const peers = ['127.0.0.1', '198.51.100.1', '198.51.100.2', '2001:db8::1'].flatMap((address) => [
      w.raw(address),
      w.raw(address),
    ])
    const seenIds: number[] = [1]
    for (let i = 0; i < 4000; i++) {
      const peer = dice.of(peers)
      const type = dice.of([0, 0, 0, 1, 1, 2, 3] as MessageType[])
      const code =
        type > 1 ? dice.of([0, 0, 0, Code.content]) : dice.of([1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 9, Code.content])
      const messageId = type > 1 ? dice.of(seenIds) : dice.below(400)
      const body =
        code === 0
          ? {}
          : {
              token: dice.octets(2),
              options: dice.options(),
              payload: dice.of([utf8(''), dice.octets(40), new Uint8Array(1024)]),
            }
      peer.send({ type, code, messageId, ...body })
      if (dice.below(8) === 0) router.notify(`/${dice.of(PATHS)}`)
      if (dice.below(4) === 0) await w.timers.advance(dice.of([1, 30, 500]))
      if (dice.below(2000) === 0) w.dropPeer(peer.self)
      for (const each of peers) {
        for (const octets of each.received.splice(0)) {
          const message = decodeMessage(octets)
          if (isMalformed(message)) throw new Error(`the server sent a malformed message: ${message.malformed}`)
          seenIds[dice.below(20)] = message.messageId
        }
      }
    }
    expect(w.server.stats.faults).toBe(0)
    // separate responses that nobody acknowledges go out one after the other (NSTART), 93 s each
    await w.timers.advance(4 * 3600_000)
    expect([w.server.stats.uploads, w.server.stats.snapshots, w.server.stats.outstanding]).toEqual([0, 0, 0])
    const client = w.client()
    expect((await w.timers.until(client.get('/now').catch(() => client.get('/now')))).text).toBe('now')
    await w.close()
    expect(w.timers.pending).toBe(0)
    expect([w.server.stats.observers, w.server.stats.deduplicationOctets]).toEqual([0, 0])
  })

  test('a client ends every request, whatever the server says', async () => {
    const dice = new Dice(seed + 100)
    const timers = new VirtualTimers()
    const network = new PipeNetwork({ timers, latencyMs: 10 })
    const server = network.attach('192.0.2.1', 5683)
    server.onmessage = (datagram, peer) => {
      const message = decodeMessage(datagram)
      if (isMalformed(message)) throw new Error(`the client sent a malformed message: ${message.malformed}`)
      for (let n = dice.below(3); n > 0; n--) {
        const type = dice.of([0, 1, 2, 2, 2, 3] as MessageType[])
        const code =
          type === 3
            ? 0
            : dice.of([0, Code.content, Code.content, Code.continue, Code.changed, Code.unauthorized, 0x88, 0x8d, 0xa3])
        const messageId = type > 1 ? message.messageId : dice.below(50)
        const size = dice.of([0, 10, 16, 1024])
        const body = code === 0 ? {} : { token: message.token, options: dice.options(), payload: new Uint8Array(size) }
        if (isRequest(message.code)) server.send(encodeMessage({ type, code, messageId, ...body }), peer)
      }
    }
    const endpoint = new CoapEndpoint(network.attach('192.0.2.2', 40_000), {
      timers,
      random: seededRandom(seed),
      randomBytes: seededBytes(seed),
      limits: { responseOctets: 20_000 },
    })
    const observed: string[] = []
    const observations = Array.from({ length: 5 }, (_, i) =>
      endpoint.observe(
        server.self,
        { path: `/o${i}`, persistent: i % 2 === 0 },
        { onNotification: () => observed.push('n'), onEnd: () => observed.push('e') },
      ),
    )
    const results = Array.from({ length: 60 }, (_, i) =>
      endpoint
        .request(server.self, {
          method: dice.of(['GET', 'PUT', 'POST', 'FETCH'] as const),
          path: '/x',
          payload: i % 3 === 0 ? undefined : new Uint8Array(i % 2 === 0 ? 10 : 3000),
          confirmable: dice.below(4) > 0,
        })
        .then(
          () => 'response',
          (error: unknown) => {
            if (!isIotchainError(error)) throw error
            return error.code
          },
        ),
    )
    const codes = await timers.until(Promise.all(results), 24 * 3600_000)
    expect(new Set(codes).size).toBeGreaterThan(2)
    expect(endpoint.stats.faults).toBe(0)
    for (const observation of observations) observation.close()
    await timers.advance(200_000)
    await endpoint.close()
    await timers.advance(1000)
    expect(timers.pending).toBe(0)
    expect(endpoint.stats.outstanding).toBe(0)
  })
})
