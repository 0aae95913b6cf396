import { describe, expect, test } from 'vitest'
import { toHex, utf8 } from '../../protocol/bytes.ts'
import { suite } from '../../protocol/crypto/node.ts'
import { openBroadcast } from '../../protocol/groups/broadcast.ts'
import { randomEpochSecrets } from '../../protocol/groups/epoch-secrets.ts'
import type { ManagerChanges, ManagerState } from '../../protocol/groups/manager-state.ts'
import { DEFAULT_POLICY, groupPolicy } from '../../protocol/groups/policy.ts'
import { recoverState } from '../../protocol/groups/recovery.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { GroupWorld, id, START } from './group-world.ts'
import { codeOf } from './suites.ts'

const open = (world: GroupWorld, bytes: Uint8Array) => openBroadcast(suite, bytes, { kdc: world.kdc })

describe('joining', () => {
  test('in mid-session: personal key and the running key, from the running session on', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('device'), { mode: 'next' })
    w.next()
    w.next()
    const joined = w.manager.join(id('c'), { mode: 'current', now: w.nbf + 10 })
    expect(joined).toMatchObject({ start: 2, repeated: false, upcoming: undefined })
    expect(joined.keys.map((k) => k.session)).toEqual([2])
    const device = w.member('device')
    const newest = w.next()
    const member = w.member('c')
    expect(member.receive(newest)).toMatchObject({ session: 3, from: 2 })
    expect(device.receive(newest)).toMatchObject({ session: 3, from: 1 })
    expect(joined.keys[0]?.K).toEqual(member.key(2))
    expect(member.key(2)).toEqual(device.key(2))
    expect(member.key(1)).toBeUndefined()
  })

  test('strictly: from the next session on, without keys', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.next()
    const joined = w.manager.join(id('c'), { mode: 'next', now: w.nbf + 10 })
    expect(joined).toMatchObject({ start: 2, keys: [] })
    const member = w.member('c')
    expect(member.receive(w.next())).toMatchObject({ session: 2, from: 2 })
    expect(member.key(1)).toBeUndefined()
  })

  test('in the lead: keys of the running session and of those already published', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.next()
    const published = w.next()
    const now = w.nbf - 20
    const joined = w.manager.join(id('c'), { mode: 'current', now })
    expect(joined.start).toBe(1)
    expect(joined.keys.map((k) => k.session)).toEqual([1, 2])
    expect(w.member('c').receive(published)).toBe('not-for-me')
    expect(w.manager.join(id('d'), { mode: 'next', now })).toMatchObject({ start: 3, keys: [] })
  })

  test('before the first broadcast, and after an outage longer than the session: from the next session on', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    expect(w.manager.join(id('a'), { mode: 'current', now: START })).toMatchObject({ start: 1, keys: [] })
    w.next()
    expect(w.manager.join(id('b'), { mode: 'current', now: w.nbf + 900 })).toMatchObject({ start: 2, keys: [] })
    expect(w.manager.join(id('c'), { mode: 'current', now: w.nbf + 899 })).toMatchObject({ start: 1 })
  })

  test('again: the same membership, the same personal key, the running key, no leaf used up', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    const first = w.manager.join(id('c'), { mode: 'next', expiresAt: START + 5000, now: START })
    w.next()
    const again = w.manager.join(id('c'), { mode: 'current', expiresAt: START + 9000, now: w.nbf + 1 })
    expect(again.repeated).toBe(true)
    expect(again.personal).toEqual({ ...first.personal, nbf: again.personal.nbf, exp: again.personal.exp })
    expect(again.keys.map((k) => k.session)).toEqual([1])
    expect(w.manager.membership(id('c'))).toMatchObject({ number: 1, start: 1, expiresAt: START + 9000 })
    expect(w.manager.join(id('d'), { mode: 'next' }).personal.leaf).toBe(1)
  })

  test('after a gap: a new membership and a new leaf', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('c'), { mode: 'next', now: START })
    w.next()
    w.manager.leave(id('c'))
    w.next()
    const again = w.manager.join(id('c'), { mode: 'next', now: w.nbf })
    expect(again).toMatchObject({ start: 3, repeated: false })
    expect(again.personal.leaf).toBe(1)
    expect([...w.manager.members()].map((m) => m.number)).toEqual([2])
  })

  test('without an epoch it is refused', () => {
    const w = new GroupWorld(suite)
    expect(codeOf(() => w.manager.join(id('c'), { mode: 'next' }))).toBe('group/no-epoch')
    expect(codeOf(() => w.manager.next({ nbf: 1, exp: 2 }))).toBe('group/no-epoch')
    expect(codeOf(() => w.manager.activateEpoch())).toBe('group/no-epoch')
  })
})

