import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { concat, fromHex, toHex, utf8 } from '../../protocol/bytes.ts'
import { type CborValue, decodeCbor, encodeCbor } from '../../protocol/cbor.ts'
import { suite } from '../../protocol/crypto/node.ts'
import { isIotchainError } from '../../protocol/errors.ts'
import { planCohorts, plannedOctets } from '../../protocol/groups/assemble.ts'
import { claimBroadcast, decodeBroadcast, openBroadcast, signBroadcast } from '../../protocol/groups/broadcast.ts'
import { coverOf, packSubset, unpackSubset } from '../../protocol/groups/cover.ts'
import { randomEpochSecrets, rootEpochSecrets } from '../../protocol/groups/epoch-secrets.ts'
import { descend, dyadic, dyadicCount, sessionsOf, TIME_DEPTH, TimeTree } from '../../protocol/groups/time-tree.ts'
import { depthOf, inSubset, labelFrom, labelOf, labelsLength, labelsOf } from '../../protocol/groups/tree.ts'
import { GroupWorld, id } from './group-world.ts'
import { codeOf } from './suites.ts'

const secret = suite.sha256(utf8('epoch secret'))
const sets = fc
  .integer({ min: 1, max: 7 })
  .chain((depth) =>
    fc
      .tuple(fc.constant(depth), fc.array(fc.boolean(), { minLength: 2 ** depth, maxLength: 2 ** depth }))
      .map(([d, member]) => ({ depth: d, leaves: member.flatMap((yes, leaf) => (yes ? [leaf] : [])) })),
  )

describe('covers', () => {
  test('reach exactly the leaves, each once, in order, and pack', () => {
    fc.assert(
      fc.property(sets, ({ depth, leaves }) => {
        const cover = coverOf(depth, leaves)
        for (let leaf = 0; leaf < 2 ** depth; leaf++) {
          const times = cover.filter((s) => inSubset(depth, leaf, s)).length
          expect(times).toBe(leaves.includes(leaf) ? 1 : 0)
        }
        for (const [n, s] of cover.entries()) {
          if (n > 0) expect(s.j).toBeGreaterThan(cover[n - 1]?.j as number)
          const [a, b, c] = packSubset(s) as unknown as [number, number, number]
          expect(unpackSubset(depth, a, b, c)).toEqual(s)
        }
        const revoked = 2 ** depth - leaves.length
        if (leaves.length > 0) expect(cover.length).toBeLessThanOrEqual(Math.max(1, 2 * revoked - 1))
      }),
      { numRuns: 200 },
    )
  })

  test('in the deepest tree, with 131 071 leaves, are found at once', () => {
    const leaves = Array.from({ length: 131_071 }, (_, i) => i)
    expect(coverOf(18, leaves).length).toBeLessThan(20)
    expect(coverOf(18, [0])).toEqual([{ i: 2 ** 17, j: 2 ** 18 + 1 }])
  })

  test('three octets that stand for no subset', () => {
    const bad: [number, number][] = [
      [3, 0x000000],
      [3, 0x000002],
      [3, 0x080000],
      [3, 0x080001],
      [3, 0x100002],
      [3, 0x080010],
      [18, 0xffffff],
      [18, (19 << 19) | 0x7ffff],
    ]
    for (const [depth, word] of bad) {
      expect(unpackSubset(depth, (word >> 16) & 255, (word >> 8) & 255, word & 255)).toBeUndefined()
    }
    expect(unpackSubset(18, 0x97, 0xff, 0xff)).toEqual({ i: 1, j: 0x7ffff })
  })
})

describe('labels', () => {
  test('a leaf has those of the subsets that it is in, and gets them from its personal key', () => {
    for (const depth of [1, 2, 3, 4, 5]) {
      for (const leaf of [0, 2 ** depth - 1, Math.floor(2 ** depth / 3)]) {
        const labels = labelsOf(suite, secret, depth, leaf)
        expect(labels).toHaveLength(labelsLength(depth))
        for (let i = 1; i < 2 ** depth; i++) {
          for (let j = 2 * i; j < 2 ** (depth + 1); j++) {
            const isBelow = depthOf(j) > depthOf(i) && j >> (depthOf(j) - depthOf(i)) === i
            if (!isBelow || !inSubset(depth, leaf, { i, j })) continue
            expect(toHex(labelFrom(suite, labels, depth, leaf, { i, j }))).toBe(toHex(labelOf(suite, secret, { i, j })))
          }
        }
        expect(toHex(labelFrom(suite, labels, depth, leaf, { i: 1, j: 0 }))).toBe(
          toHex(labelOf(suite, secret, { i: 1, j: 0 })),
        )
      }
    }
  })

  test('sizes of personal keys', () => {
    expect([8, 10, 16].map(labelsLength)).toEqual([592, 896, 2192])
  })
})

