import { describe, expect, test } from 'vitest'
import { suite } from '../../protocol/crypto/node.ts'
import { openBroadcast } from '../../protocol/groups/broadcast.ts'
import { GroupWorld, id } from './group-world.ts'
import { codeOf } from './suites.ts'

const open = (world: GroupWorld, bytes: Uint8Array) => openBroadcast(suite, bytes, { kdc: world.kdc })

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