describe('leaving', () => {
  test('a revocation, a deletion and an expiry take effect with the next broadcast', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    for (const name of ['a', 'b', 'c']) w.manager.join(id(name), { mode: 'next' })
    w.manager.renew(id('b'), w.nbf + 1800)
    const [a, b, c] = ['a', 'b', 'c'].map((name) => w.member(name)) as [never, never, never]
    const receive = (m: { receive(b: Uint8Array): unknown }, bytes: Uint8Array) => m.receive(bytes)
    const first = w.next()
    for (const m of [a, b, c]) expect(receive(m, first)).toMatchObject({ session: 1 })
    w.manager.leave(id('a'))
    w.manager.leave(id('nobody'))
    const second = w.next()
    expect(receive(a, second)).toBe('not-for-me')
    expect(receive(b, second)).toBe('not-for-me')
    expect(receive(c, second)).toMatchObject({ session: 2 })
    expect(codeOf(() => w.manager.personal(id('a')))).toBe('group/no-member')
    expect(codeOf(() => w.manager.keys(id('b')))).toBe('group/no-member')
    expect(codeOf(() => w.manager.renew(id('b'), undefined))).toBe('group/no-member')
  })

  test('expiry is judged when the broadcast is made: at nbf ≥ expiresAt', () => {
    for (const [offset, member] of [
      [0, false],
      [1, true],
    ] as const) {
      const w = new GroupWorld(suite)
      w.epoch()
      w.manager.join(id('c'), { mode: 'next', expiresAt: START + 900 + offset })
      const c = w.member('c')
      expect(c.receive(w.next()) === 'not-for-me').toBe(!member)
    }
  })

  test('who leaves before the first broadcast was never covered', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('c'), { mode: 'next' })
    const c = w.member('c')
    w.manager.leave(id('c'))
    expect(w.manager.membership(id('c'))).toMatchObject({ start: 1, out: 1 })
    expect(c.receive(w.next())).toBe('not-for-me')
  })

  test('a group without members still has broadcasts', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    const b = open(w, w.next())
    expect(b.cohorts).toHaveLength(1)
    expect(b.cohorts[0]).toMatchObject({ start: 1, cover: [] })
  })
})

describe('suspension', () => {
  test('out of the cover and back, the gap healed, leaf and start kept', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('c'), { mode: 'next' })
    w.manager.join(id('device'), { mode: 'next' })
    w.next()
    w.manager.suspend(id('c'))
    w.manager.suspend(id('c'))
    const c = w.member('c')
    expect(c.receive(w.next())).toBe('not-for-me')
    expect(w.manager.keys(id('c'))).toEqual([])
    w.next()
    w.manager.resume(id('c'))
    w.manager.resume(id('c'))
    const healed = w.next()
    expect(c.receive(healed)).toMatchObject({ session: 4, from: 1 })
    const device = w.member('device')
    device.receive(healed)
    for (const j of [1, 2, 3, 4]) expect(c.key(j)).toEqual(device.key(j))
    expect(w.manager.membership(id('c'))).toMatchObject({ number: 1, start: 1 })
  })

  test('one that does not stand any more ended at the first session of the suspension', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    for (const name of ['left', 'expired', 'stays']) w.manager.join(id(name), { mode: 'next' })
    w.manager.renew(id('expired'), w.nbf + 3 * 900)
    w.next()
    for (const name of ['left', 'expired', 'nobody']) w.manager.suspend(id(name))
    w.next()
    w.next()
    w.manager.leave(id('left'))
    expect(w.manager.membership(id('left'))?.out).toBe(2)
    expect(w.manager.membership(id('expired'))?.out).toBe(2)
    w.manager.resume(id('left'))
    w.manager.resume(id('nobody'))
    const left = w.member()
    expect(left.receive(w.next())).toBe('unknown-epoch')
  })

  test('a member that joins again while suspended is taken back', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('c'), { mode: 'next' })
    w.next()
    w.manager.suspend(id('c'))
    w.next()
    expect(w.manager.join(id('c'), { mode: 'current', now: w.nbf + 1 })).toMatchObject({ start: 1, repeated: true })
    expect(w.member('c').receive(w.next())).toMatchObject({ from: 1 })
  })
})

