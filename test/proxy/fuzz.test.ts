import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isIotchainError } from '../../protocol/errors.ts'
import { decodeBatch, decodeBatchReply, encodeBatch, encodeBatchReply } from '../../protocol/messages/batch.ts'
import { ResourceDirectory, type StoredRegistration } from '../../proxy/directory.ts'
import { parseListen } from '../../proxy/listen.ts'
import { parseTarget } from '../../proxy/target.ts'
import { decodeLinks } from '../../transport/coap/link-format.ts'
import { TestClock } from '../client/sealed-world.ts'

/** Whatever a stranger sends: a value or a coded error, nothing else. */
function codedOrFine(work: () => unknown): void {
  try {
    work()
  } catch (error) {
    expect(isIotchainError(error)).toBe(true)
  }
}

const segment = fc.oneof(
  fc.string({ maxLength: 20 }),
  fc.constantFrom('@pack', '@gone', '@past', '1', '07.3', '..', ''),
)

describe('decoders of the proxy', () => {
  test('batches: there and back, and junk', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            path: fc.array(fc.string({ maxLength: 20 }), { minLength: 1, maxLength: 16 }),
            object: fc.uint8Array({ minLength: 1, maxLength: 100 }),
          }),
          { minLength: 1, maxLength: 20 },
        ),
        (items) => {
          const back = decodeBatch(encodeBatch(items))
          expect(back.map((i) => i.path)).toEqual(items.map((i) => i.path))
          expect(back.every((i, k) => Buffer.compare(i.object, items[k]!.object) === 0)).toBe(true)
        },
      ),
      { numRuns: 60, seed: 1 },
    )
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        codedOrFine(() => decodeBatch(bytes))
        codedOrFine(() => decodeBatchReply(bytes))
      }),
      { numRuns: 500, seed: 2 },
    )
    expect(decodeBatchReply(encodeBatchReply([65, 68, 129]))).toEqual([65, 68, 129])
    expect(() => decodeBatchReply(encodeBatchReply([2]))).toThrow(
      expect.objectContaining({ code: 'message/malformed' }),
    )
  })

  test('paths: what is taken names one device and one resource, and nothing reserved', () => {
    const device = `0x${'ab'.repeat(20)}`
    fc.assert(
      fc.property(fc.array(segment, { maxLength: 20 }), (path) => {
        codedOrFine(() => {
          const target = parseTarget([device, ...path])
          expect(target.path.length).toBeGreaterThan(0)
          expect(target.path.every((s) => !s.startsWith('@') && s !== '' && s !== '..')).toBe(true)
          expect(target.resource).not.toContain(' ')
        })
        codedOrFine(() => parseTarget(path))
      }),
      { numRuns: 1000, seed: 3 },
    )
  })

  test('the directory stays within its bounds and its lookups can be read', () => {
    const clock = new TestClock(0)
    const directory = new ResourceDirectory({ limit: 20, clock })
    const query = fc.array(
      fc.oneof(
        fc.string({ maxLength: 30 }),
        fc.constantFrom(
          'ep=a',
          'ep=b',
          'ep=c',
          'd=x',
          'lt=60',
          'lt=0',
          'base=coap://[::1]:9',
          'base=http://x',
          'rt=t',
          'page=0',
          'count=2',
        ),
        fc.string({ maxLength: 5 }).map((s) => `ep=${s}`),
      ),
      { maxLength: 5 },
    )
    const links = fc.oneof(
      fc.constantFrom('', '</s/a>;rt=t', '</s/a>,</s/b>;obs', '<http://x/>', '<coap://h/x>'),
      fc.string({ maxLength: 40 }),
    )
    const ids = new Set<string>()
    fc.assert(
      fc.property(query, links, fc.nat(120), (q, payload, after) => {
        clock.seconds += after
        codedOrFine(() => ids.add(directory.register(q, payload, 'coap://127.0.0.1:5').id))
        codedOrFine(() => directory.update([...ids][after % (ids.size || 1)] ?? '1', q, 'coap://127.0.0.1:6'))
        codedOrFine(() => decodeLinks(directory.endpoints(q)))
        codedOrFine(() => decodeLinks(directory.resources(q)))
        expect(directory.size).toBeLessThanOrEqual(20)
      }),
      { numRuns: 1500, seed: 4 },
    )
    expect(ids.size).toBeGreaterThan(3)
    clock.seconds += 8 * 86_400
    directory.expire()
    expect(directory.size).toBe(0)
  })

  test('listening addresses', () => {
    expect(parseListen('[::]:8080')).toEqual({ host: '::', port: 8080 })
    expect(parseListen('127.0.0.1:0')).toEqual({ host: '127.0.0.1', port: 0 })
    fc.assert(
      fc.property(fc.string({ maxLength: 30 }), (text) => codedOrFine(() => parseListen(text))),
      { numRuns: 300, seed: 5 },
    )
  })
})

