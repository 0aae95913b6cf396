import { afterEach, describe, expect, test } from 'vitest'
import { concat, utf8 } from '../../../protocol/bytes.ts'
import { type Block, decodeBlock, encodeBlock } from '../../../transport/coap/block.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { MessageType } from '../../../transport/coap/message.ts'
import { type CoapOption, textOption, uintOption } from '../../../transport/coap/option-set.ts'
import { OptionNumber } from '../../../transport/coap/options.ts'
import { type Resource, Router } from '../../../transport/coap/server.ts'
import { type RawPeer, type World, world } from './fixtures.ts'

let w: World
afterEach(async () => {
  await w.close()
  expect(w.timers.pending).toBe(0)
})

const body = Uint8Array.from({ length: 3000 }, (_, i) => (i * 31) >> 3)
let messageId = 1

function open(resource: Partial<Resource>, limits = {}): RawPeer {
  w = world(new Router().add({ pattern: '/b', ...resource }), { server: { limits } })
  return w.raw()
}

interface Step {
  readonly code?: number
  readonly block1?: Block
  readonly block2?: Block
  readonly payload?: Uint8Array
  readonly options?: CoapOption[]
  readonly token?: Uint8Array
}

async function step(raw: RawPeer, { code = Code.get, block1, block2, payload, options = [], token }: Step) {
  const all = [textOption(OptionNumber.uriPath, 'b'), ...options]
  if (block2 !== undefined) all.push({ number: OptionNumber.block2, value: encodeBlock(block2) })
  if (block1 !== undefined) all.push({ number: OptionNumber.block1, value: encodeBlock(block1) })
  raw.send({ type: MessageType.con, code, messageId: messageId++, token, options: all, payload })
  await w.timers.advance(50)
  const [reply] = raw.take()
  if (reply === undefined) throw new Error('no reply')
  const blockOf = (number: number) => {
    const value = reply.options().getUint(number)
    return value === undefined ? undefined : decodeBlock(value)
  }
  return {
    code: reply.code,
    payload: new Uint8Array(reply.payload),
    options: reply.options(),
    block1: blockOf(OptionNumber.block1),
    block2: blockOf(OptionNumber.block2),
  }
}

const part = (number: number, szx = 6) => body.subarray(number * (16 << szx), (number + 1) * (16 << szx))
const block = (number: number, more: boolean, szx = 6): Block => ({ number, more, szx })

describe('Block2', () => {
  test('all blocks come from the representation that the first came from', async () => {
    let generation = 0
    const raw = open({
      get: () => ({ code: Code.content, payload: body.map((x) => x + generation), etag: Uint8Array.of(++generation) }),
    })
    const first = await step(raw, {})
    expect([first.block2, first.options.getUint(OptionNumber.size2)]).toEqual([block(0, true), 3000])
    const other = w.raw()
    const theirs = await step(other, {})
    const second = await step(raw, { block2: block(1, false), token: Uint8Array.of(5) })
    const third = await step(raw, { block2: block(2, false) })
    expect(concat(first.payload, second.payload, third.payload)).toEqual(body)
    expect([second.options.get(4)?.[0], third.options.get(4)?.[0], theirs.options.get(4)?.[0]]).toEqual([1, 1, 2])
    expect(third.block2).toEqual(block(2, false))
    expect((await step(raw, { block2: block(3, false) })).code).toBe(Code.badRequest)
  })

  test('a body without ETag gets one that follows its content', async () => {
    let payload = body
    const raw = open({ get: () => ({ code: Code.content, payload }) })
    const first = await step(raw, {})
    payload = body.map((x) => x ^ 1)
    const second = await step(raw, {})
    expect(first.options.get(4)?.length).toBe(8)
    expect(second.options.get(4)).not.toEqual(first.options.get(4))
  })

  test('the client chooses smaller blocks, and may choose again', async () => {
    const raw = open({ get: () => ({ code: Code.content, payload: body }) })
    const first = await step(raw, { block2: block(0, false, 2) })
    expect([first.payload.length, first.block2]).toEqual([64, block(0, true, 2)])
    const later = await step(raw, { block2: block(1, false, 3) })
    expect(later.payload).toEqual(body.subarray(128, 256))
    // a value of no octets is block 0 of 16 octets
    expect(
      (await step(raw, { options: [{ number: OptionNumber.block2, value: new Uint8Array(0) }] })).payload.length,
    ).toBe(16)
  })

  test('without a snapshot a safe request is run again, an unsafe one is not', async () => {
    let posts = 0
    const raw = open({
      get: () => ({ code: Code.content, payload: body }),
      post: () => {
        posts++
        return { code: Code.changed, payload: body }
      },
    })
    expect((await step(raw, { block2: block(1, false) })).payload).toEqual(part(1))
    expect((await step(raw, { code: Code.post, block2: block(1, false) })).code).toBe(Code.requestEntityIncomplete)
    await step(raw, { code: Code.post })
    expect((await step(raw, { code: Code.post, block2: block(2, false) })).payload).toEqual(part(2))
    expect(posts).toBe(1)
  })

  test('snapshots are bounded by count, octets and time', async () => {
    const raw = open({ get: () => ({ code: Code.content, payload: body }) }, { snapshots: 10, snapshotOctets: 20_000 })
    for (let i = 0; i < 40; i++) await step(w.raw(), {})
    expect(w.server.stats.snapshots).toBe(6)
    for (let i = 0; i < 40; i++) await step(raw, { options: [textOption(OptionNumber.uriQuery, `q${i}`)] })
    expect(w.server.stats.snapshots).toBe(6)
    await w.timers.advance(200_000)
    expect(w.server.stats.snapshots).toBe(0)
  })
})