describe('epochs', () => {
  test('two trees during refresh: joins and departures count in both', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('a'), { mode: 'next' })
    w.manager.join(id('b'), { mode: 'next' })
    w.next()
    w.manager.allocateEpoch({ nbf: w.nbf + 1800 })
    expect(w.manager.allocatedEpoch).toBe(2)
    const joined = w.manager.join(id('c'), { mode: 'current', now: w.nbf + 1 })
    expect(joined.personal.epoch).toBe(1)
    expect(joined.upcoming).toMatchObject({ epoch: 2, leaf: 2, start: 1 })
    const members = ['a', 'b', 'c'].map((name) => {
      const m = w.member(name)
      m.addPersonal(w.manager.personal(id(name), 2))
      return m
    })
    const [a, b, c] = members as [(typeof members)[0], (typeof members)[0], (typeof members)[0]]
    expect(a.epochs).toEqual([1, 2])
    w.manager.leave(id('b'))
    const old = w.next()
    expect([a, b, c].map((m) => typeof m.receive(old))).toEqual(['object', 'string', 'object'])
    w.manager.activateEpoch()
    expect(w.manager.allocatedEpoch).toBeUndefined()
    const border = w.next()
    expect(open(w, border)).toMatchObject({ epoch: 2, session: 3 })
    expect(a.receive(border)).toMatchObject({ epoch: 2, from: 1 })
    expect(b.receive(border)).toBe('not-for-me')
    expect(c.receive(border)).toMatchObject({ epoch: 2, from: 1 })
    expect(a.key(1)).toEqual(c.key(1))
    expect(open(w, border).cohorts.map((x) => x.start)).toEqual([1, 3])
  })

  test('an epoch passed over is discarded, its number never used again', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('a'), { mode: 'next' })
    w.next()
    w.manager.allocateEpoch({ nbf: w.nbf + 900 })
    const passedOver = w.manager.personal(id('a'), 2)
    w.manager.allocateEpoch({ nbf: w.nbf + 900 })
    expect(w.manager.allocatedEpoch).toBe(3)
    expect(codeOf(() => w.manager.personal(id('a'), 2))).toBe('group/no-epoch')
    w.manager.activateEpoch()
    const a = w.member()
    a.addPersonal(passedOver)
    expect(a.receive(w.next())).toBe('unknown-epoch')
    // one that was activated and never used goes the same way
    w.epoch()
    w.epoch()
    expect(w.manager.epoch).toBe(5)
    w.commit()
    expect([...w.kept.keys()]).toEqual([1, 3, 5])
  })

  test('when the tree allocated ahead fills up, the next one takes its place', () => {
    const w = new GroupWorld(suite, { dMin: 3 })
    w.epoch()
    w.manager.allocateEpoch({ nbf: w.nbf + 900 })
    const joins = Array.from({ length: 9 }, (_, i) => w.manager.join(id(`m${i}`), { mode: 'next' }))
    expect(joins[7]).toMatchObject({ personal: { epoch: 1, leaf: 7 }, upcoming: { epoch: 2, leaf: 7 } })
    // no leaf left in either tree: epoch 3 holds everybody
    expect(joins[8]).toMatchObject({ personal: { epoch: 3, leaf: 8 }, upcoming: undefined })
    expect(w.manager.compaction({ nbf: w.nbf + 900 })).toEqual({ when: 'now', reason: 'no-leaf' })
  })

  test('without a leaf: the personal key of the next epoch, and each session’s key by asking', () => {
    const w = new GroupWorld(suite, { dMin: 1 })
    w.epoch()
    for (const name of ['a', 'b', 'c']) w.manager.join(id(name), { mode: 'next' })
    expect(w.manager.personal(id('c')).epoch).toBe(2)
    const c = w.member('c')
    expect(c.receive(w.next())).toBe('unknown-epoch')
    const [key] = w.manager.keys(id('c'), { now: w.nbf })
    expect(key?.session).toBe(1)
    const a = w.manager.keys(id('a'), { now: w.nbf })
    expect(a).toEqual([key])
    w.manager.activateEpoch()
    expect(c.receive(w.next())).toMatchObject({ epoch: 2, from: 1 })
    expect(c.key(1)).toEqual(key?.K)
  })

  test('a membership renewed past the border gets its leaf in the tree allocated without it', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('a'), { mode: 'next', expiresAt: w.nbf + 1500 })
    w.manager.join(id('b'), { mode: 'next' })
    w.next()
    w.manager.allocateEpoch({ nbf: w.nbf + 900 })
    expect(codeOf(() => w.manager.personal(id('a'), 2))).toBe('group/not-covered')
    w.manager.renew(id('a'), w.nbf + 9000)
    expect(w.manager.personal(id('a'), 2)).toMatchObject({ leaf: 1, start: 1 })
    w.manager.activateEpoch()
    expect(w.member('a').receive(w.next())).toMatchObject({ from: 1 })
  })

  test('an epoch put to use earlier than expected still covers who would have been gone by then', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('a'), { mode: 'next', expiresAt: w.nbf + 3000 })
    w.next()
    w.manager.allocateEpoch({ nbf: w.nbf + 9000 })
    w.manager.activateEpoch()
    const bytes = w.next()
    expect(w.member('a').receive(bytes)).toMatchObject({ epoch: 2, from: 1 })
  })

  test('past personal keys for who was away, as long as the epoch is kept and was covered', () => {
    const w = new GroupWorld(suite, { window: 4, retainEpochs: 2, leavesPerMemberAndEpoch: 9 })
    w.epoch()
    w.manager.join(id('a'), { mode: 'next' })
    const archive: Uint8Array[] = []
    for (let e = 1; e <= 5; e++) {
      for (let k = 0; k < 3; k++) archive.push(w.next())
      if (e === 2) w.manager.join(id('late'), { mode: 'next' })
      w.epoch()
    }
    archive.push(w.next())
    expect(w.manager.epoch).toBe(6)
    expect(codeOf(() => w.manager.personal(id('a'), 3))).toBe('group/no-epoch')
    expect(codeOf(() => w.manager.personal(id('late'), 1))).toBe('group/no-epoch')
    const back = w.member()
    back.addPersonal(w.manager.personal(id('a'), 4))
    back.addPersonal(w.manager.personal(id('a')))
    expect(back.receive(archive[15] as Uint8Array)).toMatchObject({ session: 16, from: 12 })
    expect(back.receive(archive[9] as Uint8Array)).toBe('old')
    expect(back.receive(archive[9] as Uint8Array, { asked: true })).toMatchObject({ session: 10, from: 6 })
    expect(back.key(6)).toBeDefined()
    expect(back.session).toBe(16)
    expect([...w.kept.keys()]).toEqual([4, 5, 6])
    const held = w.manager.state()
    expect(held.sessions[0]?.session).toBe(10)
  })

  test('compaction: only when covers are long and a new tree halves them', () => {
    const w = new GroupWorld(suite, { dMin: 8, rejoinsPerHour: 1e6 })
    w.epoch()
    for (let i = 0; i < 200; i++) w.manager.join(id(`m${i}`), { mode: 'next' })
    w.next()
    expect(w.manager.compaction({ nbf: w.nbf + 900 })).toEqual({ when: 'no', reason: undefined })
    for (let i = 0; i < 200; i += 2) w.manager.leave(id(`m${i}`))
    expect(w.manager.compaction({ nbf: w.nbf + 900 })).toEqual({ when: 'allocate', reason: 'cover-too-long' })
    w.next()
    w.manager.allocateEpoch({ nbf: w.nbf + 900 })
    w.manager.activateEpoch()
    expect(w.next().length).toBeLessThan(450)
    expect(w.manager.compaction({ nbf: w.nbf + 900 }).when).toBe('no')
  })

  test('compaction does not chase cohorts, which a new tree cannot shorten', () => {
    const w = new GroupWorld(suite, { dMin: 8 })
    w.epoch()
    for (let i = 0; i < 97; i++) {
      w.manager.join(id(`m${i}`), { mode: 'next' })
      const bytes = w.next()
      expect(bytes.length).toBeLessThanOrEqual(4200)
      expect(w.manager.compaction({ nbf: w.nbf + 900 }).when).toBe('no')
    }
  })
})

