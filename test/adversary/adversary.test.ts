import { describe, expect, test } from 'vitest'
import { suite } from '../../protocol/crypto/node.ts'
import { campaign, caughtMutants } from './campaign.ts'
import { Closure, keyFact } from './closure.ts'
import { judge } from './judge.ts'
import { faithful } from './mutants.ts'
import { runSchedule } from './schedule.ts'

const PATIENCE = 120_000

describe('the adversarial test', () => {
  test(
    'finds nothing in the scheme, and every mutant',
    () => {
      const result = campaign(suite, { schedules: 24, seed: 7, mutantSchedules: 5 })
      expect(result.violations).toEqual([])
      expect(result.broadcasts).toBeGreaterThan(24 * 8)
      expect(result.recoveries).toBeGreaterThan(5000)
      expect(result.mutants.size).toBe(6)
      expect(caughtMutants(result)).toBe(6)
    },
    PATIENCE,
  )

  test(
    'does not cry wolf: broadcasts made by the mutants’ own hand, without a fault, pass',
    () => {
      for (const seed of [1, 2, 3]) {
        const world = runSchedule(suite, seed, faithful)
        expect(judge(world).violations).toEqual([])
        const honest = runSchedule(suite, seed)
        expect(world.broadcasts).toEqual(honest.broadcasts)
      }
    },
    PATIENCE,
  )

  test(
    'its schedules hold what they should: all that can happen to a group does',
    () => {
      const seen = {
        suspended: 0,
        rejoined: 0,
        inTheLead: 0,
        recovered: 0,
        timeWindows: 0,
        discarded: 0,
        withoutLeaf: 0,
      }
      for (let seed = 0; seed < 25; seed++) {
        const { model, personals } = runSchedule(suite, seed)
        const numbers = model.sessions.map((s) => s.session)
        if (numbers.some((j, n) => n > 0 && j > (numbers[n - 1] as number) + 1)) seen.recovered++
        const used = new Set(model.sessions.map((s) => s.epoch))
        if ([...personals.values()].flat().some((k) => !used.has(k.epoch))) seen.discarded++
        for (const m of model.memberships) {
          if (m.suspendedFrom !== undefined) seen.suspended++
          if (m.given.size > 1) seen.inTheLead++
          if (model.memberships.some((other) => other !== m && other.id === m.id)) seen.rejoined++
          if (m.given.size > 0 && m.covered.size === 0) seen.withoutLeaf++
        }
        const reach = model.sessions.map((s) => s.session - s.from)
        if (new Set(reach.slice(-6)).size > 1) seen.timeWindows++
      }
      for (const count of Object.values(seen)) expect(count).toBeGreaterThan(0)
    },
    PATIENCE,
  )
})

test('the closure needs every premise', () => {
  const closure = new Closure([
    { from: ['a'], to: 'b' },
    { from: ['b', 'c'], to: keyFact(1) },
    { from: [keyFact(1)], to: keyFact(2) },
  ])
  expect([...closure.of(['a'])].sort()).toEqual(['a', 'b'])
  expect(closure.of(['c']).has(keyFact(1))).toBe(false)
  expect(closure.of(['c', 'a']).has(keyFact(2))).toBe(true)
})