describe('Block1', () => {
  let stored: Uint8Array[]
  const store: Partial<Resource> = {
    put: ({ payload }) => {
      stored.push(payload)
      return { code: Code.changed }
    },
  }
  function openStore(limits = {}, resource: Partial<Resource> = {}): RawPeer {
    stored = []
    return open({ ...store, ...resource }, limits)
  }

  test('a new token for each block changes nothing', async () => {
    const raw = openStore()
    for (const number of [0, 1]) {
      const reply = await step(raw, {
        code: Code.put,
        block1: block(number, true),
        payload: part(number),
        token: Uint8Array.of(number),
      })
      expect([reply.code, reply.block1]).toEqual([Code.continue, block(number, true)])
    }
    const last = await step(raw, { code: Code.put, block1: block(2, false), payload: part(2) })
    expect([last.code, last.block1]).toEqual([Code.changed, block(2, false)])
    expect(stored).toEqual([body])
    expect(w.server.stats.uploads).toBe(0)
  })

  test('two uploads with different tags do not mix, nor do those of two peers', async () => {
    const raw = openStore()
    const other = w.raw()
    const tag = (n: number) => [{ number: OptionNumber.requestTag, value: Uint8Array.of(n) }]
    for (const number of [0, 1, 2]) {
      const common = { code: Code.put, block1: block(number, number < 2) }
      await step(raw, { ...common, payload: part(number), options: tag(1) })
      await step(raw, { ...common, payload: part(number).map((x) => x ^ 1), options: tag(2) })
      await step(other, { ...common, payload: part(number).map((x) => x ^ 2), options: tag(1) })
    }
    expect(stored).toEqual([body, body.map((x) => x ^ 1), body.map((x) => x ^ 2)])
  })

  test('a gap, a lost beginning and another format draw 4.08; the same block again does not', async () => {
    const raw = openStore()
    const put = (number: number, more: boolean, options: CoapOption[] = []) =>
      step(raw, { code: Code.put, block1: block(number, more), payload: part(number), options })
    expect((await put(1, true)).code).toBe(Code.requestEntityIncomplete)
    await put(0, true)
    await put(1, true)
    expect((await put(1, true)).code).toBe(Code.continue)
    expect((await put(2, false)).code).toBe(Code.changed)
    await put(0, true)
    expect((await put(2, false)).code).toBe(Code.requestEntityIncomplete)
    await put(0, true)
    expect((await put(1, true, [uintOption(OptionNumber.contentFormat, 60)])).code).toBe(Code.requestEntityIncomplete)
    expect(stored).toEqual([body])
  })

  test('a block of the wrong length is a bad request', async () => {
    const raw = openStore()
    const short = await step(raw, { code: Code.put, block1: block(0, true), payload: part(0).subarray(1) })
    expect(short.code).toBe(Code.badRequest)
    const long = await step(raw, { code: Code.put, block1: block(0, false, 0), payload: part(0) })
    expect(long.code).toBe(Code.badRequest)
  })

  test('what is too large is refused at the earliest, with the limit', async () => {
    const raw = openStore({ bodyOctets: 2048 })
    const announced = await step(raw, {
      code: Code.put,
      block1: block(0, true),
      payload: part(0),
      options: [uintOption(OptionNumber.size1, 2049)],
    })
    expect([announced.code, announced.options.getUint(OptionNumber.size1)]).toEqual([Code.requestEntityTooLarge, 2048])
    await step(raw, { code: Code.put, block1: block(0, true), payload: part(0) })
    await step(raw, { code: Code.put, block1: block(1, true), payload: part(1) })
    expect((await step(raw, { code: Code.put, block1: block(2, false), payload: part(2) })).code).toBe(
      Code.requestEntityTooLarge,
    )
    expect(w.server.stats.uploads).toBe(0)
  })

  test('the resource may allow more, and may refuse before anything is kept', async () => {
    const raw = openStore(
      { bodyOctets: 100 },
      { bodyOctets: 4000, before: (request) => (request.query[0] === 'no' ? { code: Code.forbidden } : undefined) },
    )
    const refused = await step(raw, {
      code: Code.put,
      block1: block(0, true),
      payload: part(0),
      options: [textOption(OptionNumber.uriQuery, 'no')],
    })
    expect(refused.code).toBe(Code.forbidden)
    expect(w.server.stats.uploads).toBe(0)
    for (const number of [0, 1, 2])
      await step(raw, { code: Code.put, block1: block(number, number < 2), payload: part(number) })
    expect(stored).toEqual([body])
  })

  test('uploads that never end are capped and forgotten', async () => {
    const raw = openStore({ uploads: 20, uploadsPerPeer: 3, uploadOctets: 60_000 })
    const begin = (peer: RawPeer, n: number) =>
      step(peer, {
        code: Code.put,
        block1: block(0, true),
        payload: part(0),
        options: [uintOption(OptionNumber.requestTag, n + 1)],
      })
    for (let i = 0; i < 10; i++) {
      expect((await begin(raw, i)).code).toBe(i < 3 ? Code.continue : Code.serviceUnavailable)
    }
    expect(w.server.stats.uploads).toBe(3)
    let busy = 0
    for (let i = 0; i < 40; i++) {
      const reply = await begin(w.raw(), i)
      if (reply.code === Code.serviceUnavailable) busy++
      expect(w.server.stats.uploads).toBeLessThanOrEqual(14)
    }
    expect(busy).toBeGreaterThan(0)
    // whoever is silent for long gives way
    await w.timers.advance(15_000)
    expect((await begin(w.raw(), 99)).code).toBe(Code.continue)
    await w.timers.advance(200_000)
    expect(w.server.stats.uploads).toBe(0)
  })

  test('a body and a reply, both in blocks', async () => {
    const raw = open({ post: ({ payload }) => ({ code: Code.changed, payload: payload.toReversed() }) })
    await step(raw, { code: Code.post, block1: block(0, true), payload: part(0) })
    await step(raw, { code: Code.post, block1: block(1, true), payload: part(1) })
    const last = await step(raw, { code: Code.post, block1: block(2, false), payload: part(2) })
    expect([last.block1, last.block2]).toEqual([block(2, false), block(0, true)])
    const rest = await step(raw, { code: Code.post, block2: block(1, false) })
    const end = await step(raw, { code: Code.post, block2: block(2, false) })
    expect(concat(last.payload, rest.payload, end.payload)).toEqual(body.toReversed())
  })

  test('one block that is the whole body', async () => {
    const raw = openStore()
    const reply = await step(raw, {
      code: Code.put,
      options: [{ number: OptionNumber.block1, value: new Uint8Array(0) }],
      payload: utf8('hi'),
    })
    expect([reply.code, stored]).toEqual([Code.changed, [Buffer.from('hi')]])
  })
})