describe('limits', () => {
  test('at most four leaves for an address in an epoch', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.next()
    for (let i = 0; i < 4; i++) {
      w.manager.join(id('c'), { mode: 'next', now: w.nbf + i })
      w.manager.leave(id('c'))
    }
    const refusal = () => w.manager.join(id('c'), { mode: 'next', now: w.nbf + 4 })
    expect(codeOf(refusal)).toBe('group/quota')
    expect(refusal).toThrow(expect.objectContaining({ retryAfterSeconds: 86_400 - 4 }))
    w.epoch()
    expect(codeOf(refusal)).toBeUndefined()
  })

  test('at most 32 rejoins in a group and hour', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.next()
    for (let i = 0; i < 33; i++) {
      w.manager.join(id(`c${i}`), { mode: 'next', now: w.nbf })
      w.manager.leave(id(`c${i}`))
    }
    for (let i = 0; i < 32; i++) w.manager.join(id(`c${i}`), { mode: 'next', now: w.nbf + i })
    const refusal = (after: number) => () => w.manager.join(id('c32'), { mode: 'next', now: w.nbf + after })
    expect(codeOf(refusal(40))).toBe('group/quota')
    expect(refusal(40)).toThrow(expect.objectContaining({ retryAfterSeconds: 3560 }))
    expect(codeOf(() => w.manager.join(id('new'), { mode: 'next', now: w.nbf + 40 }))).toBeUndefined()
    expect(codeOf(refusal(3600))).toBeUndefined()
  })

  test('a group has at most 131 071 members', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    const state = w.manager.state() as { memberships: unknown[] } & ManagerState
    const full: ManagerState = {
      ...state,
      memberships: Array.from({ length: 131_071 }, (_, n) => ({
        number: n + 1,
        id: utf8(`m${n}`),
        start: 1,
        leaves: [],
      })),
    }
    const big = new GroupWorld(suite, {}, full)
    expect(codeOf(() => big.manager.join(id('one more'), { mode: 'next' }))).toBe('group/full')
    big.manager.leave(utf8('m7'))
    big.manager.allocateEpoch({ nbf: START })
    expect(big.manager.state().head.epochs.at(-1)?.depth).toBe(18)
  })

  test('the window follows the clock, and never falls below its least', () => {
    const w = new GroupWorld(suite, { window: { seconds: 3600, min: 2 }, minSessionSeconds: 1, sessionSeconds: 60 })
    w.epoch()
    w.manager.join(id('a'), { mode: 'next' })
    for (let i = 0; i < 10; i++) w.next(START + 900 + i * 60)
    const a = w.member('a')
    expect(a.receive(w.next(START + 2000))).toMatchObject({ session: 11, from: 1 })
    expect(a.receive(w.next(START + 4500 + 240))).toMatchObject({ session: 12, from: 5 })
    expect(a.receive(w.next(START + 100_000))).toMatchObject({ session: 13, from: 11 })
  })

  test('the window is cut so that the broadcast fits, from its old end', () => {
    const w = new GroupWorld(suite, { window: { seconds: 1e9, min: 4 }, broadcastOctets: 1000 })
    w.epoch()
    for (let i = 0; i < 40; i++) {
      w.manager.join(id(`m${i}`), { mode: 'next' })
      const bytes = w.next()
      expect(bytes.length).toBeLessThanOrEqual(1000)
    }
    const last = w.manager.join(id('m0'), { mode: 'next' })
    expect(last.start).toBe(1)
    const m0 = w.member('m0')
    const received = m0.receive(w.next())
    expect(received).toMatchObject({ session: 41 })
    const { from } = received as { from: number }
    expect(from).toBeGreaterThan(1)
    expect(from).toBeLessThan(37)
    const next = w.member('m39')
    expect(next.receive(w.next())).toMatchObject({ from: 40 })
  })

  test('when even the least window does not fit, a new epoch is due; over 64 KiB nothing is made', () => {
    const w = new GroupWorld(suite, { window: 1, broadcastOctets: 600, rejoinsPerHour: 1e6, compactionOctets: 60_000 })
    w.epoch()
    for (let i = 0; i < 200; i++) w.manager.join(id(`m${i}`), { mode: 'next' })
    w.next()
    for (let i = 0; i < 200; i += 2) w.manager.leave(id(`m${i}`))
    expect(w.manager.compaction({ nbf: w.nbf + 900 })).toEqual({ when: 'now', reason: 'broadcast-too-long' })
    expect(w.next().length).toBeGreaterThan(600)

    const leaves = Array.from({ length: 4000 }, (_, n) => n)
    const state = w.manager.state()
    const epoch = { epoch: 1, depth: 13, nextLeaf: 8000, nbf: START, first: 1, last: 2 }
    const scattered = new GroupWorld(
      suite,
      {},
      {
        ...state,
        head: { ...state.head, epochs: [epoch] },
        memberships: leaves.map((n) => ({
          number: n + 1,
          id: utf8(`x${n}`),
          start: 1,
          leaves: [{ epoch: 1, leaf: 2 * n }],
        })),
      },
    )
    scattered.secrets.create(1)
    expect(codeOf(() => scattered.manager.next({ nbf: w.nbf + 900, exp: w.nbf + 1800 }))).toBe('group/too-long')
    scattered.epoch()
    expect(scattered.manager.epoch).toBe(2)
  })

  test('session times', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.next()
    const { nbf } = w
    for (const t of [
      { nbf: nbf + 59, exp: nbf + 900 },
      { nbf: nbf + 900, exp: nbf + 900 },
      { nbf: 1.5, exp: 9 },
    ]) {
      expect(codeOf(() => w.manager.next(t))).toBe('group/bad-time')
    }
    expect(() => w.manager.next({ nbf: nbf + 50, exp: nbf + 900 })).toThrow(
      expect.objectContaining({ retryAfterSeconds: 10 }),
    )
    expect(codeOf(() => w.manager.next({ nbf: nbf + 60, exp: nbf + 900 }))).toBeUndefined()
  })
})