describe('the time tree', () => {
  const ranges = fc
    .tuple(fc.integer({ min: 1, max: 2 ** 32 - 1 }), fc.integer({ min: 0, max: 70_000 }))
    .map(([lo, n]) => ({ lo, hi: Math.min(lo + n, 2 ** 32 - 1) }))

  test('dyadic covers a range by the fewest blocks, without a gap, nothing beyond', () => {
    fc.assert(
      fc.property(ranges, ({ lo, hi }) => {
        const nodes = dyadic(lo, hi)
        expect(dyadicCount(lo, hi)).toBe(nodes.length)
        let at = lo
        for (const node of nodes) {
          const { lo: from, hi: to } = sessionsOf(node)
          expect(from).toBe(at)
          at = to + 1
        }
        expect(at).toBe(hi + 1)
        expect(nodes.length).toBeLessThanOrEqual(Math.max(1, 2 * Math.log2(hi - lo + 2)))
      }),
    )
    expect(dyadic(0, 2 ** 32 - 1)).toEqual([{ level: 0, prefix: 0 }])
  })

  test('nodes are the same however they are reached', () => {
    const tree = new TimeTree(suite, secret)
    fc.assert(
      fc.property(ranges, fc.nat(), ({ lo, hi }, pick) => {
        const session = lo + (pick % (hi - lo + 1))
        const node = dyadic(lo, hi).find((n) => session <= sessionsOf(n).hi) as { level: number; prefix: number }
        const prf = (k: Uint8Array, m: Uint8Array) => suite.hmacOnce(k, m).subarray(0, 16)
        const leaf = { level: TIME_DEPTH, prefix: session }
        const direct = toHex(new TimeTree(suite, secret).leaf(session))
        expect(toHex(tree.leaf(session))).toBe(direct)
        expect(toHex(descend(prf, tree.node(node), node, leaf))).toBe(direct)
      }),
      { numRuns: 60 },
    )
  })
})

describe('the size of a broadcast', () => {
  test('is known before it is made', () => {
    for (const members of [0, 1, 5, 60]) {
      const w = new GroupWorld(suite, { window: { seconds: 1e9, min: 9 }, rejoinsPerHour: 1e6 })
      w.epoch()
      for (let i = 0; i < members; i++) {
        w.manager.join(id(`m${i}`), { mode: 'next' })
        if (i % 4 === 0) w.next()
        if (i % 5 === 0) w.manager.leave(id(`m${i}`))
        if (i % 25 === 0) w.epoch()
      }
      const bytes = w.next()
      const b = openBroadcast(suite, bytes, { kdc: w.kdc })
      const cohorts = b.cohorts.map((c, k) => ({
        start: c.start,
        end: (b.cohorts[k + 1]?.start ?? b.session + 1) - 1,
        cover: c.cover.map((e) => e.subset),
      }))
      expect(plannedOctets({ ...b, cohorts })).toBe(bytes.length)
    }
  })

  test('cohorts are planned by start, epoch borders cut in', () => {
    const live = [
      { leaf: 3, from: 4 },
      { leaf: 1, from: 2 },
      { leaf: 0, from: 4 },
    ]
    expect(planCohorts(9, 2, live, [1, 2, 6, 9, 12]).map((c) => [c.start, c.end, c.cover.length])).toEqual([
      [2, 3, 1],
      [4, 5, 2],
      [6, 8, 0],
      [9, 9, 0],
    ])
    expect(planCohorts(9, 2, [], [1, 5])).toEqual([{ start: 9, end: 9, cover: [] }])
  })
})

