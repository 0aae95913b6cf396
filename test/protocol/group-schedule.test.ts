import { describe, expect, test } from 'vitest'
import { suite } from '../../protocol/crypto/node.ts'
import type { ManagerHead, SessionRecord } from '../../protocol/groups/manager-state.ts'
import { newManagerState } from '../../protocol/groups/manager-state.ts'
import { scheduleEpoch, scheduleSession } from '../../protocol/groups/schedule.ts'
import { GroupWorld, START } from './group-world.ts'

const gid = new Uint8Array(8)
const headOf = (policy = {}): ManagerHead => newManagerState(gid, policy).head
const last: SessionRecord = { session: 7, epoch: 1, nbf: START, exp: START + 900 }

describe('when the next session begins', () => {
  test('one session length after the last, published in the lead', () => {
    expect(scheduleSession({ head: headOf(), last, now: START + 5 })).toEqual({
      nbf: START + 900,
      exp: START + 1800,
      publishAt: START + 870,
    })
    expect(scheduleSession({ head: headOf({ overrunSeconds: 100 }), last, now: START })).toMatchObject({
      exp: START + 1900,
    })
  })

  test('the first one now', () => {
    expect(scheduleSession({ head: headOf(), last: undefined, now: START })).toEqual({
      nbf: START,
      exp: START + 900,
      publishAt: START,
    })
  })

  test('after an outage now, with nothing made up', () => {
    expect(scheduleSession({ head: headOf(), last, now: START + 5000 })).toEqual({
      nbf: START + 5000,
      exp: START + 5900,
      publishAt: START + 4970,
    })
  })

  test('a revocation brings it forward, to one minimum session after the last', () => {
    const at = (now: number) => scheduleSession({ head: headOf(), last, now, urgent: true })
    expect(at(START + 10)).toMatchObject({ nbf: START + 60, publishAt: START + 30 })
    expect(at(START + 300)).toMatchObject({ nbf: START + 300, publishAt: START + 300, exp: START + 1200 })
    expect(at(START + 2000)).toMatchObject({ nbf: START + 2000, publishAt: START + 2000 })
    // inside the lead: the session published ahead stands, one more follows it
    const ahead = { ...last, nbf: START + 900 }
    const more = scheduleSession({ head: headOf(), last: ahead, now: START + 880, urgent: true })
    expect(more).toMatchObject({ nbf: START + 960, publishAt: START + 930 })
  })

  test('strict expiry cuts a session where a membership ends', () => {
    const at = (earliestExpiry: number, strictExpiry = true) =>
      scheduleSession({ head: headOf({ strictExpiry }), last, now: START + 1, earliestExpiry }).nbf
    expect(at(START + 500)).toBe(START + 500)
    expect(at(START + 20)).toBe(START + 60)
    expect(at(START + 5000)).toBe(START + 900)
    expect(at(START - 5)).toBe(START + 900)
    expect(at(START + 500, false)).toBe(START + 900)
  })
})

describe('when epochs change', () => {
  const policy = { epochSeconds: 86_400, refreshLeadSeconds: 3600 }
  const withEpochs = (allocatedNbf?: number): ManagerHead => {
    const head = headOf(policy)
    head.active = 1
    head.epochs = [{ epoch: 1, depth: 8, nextLeaf: 1, nbf: START, first: 1, last: 7 }]
    if (allocatedNbf !== undefined) {
      head.allocated = 2
      head.epochs.push({ epoch: 2, depth: 8, nextLeaf: 1, nbf: allocatedNbf, first: 0, last: 0 })
    }
    return head
  }
  const end = START + 86_400

  test('the first epoch at once', () => {
    expect(scheduleEpoch(headOf(), { now: START, nbf: START, compaction: 'no' })).toMatchObject({
      allocate: { nbf: START },
      activate: true,
    })
  })

  test('allocated one refresh lead ahead, activated at the border', () => {
    const plan = (now: number, nbf: number, allocated?: number) =>
      scheduleEpoch(withEpochs(allocated), { now, nbf, compaction: 'no' })
    expect(plan(end - 3601, end - 3000)).toEqual({ allocate: undefined, activate: false, allocateAt: end - 3600 })
    expect(plan(end - 3600, end - 3000)).toMatchObject({ allocate: { nbf: end }, activate: false })
    expect(plan(end - 900, end - 1, end)).toMatchObject({ allocate: undefined, activate: false })
    expect(plan(end - 900, end, end)).toMatchObject({ allocate: undefined, activate: true })
    // an outage over the whole refresh lead
    expect(plan(end + 900, end + 900)).toMatchObject({ allocate: { nbf: end + 900 }, activate: true })
  })

  test('compaction: hand out first, activate after a refresh lead; or at once', () => {
    const now = START + 900
    const plan = (compaction: 'allocate' | 'now', allocated?: number) =>
      scheduleEpoch(withEpochs(allocated), { now, nbf: now, compaction })
    expect(plan('allocate')).toMatchObject({ allocate: { nbf: now + 3600 }, activate: false })
    expect(plan('allocate', now + 1)).toMatchObject({ allocate: undefined, activate: false })
    expect(plan('allocate', now)).toMatchObject({ allocate: undefined, activate: true })
    expect(plan('now')).toMatchObject({ allocate: { nbf: now }, activate: true })
    expect(plan('now', now + 3600)).toMatchObject({ allocate: undefined, activate: true })
  })

  test('driven by it, a group lives for days: sessions follow, epochs change, broadcasts stay short', () => {
    const w = new GroupWorld(suite, { sessionSeconds: 3600, window: { seconds: 86_400, min: 4 } })
    let now = START
    const epochs = new Set<number>()
    let longest = 0
    for (let i = 0; i < 80; i++) {
      const { head, sessions } = w.manager.state()
      const session = scheduleSession({ head, last: sessions.at(-1), now })
      const compaction = head.active === 0 ? 'no' : w.manager.compaction(session).when
      const epoch = scheduleEpoch(head, { now, nbf: session.nbf, compaction })
      if (epoch.allocate !== undefined) w.manager.allocateEpoch(epoch.allocate)
      if (epoch.activate) w.manager.activateEpoch()
      if (i === 0) w.manager.join(new Uint8Array(21), { mode: 'next' })
      longest = Math.max(longest, w.manager.next(session).length)
      w.commit()
      epochs.add(w.manager.epoch)
      expect(w.kept.size).toBeLessThanOrEqual(4)
      now = session.publishAt + 1
    }
    expect([...epochs]).toEqual([1, 2, 3, 4])
    expect(longest).toBeLessThan(400)
  })
})