describe('the resource directory (RFC 9176)', () => {
  const make = () => new ResourceDirectory({ limit: 10, clock: new TestClock() })

  test('a registration again under the same name and sector keeps its location', () => {
    const rd = make()
    const first = rd.register(['ep=node'], '</a>', 'coap://h:1')
    expect(rd.register(['ep=node'], '</b>', 'coap://h:2').id).toBe(first.id)
    expect(rd.register(['ep=node', 'd=other'], '</a>', 'coap://h:1').id).not.toBe(first.id)
    expect(rd.resources(['ep=node', 'd=x'])).toBe('')
    expect(rd.resources(['href=/b'])).toBe('')
    expect(rd.resources(['ep=node'])).toContain('<coap://h:2/b>')
  })

  test('lookups by what the endpoint is and by what it has; in pages', () => {
    const rd = make()
    rd.register(['ep=one', 'et=oic.d.sensor'], '</t>;rt=temperature,</l>;rt=light', 'coap://h:1')
    rd.register(['ep=two'], '</t>;rt=temperature', 'coap://h:2')
    expect(decodeLinks(rd.resources(['rt=temperature'])).map((l) => l.href)).toEqual(['coap://h:1/t', 'coap://h:2/t'])
    expect(decodeLinks(rd.resources(['rt=temperature', 'et=oic.d.sensor'])).map((l) => l.href)).toEqual([
      'coap://h:1/t',
    ])
    expect(decodeLinks(rd.endpoints(['rt=light'])).map((l) => l.attributes['ep'])).toEqual(['one'])
    expect(decodeLinks(rd.resources(['count=1', 'page=1'])).map((l) => l.href)).toEqual(['coap://h:1/l'])
    expect(() => rd.resources(['page=1'])).toThrow(expect.objectContaining({ code: 'proxy/bad-registration' }))
  })

  test('an update keeps what it does not name', () => {
    const rd = make()
    const { id } = rd.register(['ep=n', 'base=coap://given:7', 'lt=100', 'et=x'], '</a>', 'coap://h:1')
    expect(rd.update(id, ['lt=50'], 'coap://h:9')).toMatchObject({
      base: 'coap://given:7',
      lifetimeSeconds: 50,
      attributes: { et: 'x' },
    })
    expect(rd.update('99', [], 'coap://h:9')).toBeUndefined()
    expect(rd.remove(id)).toBe(true)
    expect(rd.remove(id)).toBe(false)
  })

  test('outlives a restart, as long as its lifetime lasts', () => {
    const clock = new TestClock()
    const kept = new Map<string, StoredRegistration>()
    const onChange = (id: string, r: StoredRegistration | undefined) => void (r ? kept.set(id, r) : kept.delete(id))
    const before = new ResourceDirectory({ limit: 10, clock, onChange })
    before.register(['ep=short', 'lt=60'], '</a>', 'coap://h:1')
    const { id } = before.register(['ep=long', 'lt=600'], '</b>', 'coap://h:2')
    clock.seconds += 100
    const after = new ResourceDirectory({ limit: 10, clock, onChange })
    after.restore([...kept.values()])
    expect(decodeLinks(after.resources([])).map((l) => l.href)).toEqual(['coap://h:2/b'])
    expect(after.register(['ep=long'], '</c>', 'coap://h:2').id).toBe(id)
    expect(after.register(['ep=new'], '', 'coap://h:3').id).not.toBe('1')
    expect([...kept.keys()]).toHaveLength(2)
  })
})
