/** Many schedules, then the mutants over some of them. */
import type { CryptoSuite } from '../../protocol/crypto/suite.ts'
import { judge, judgeNaive, judgeSecrecy, type Verdict } from './judge.ts'
import { MUTANTS, NAIVE } from './mutants.ts'
import { runSchedule } from './schedule.ts'

export interface CampaignResult {
  schedules: number
  broadcasts: number
  coalitions: number
  exactness: number
  recoveries: number
  /** One line each, with the seed that shows it. */
  readonly violations: string[]
  /** Of each mutant: schedules that caught it, schedules that it ran in. */
  readonly mutants: Map<string, { caught: number; of: number }>
}

export interface CampaignOptions {
  readonly schedules: number
  readonly seed: number
  /** Schedules for each mutant. */
  readonly mutantSchedules: number
  readonly progress?: (done: number) => void
}

export function campaign(suite: CryptoSuite, options: CampaignOptions): CampaignResult {
  const result: CampaignResult = {
    schedules: 0,
    broadcasts: 0,
    coalitions: 0,
    exactness: 0,
    recoveries: 0,
    violations: [],
    mutants: new Map(),
  }
  for (let n = 0; n < options.schedules; n++) {
    const seed = seedOf(options.seed, n)
    const world = runSchedule(suite, seed)
    const verdict = judge(world)
    result.schedules++
    result.broadcasts += world.broadcasts.length
    result.coalitions += verdict.coalitions
    result.exactness += verdict.exactness
    result.recoveries += verdict.recoveries
    for (const v of verdict.violations) result.violations.push(`seed ${seed}: ${v}`)
    options.progress?.(n + 1)
  }
  const run = (name: string, judged: (seed: number) => Verdict): void => {
    let caught = 0
    for (let n = 0; n < options.mutantSchedules; n++) {
      if (judged(seedOf(options.seed, n)).violations.length > 0) caught++
    }
    result.mutants.set(name, { caught, of: options.mutantSchedules })
  }
  for (const [name, forge] of Object.entries(MUTANTS))
    run(name, (seed) => judgeSecrecy(runSchedule(suite, seed, forge)))
  for (const [name, naive] of Object.entries(NAIVE)) run(name, (seed) => judgeNaive(runSchedule(suite, seed), naive))
  return result
}

/** A mutant counts as caught when most of the schedules show it. */
export function caughtMutants(result: CampaignResult): number {
  return [...result.mutants.values()].filter(({ caught, of }) => 2 * caught > of).length
}

function seedOf(seed: number, n: number): number {
  return (Math.imul(seed + 1, 0x9e3779b1) + Math.imul(n + 1, 0x85ebca6b)) >>> 0
}
