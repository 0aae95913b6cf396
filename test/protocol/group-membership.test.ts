import { describe, expect, test } from 'vitest'
import { suite } from '../../protocol/crypto/node.ts'
import { openBroadcast } from '../../protocol/groups/broadcast.ts'
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
