import { afterEach, describe, expect, test } from 'vitest'
import { fromUtf8, utf8 } from '../../../protocol/bytes.ts'
import { IotchainError } from '../../../protocol/errors.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { ContentFormat } from '../../../transport/coap/content-format.ts'
import { ready } from '../../../transport/coap/reply.ts'
import { Router } from '../../../transport/coap/server.ts'
import { type World, world } from './fixtures.ts'

let w: World
afterEach(async () => {
  await w.close()
  expect(w.timers.pending).toBe(0)
})

function store(): { router: Router; bodies: Map<string, Uint8Array> } {
  const bodies = new Map<string, Uint8Array>()
  const router = new Router().add({
    pattern: '/store/*path',
    get: ({ params }) => {
      const payload = bodies.get(params['path'] as string)
      if (payload === undefined) return { code: Code.notFound }
      return { code: Code.content, payload, contentFormat: ContentFormat.octetStream }
    },
    put: ({ params, payload }) => {
      const key = params['path'] as string
      const code = bodies.has(key) ? Code.changed : Code.created
      bodies.set(key, payload)
      return { code }
    },
    post: ({ payload }) => ({ code: Code.created, locationPath: ['store', String(payload.length)], payload }),
    delete: ({ params }) => {
      bodies.delete(params['path'] as string)
      return { code: Code.deleted }
    },
    fetch: ({ payload }) => ({ code: Code.content, payload: payload.toReversed() }),
  })
  return { router, bodies }
}

describe('a request and its response', () => {
  test('each method reaches its handler', async () => {
    const { router } = store()
    w = world(router)
    const client = w.client()
    const run = <T>(promise: Promise<T>) => w.timers.until(promise)
    expect((await run(client.put('/store/a/b', utf8('one')))).codeText).toBe('2.01')
    expect((await run(client.put('/store/a/b', utf8('two')))).codeText).toBe('2.04')
    const got = await run(client.get('/store/a/b'))
    expect([got.codeText, got.text, got.contentFormat, got.maxAge]).toEqual(['2.05', 'two', 42, 60])
    const posted = await run(client.post('/store/x', utf8('12345')))
    expect(posted.locationPath).toEqual(['store', '5'])
    expect(fromUtf8((await run(client.fetch('/store/x', utf8('abc')))).payload)).toBe('cba')
    expect((await run(client.delete('/store/a/b'))).codeText).toBe('2.02')
    expect((await run(client.get('/store/a/b'))).codeText).toBe('4.04')
    expect((await run(client.request({ method: 'PATCH', path: '/store/a' }))).codeText).toBe('4.05')
  })

  test('a body of 10 kB goes up and comes down in blocks', async () => {
    const { router, bodies } = store()
    w = world(router)
    const client = w.client()
    const body = Uint8Array.from({ length: 10_000 }, (_, i) => i * 7)
    expect((await w.timers.until(client.put('/store/big', body))).codeText).toBe('2.01')
    expect(bodies.get('big')).toEqual(body)
    const got = await w.timers.until(client.get('/store/big'))
    expect(new Uint8Array(got.payload)).toEqual(body)
    const both = await w.timers.until(client.post('/store/big', body))
    expect(new Uint8Array(both.payload)).toEqual(body)
    const small = await w.timers.until(client.get('/store/big', { blockOctets: 64 }))
    expect(new Uint8Array(small.payload)).toEqual(body)
  })

  test('a message that wants no response draws none', async () => {
    const { router, bodies } = store()
    w = world(router)
    const client = w.client()
    client.endpoint.tell(client.peer, { method: 'PUT', path: '/store/x', payload: utf8('told') })
    client.endpoint.tell(client.peer, { path: '/nowhere' })
    await w.timers.advance(1000)
    expect(fromUtf8(bodies.get('x') ?? new Uint8Array(0))).toBe('told')
    expect([w.server.stats.datagramsReceived, w.server.stats.datagramsSent]).toEqual([2, 0])
  })

  test('a slow handler gets its reply out as a separate response', async () => {
    w = world(
      new Router().add({
        pattern: '/slow',
        get: () => new Promise((resolve) => w.timers.after(20_000, () => resolve({ code: Code.content }))),
      }),
    )
    const client = w.client()
    expect((await w.timers.until(client.get('/slow'))).codeText).toBe('2.05')
    expect(w.server.stats.dropped.duplicate).toBe(0)
  })

  test('observers hear of changes', async () => {
    let value = 0
    const router = new Router().add({
      pattern: '/value',
      observable: true,
      get: () => ready({ code: Code.content, payload: utf8(String(value)) }),
    })
    w = world(router)
    const client = w.client()
    const heard: string[] = []
    const observation = client.observe('/value', { onNotification: (n) => heard.push(n.text) })
    await w.timers.until(observation.ready)
    for (value = 1; value <= 5; value++) {
      router.notify('/value')
      await w.timers.advance(1000)
    }
    expect(heard).toEqual(['0', '1', '2', '3', '4', '5'])
    observation.close()
    await w.timers.advance(1000)
    expect(w.server.stats.observers).toBe(0)
  })

  test('an error of ours becomes problem details, any other 5.00 without a word', async () => {
    const router = new Router()
      .add({
        pattern: '/ours',
        get: () => {
          throw new IotchainError('message/bad-hex', 'no hex')
        },
      })
      .add({ pattern: '/other', get: () => Promise.reject(new Error('secret path /etc')) })
    w = world(router)
    const client = w.client()
    const ours = await w.timers.until(client.get('/ours'))
    expect([ours.codeText, ours.problem?.title, ours.problem?.detail]).toEqual(['4.00', 'message/bad-hex', 'no hex'])
    const other = await w.timers.until(client.get('/other'))
    expect([other.codeText, other.payload.length]).toEqual(['5.00', 0])
  })
})