describe('commit before send', () => {
  test('no broadcast while the one before is not committed', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    const bytes = w.manager.next({ nbf: START, exp: START + 900 })
    const again = () => w.manager.next({ nbf: START + 900, exp: START + 1800 })
    expect(codeOf(again)).toBe('group/uncommitted')
    const changes = w.manager.changes() as ManagerChanges
    expect(changes.broadcast).toEqual({ session: 1, nbf: START, exp: START + 900, bytes })
    expect(codeOf(again)).toBe('group/uncommitted')
    w.manager.committed()
    expect(codeOf(again)).toBeUndefined()
  })

  test('a write that failed is handed out again, together with what came after', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('a'), { mode: 'next' })
    const first = w.manager.changes() as ManagerChanges
    expect(first.memberships.map((m) => m.number)).toEqual([1])
    expect(first.newSecrets.map((s) => s.epoch)).toEqual([1])
    w.manager.join(id('b'), { mode: 'next' })
    const second = w.manager.changes() as ManagerChanges
    expect(second.memberships.map((m) => m.number)).toEqual([1, 2])
    expect(second.newSecrets.map((s) => s.epoch)).toEqual([1])
    w.manager.committed()
    expect(w.manager.changes()).toBeUndefined()
    expect(codeOf(() => w.manager.committed())).toBe('group/uncommitted')
  })

  test('what changes while a write is under way waits for the next one', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('a'), { mode: 'next' })
    const under = w.manager.changes() as ManagerChanges
    w.manager.leave(id('a'))
    w.manager.committed()
    expect(under.memberships[0]?.out).toBeUndefined()
    expect(w.manager.changes()?.memberships).toEqual([expect.objectContaining({ number: 1, out: 1 })])
  })

  test('the changes alone rebuild the state', () => {
    const w = new GroupWorld(suite, {
      window: 3,
      retainEpochs: 1,
      dMin: 2,
      leavesPerMemberAndEpoch: 99,
      rejoinsPerHour: 99,
    })
    let head: ManagerState['head'] | undefined
    const memberships = new Map<number, ManagerState['memberships'][number]>()
    const sessions = new Map<number, ManagerState['sessions'][number]>()
    const persist = (): void => {
      const changes = w.manager.changes()
      if (changes === undefined) return
      head = changes.head
      for (const m of changes.memberships) memberships.set(m.number, m)
      for (const s of changes.sessions) sessions.set(s.session, s)
      for (const n of changes.droppedMemberships) memberships.delete(n)
      for (const n of changes.droppedSessions) sessions.delete(n)
      for (const { epoch, secret } of changes.newSecrets) w.kept.set(epoch, Uint8Array.from(secret))
      for (const epoch of changes.erasedSecrets) w.kept.delete(epoch)
      w.manager.committed()
    }
    w.epoch()
    for (let i = 0; i < 30; i++) {
      w.manager.join(id(`m${i}`), { mode: i % 2 === 0 ? 'next' : 'current', now: w.nbf, expiresAt: w.nbf + 3000 })
      if (i % 3 === 0) w.manager.leave(id(`m${i - 2}`))
      if (i % 5 === 0 || w.manager.compaction({ nbf: w.nbf + 900 }).when === 'now') {
        if (w.manager.allocatedEpoch === undefined) w.manager.allocateEpoch({ nbf: w.nbf + 900 })
        w.manager.activateEpoch()
      }
      persist()
      w.nbf += 900
      w.manager.next({ nbf: w.nbf, exp: w.nbf + 900 })
      persist()
    }
    const rebuilt: ManagerState = {
      head: head as ManagerState['head'],
      memberships: [...memberships.values()].sort((a, b) => a.number - b.number),
      sessions: [...sessions.values()].sort((a, b) => a.session - b.session),
    }
    expect(rebuilt).toEqual(w.manager.state())
    expect(memberships.size).toBeLessThan(20)
    expect(sessions.size).toBeLessThan(15)
    const again = sdsh(suite).manager({
      state: structuredClone(rebuilt),
      secrets: randomEpochSecrets(suite.randomBytes, w.kept),
      signingKey: w.signingKey,
    })
    const t = { nbf: w.nbf + 900, exp: w.nbf + 1800 }
    expect(toHex(again.next(t))).toBe(toHex(w.manager.next(t)))
  })

  test('a state of another version is refused', () => {
    const w = new GroupWorld(suite)
    const state = { ...w.manager.state(), memberships: 'none' } as unknown as ManagerState
    expect(codeOf(() => new GroupWorld(suite, {}, state))).toBe('group/bad-state')
  })
})