describe('what is no broadcast, however well signed', () => {
  const w = new GroupWorld(suite)
  w.epoch()
  for (let i = 0; i < 6; i++) w.manager.join(id(`m${i}`), { mode: 'next' })
  w.next()
  w.manager.join(id('late'), { mode: 'next' })
  w.manager.leave(id('m2'))
  const good = w.next()
  const fields = decodeCbor(claimBroadcast(good, {}).message.payload) as CborValue[]
  const open = (payload: Uint8Array) =>
    codeOf(() => openBroadcast(suite, signBroadcast(suite, payload, w.signingKey), { kdc: w.kdc }))
  const withField = (at: number, value: unknown) => encodeCbor(fields.map((f, i) => (i === at ? value : f)))
  const [early, late] = fields[7] as [CborValue[], CborValue[]]
  const [, cover, heal] = early as [number, Uint8Array, Uint8Array]
  const cohorts = (...list: unknown[]) => withField(7, list)
  const entry = (word: number): Uint8Array =>
    concat(Uint8Array.of(word >> 16, (word >> 8) & 255, word & 255), new Uint8Array(16))

  test('the good one is', () => {
    expect(open(encodeCbor(fields))).toBeUndefined()
    expect(open(cohorts([1, new Uint8Array(0), heal], late))).toBeUndefined()
    expect(open(cohorts([1, entry(1), heal], late))).toBeUndefined()
  })

  test.each([
    ['version 2', withField(0, 2)],
    ['a gid of 7 octets', withField(1, new Uint8Array(7))],
    ['a gid that is text', withField(1, 'group-01')],
    ['epoch 0', withField(2, 0)],
    ['epoch 2^32', withField(2, 2 ** 32)],
    ['session 0', withField(3, 0)],
    ['session −1', withField(3, -1)],
    ['nbf as text', withField(4, 'now')],
    ['nbf beyond 2^53', withField(4, 2n ** 60n)],
    ['exp = nbf', withField(5, fields[4])],
    ['exp as null', withField(5, null)],
    ['depth 0', withField(6, 0)],
    ['depth 19', withField(6, 19)],
    ['no cohorts', withField(7, [])],
    ['cohorts as map', withField(7, new Map())],
    ['a short key check', withField(8, new Uint8Array(7))],
    ['a field too many', encodeCbor([...fields, 0])],
    ['a field too few', encodeCbor(fields.slice(0, 8))],
    ['no array', encodeCbor(5)],
    ['a cohort that is no array', cohorts(1, late)],
    ['a cohort of four', cohorts([...early, 0], late)],
    ['a start as text', cohorts(['1', cover, heal], late)],
    ['start 0', cohorts([0, cover, heal], late)],
    ['starts not ascending', cohorts(late, early)],
    ['the same start twice', cohorts(early, early)],
    ['a start after the session', cohorts(early, [3, new Uint8Array(0), heal])],
    ['a start 65 536 sessions back', withField(3, 65_537)],
    ['a cover as text', cohorts([1, 'cover', heal], late)],
    ['a cover of 18 octets', cohorts([1, cover.subarray(1), heal], late)],
    ['a healing part as null', cohorts([1, cover, null], late)],
    ['a healing part too short', cohorts([1, cover, heal.subarray(1)], late)],
    ['a healing part too long', cohorts([1, cover, concat(heal, heal)], late)],
    ['a subset below the leaves', cohorts([1, entry((1 << 19) | 512), heal], late)],
    ['a subset that is its own root', cohorts([1, entry(2), heal], late)],
    ['a subset above the root', cohorts([1, entry((2 << 19) | 2), heal], late)],
    ['a subset twice', cohorts([1, concat(entry((1 << 19) | 4), entry((1 << 19) | 4)), heal], late)],
    ['subsets out of order', cohorts([1, concat(entry((1 << 19) | 5), entry((1 << 19) | 4)), heal], late)],
    ['the whole tree and more', cohorts([1, concat(entry(1), entry((1 << 19) | 4)), heal], late)],
    ['an octet behind', concat(encodeCbor(fields), Uint8Array.of(0))],
    ['nothing', new Uint8Array(0)],
    ['an integer in a longer form', fromHex(toHex(encodeCbor(fields)).replace(/^8901/, '891801'))],
  ])('%s', (_, payload) => {
    expect(open(payload)).toBe('group/malformed')
  })

  test('nor does the payload by itself pass with another version or group identifier', () => {
    for (const payload of [withField(0, 2), withField(1, new Uint8Array(7)), withField(1, 5)]) {
      expect(codeOf(() => decodeBroadcast(payload))).toBe('group/malformed')
    }
    expect(codeOf(() => decodeBroadcast(encodeCbor(fields)))).toBeUndefined()
  })

  test('changed octets give a broadcast or group/malformed, and never the same reading twice', () => {
    const payload = encodeCbor(fields)
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(payload.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 3 }),
        (changes) => {
          const bytes = payload.slice()
          for (const [at, octet] of changes) bytes[at] = octet
          try {
            decodeBroadcast(bytes)
            expect(toHex(encodeCbor(decodeCbor(bytes)))).toBe(toHex(bytes))
          } catch (error) {
            expect(isIotchainError(error) && error.code).toBe('group/malformed')
          }
        },
      ),
      { numRuns: 1000 },
    )
  })
})

describe('epoch secrets', () => {
  test('random ones are kept, loaded and erased', () => {
    const secrets = randomEpochSecrets(suite.randomBytes, [[4, new Uint8Array(32).fill(4)]])
    const made = secrets.create(5) as Uint8Array
    expect(secrets.get(5)).toBe(made)
    expect(secrets.get(4)).toEqual(new Uint8Array(32).fill(4))
    secrets.erase(5)
    secrets.erase(6)
    expect(codeOf(() => secrets.get(5))).toBe('group/no-secret')
    expect(made.every((x) => x === 0)).toBe(true)
    expect(codeOf(() => randomEpochSecrets(suite.randomBytes, [[1, new Uint8Array(5)]]).get(1))).toBe('group/no-secret')
  })

  test('those of a root come back', () => {
    const secrets = rootEpochSecrets(suite, new Uint8Array(32), utf8('group-01'))
    expect(secrets.create(1)).toBeUndefined()
    const secret = secrets.get(1)
    secrets.erase(1)
    expect(secrets.get(1)).toEqual(secret)
    expect(codeOf(() => rootEpochSecrets(suite, new Uint8Array(31), utf8('group-01')))).toBe('group/no-secret')
  })
})
