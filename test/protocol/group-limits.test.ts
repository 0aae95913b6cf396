import { describe, expect, test } from 'vitest'
import { toHex, utf8 } from '../../protocol/bytes.ts'
import { suite } from '../../protocol/crypto/node.ts'
import type { ManagerState } from '../../protocol/groups/manager-state.ts'
import { DEFAULT_POLICY, groupPolicy } from '../../protocol/groups/policy.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { GroupWorld, id, START } from './group-world.ts'
import { codeOf } from './suites.ts'

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

  test('however long the broadcast, the window is never cut below 96 sessions', () => {
    const w = new GroupWorld(suite, { window: { seconds: 1e9, min: 200 }, broadcastOctets: 512 })
    w.epoch()
    w.manager.join(id('first'), { mode: 'next' })
    for (let i = 0; i < 130; i++) {
      if (i % 4 === 0) w.manager.join(id(`m${i}`), { mode: 'next' })
      w.next()
    }
    const bytes = w.next()
    expect(bytes.length).toBeGreaterThan(512)
    expect(w.member('first').receive(bytes)).toMatchObject({ session: 131, from: 131 - 96 })
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