describe('policy', () => {
  test('defaults, and lengths bound to each other', () => {
    expect(groupPolicy()).toEqual(DEFAULT_POLICY)
    expect(groupPolicy({ sessionSeconds: 20, epochSeconds: 100 })).toMatchObject({
      minSessionSeconds: 20,
      leadSeconds: 5,
      refreshLeadSeconds: 25,
    })
    const bad = [
      { sessionSeconds: 0 },
      { window: 0 },
      { window: { seconds: -1, min: 4 } },
      { window: { seconds: 1, min: 0 } },
    ]
    for (const wishes of [
      ...bad,
      { dMin: 19 },
      { epochSeconds: 5 },
      { broadcastOctets: 100_000 },
      { leadSeconds: 0.5 },
    ]) {
      expect(codeOf(() => groupPolicy(wishes))).toBe('group/bad-policy')
    }
  })

  test('a changed policy takes the place of the stored one', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.next()
    const manager = sdsh(suite).manager({
      state: w.manager.state(),
      secrets: w.secrets,
      signingKey: w.signingKey,
      policy: groupPolicy({ window: { seconds: 1e9, min: 60_000 }, minSessionSeconds: 5 }),
    })
    expect(manager.next({ nbf: w.nbf + 5, exp: w.nbf + 900 })).toBeDefined()
    expect(manager.state().head.policy.minSessionSeconds).toBe(5)
  })

  test('sender ids count up and never repeat', () => {
    const w = new GroupWorld(suite)
    const issued = Array.from({ length: 300 }, () => toHex(w.manager.issueSid()))
    expect(issued.slice(0, 2)).toEqual(['01', '02'])
    expect(issued.slice(254, 257)).toEqual(['ff', '0100', '0101'])
    expect(new Set(issued).size).toBe(300)
    expect(w.manager.changes()?.head.sids).toBe(300)
  })
})

