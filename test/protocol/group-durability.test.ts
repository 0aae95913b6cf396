import { describe, expect, test } from 'vitest'
import { toHex } from '../../protocol/bytes.ts'
import { suite } from '../../protocol/crypto/node.ts'
import { randomEpochSecrets } from '../../protocol/groups/epoch-secrets.ts'
import type { ManagerChanges, ManagerState } from '../../protocol/groups/manager-state.ts'
import { recoverState } from '../../protocol/groups/recovery.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { GroupWorld, id, START } from './group-world.ts'
import { codeOf } from './suites.ts'

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

  test('counts with the shortest session that may have been, and from a recovery that was itself backed up', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.next()
    const now = w.nbf + 6000
    const backup = w.manager.state()
    expect(recoverState(backup, { now, minSessionSeconds: 5 }).jump).toBe(1200 + 16)
    expect(recoverState(backup, { now, minSessionSeconds: 90 }).jump).toBe(100 + 16)
    const recovered = recoverState(backup, { now }).state
    expect(recoverState(recovered, { now }).jump).toBe(16)
    expect(recoverState(recovered, { now: now + 6000 }).jump).toBe(100 + 16)
    expect(codeOf(() => recoverState(recovered, { now: now - 901 }))).toBe('group/bad-time')
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
