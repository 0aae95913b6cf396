/** Runs over a network that loses, repeats and reorders, in virtual time: nothing is lost, nothing happens twice. */
import { afterEach, describe, expect, test } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { isIotchainError } from '../../../protocol/errors.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { ready } from '../../../transport/coap/reply.ts'
import { Router } from '../../../transport/coap/server.ts'
import { type World, world } from './fixtures.ts'

let w: World
afterEach(async () => {
  await w.close()
  expect(w.timers.pending).toBe(0)
})

const faults = [
  { loss: 0.1, duplicate: 0, reorder: 0 },
  { loss: 0.25, duplicate: 0.1, reorder: 0.1 },
  { loss: 0, duplicate: 0.5, reorder: 0.5 },
].flatMap((fault) => [1, 2, 3].map((seed) => ({ ...fault, seed, latencyMs: 40 })))

/** One exchange in 60 fails at 25 % loss, whatever one does: five times lost there or back. */
function onlyTimeout(error: unknown): undefined {
  if (!isIotchainError(error) || error.code !== 'coap/timeout') throw error
}

describe.each(faults)('loss $loss, duplicates $duplicate, reorder $reorder, seed $seed', (pipe) => {
  test('each POST is executed exactly once, or the client learns that it may not have been', async () => {
    const executed = new Map<string, number>()
    const router = new Router().add({
      pattern: '/once/:id',
      post: async ({ params, payload }) => {
        const id = params['id'] as string
        executed.set(id, (executed.get(id) ?? 0) + 1)
        // every third takes long enough for a separate response
        if (Number(id) % 3 === 0) await new Promise<void>((resolve) => w.timers.after(1500, resolve))
        return { code: Code.changed, payload }
      },
    })
    w = world(router, { pipe })
    const client = w.client()
    const results = Array.from({ length: 30 }, async (_, id) => {
      const body = utf8(`${id}`.repeat(id % 2 === 0 ? 1 : 1500))
      try {
        const reply = await client.post(`/once/${id}`, body)
        expect(reply.codeText).toBe('2.04')
        expect(Buffer.from(body).equals(reply.payload)).toBe(true)
        expect(executed.get(String(id))).toBe(1)
        return true
      } catch (error) {
        if (!isIotchainError(error)) throw error
        expect(error.code).toMatch(/^coap\/(timeout|reset|changed|bad-response)$/)
        expect(executed.get(String(id)) ?? 0).toBeLessThanOrEqual(2)
        return false
      }
    })
    const done = await w.timers.until(Promise.all(results), 24 * 3600_000)
    // the retransmissions of RFC 7252 give up now and then where a quarter is lost
    expect(done.filter(Boolean).length).toBeGreaterThanOrEqual(pipe.loss === 0 ? 30 : pipe.loss < 0.2 ? 29 : 25)
  })

  test('10 kB come down whole although the resource changes', async () => {
    let generation = 0
    const router = new Router().add({
      pattern: '/big',
      get: () => ({ code: Code.content, payload: new Uint8Array(10_000).fill(generation), maxAge: 5 }),
    })
    w = world(router, { pipe })
    const client = w.client()
    let whole = 0
    while (whole < 4 && generation < 100) {
      const reply = client.get('/big')
      await w.timers.advance(100)
      generation++
      const payload = await w.timers.until(reply.then((r) => r.payload, onlyTimeout))
      if (payload === undefined) continue
      whole++
      expect(payload.length).toBe(10_000)
      expect(new Set(payload).size).toBe(1)
    }
    expect(whole).toBe(4)
  })

  test('an observer ends with the newest state and never goes back', async () => {
    let value = 0
    const router = new Router().add({
      pattern: '/v',
      observable: true,
      get: () => ready({ code: Code.content, payload: utf8(String(value)), maxAge: 30 }),
    })
    w = world(router, { pipe })
    const heard: number[] = []
    const observation = w
      .client()
      .observe('/v', { onNotification: (n) => heard.push(Number(n.text)) }, { persistent: true })
    for (value = 0; value < 100; value++) {
      router.notify('/v')
      await w.timers.advance(700)
    }
    value = 1000
    router.notify('/v')
    await w.timers.advance(400_000)
    expect(heard.at(-1)).toBe(1000)
    expect(heard).toEqual([...heard].sort((a, b) => a - b))
    expect(heard.length).toBeGreaterThan(10)
    observation.close()
    await w.timers.advance(400_000)
  })
})