describe('recovery', () => {
  test('every counter jumps, nobody is a member, nothing reaches back', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('a'), { mode: 'next' })
    for (let i = 0; i < 5; i++) w.next()
    w.manager.issueSid()
    const backup = w.manager.state()
    for (let i = 0; i < 3; i++) w.next()
    const { state, jump, erasedSecrets } = recoverState(backup, { now: w.nbf + 10 })
    expect(jump).toBe(Math.ceil((3 * 900 + 10) / 60) + 16)
    expect(erasedSecrets).toEqual([1])
    expect(state.head).toMatchObject({ session: 5 + jump - 1, floor: 5 + jump, lastEpoch: 1 + jump, sids: 65_537 })
    const back = new GroupWorld(suite, {}, state)
    back.nbf = w.nbf + 10
    back.epoch()
    expect(back.manager.epoch).toBe(2 + jump)
    const joined = back.manager.join(id('a'), { mode: 'current', now: back.nbf })
    expect(joined).toMatchObject({ start: 5 + jump, keys: [], repeated: false })
    const a = back.member('a')
    expect(a.receive(back.next())).toMatchObject({ session: 5 + jump, from: 5 + jump })
  })

  test('mirrors may know better', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.next()
    const seen = { now: w.nbf, highestSession: 1000, highestEpoch: 50 }
    const { state } = recoverState(w.manager.state(), seen)
    expect(state.head).toMatchObject({ floor: 1016, lastEpoch: 66 })
    expect(codeOf(() => recoverState(w.manager.state(), { now: w.nbf - 901 }))).toBe('group/bad-time')
    expect(codeOf(() => recoverState(w.manager.state(), { ...seen, highestSession: 2 ** 32 - 5 }))).toBe(
      'group/exhausted',
    )
    const fresh = new GroupWorld(suite)
    expect(recoverState(fresh.manager.state(), { now: 5 })).toMatchObject({ jump: 16, erasedSecrets: [] })
  })

  test('the last session number is the last', () => {
    const w = new GroupWorld(suite)
    const { state } = recoverState(w.manager.state(), { now: START, highestSession: 2 ** 32 - 17 })
    const end = new GroupWorld(suite, {}, state)
    end.epoch()
    end.manager.join(id('a'), { mode: 'next' })
    const bytes = end.next()
    expect(end.member('a').receive(bytes)).toMatchObject({ session: 2 ** 32 - 1, from: 2 ** 32 - 1 })
    expect(codeOf(() => end.next())).toBe('group/exhausted')
  })
})
