import { describe, expect, test } from 'vitest'
import { IotchainError } from '../../protocol/errors.ts'
import { type FuzzTarget, fuzz, loadCorpus } from './engine.ts'
import { TARGETS } from './targets.ts'

describe.each(TARGETS.map((target) => ({ name: target.name, target })))('$name', ({ target }) => {
  test('a few hundred inputs, and every one that ever was a finding', () => {
    const saved = loadCorpus('test/corpus', target)
    expect(saved.length).toBeGreaterThan(0)
    const result = fuzz(target, saved, { seed: 20_180_415, runs: 250 })
    expect(result.findings).toEqual([])
    // a parser that takes nothing is not being tested
    expect(result.accepted).toBeGreaterThanOrEqual(target.seeds().length)
  })
})

describe('the fuzzer itself', () => {
  const target = (run: (bytes: Uint8Array) => unknown): FuzzTarget => ({
    name: 'self',
    seeds: () => [new Uint8Array(30)],
    run,
  })

  test('finds another error than an IotchainError, and makes it small', () => {
    const faulty = target((bytes) => {
      if (bytes.includes(0xff) && bytes.includes(0x18)) throw new TypeError('boom')
      throw new IotchainError('cbor/malformed', 'as it should be')
    })
    const { findings } = fuzz(faulty, [], { seed: 1, runs: 3000 })
    expect(findings).toHaveLength(1)
    expect(findings[0]?.reason).toContain('boom')
  })

  test('passes over IotchainErrors, and takes saved inputs first', () => {
    const fine = target(() => {
      throw new IotchainError('cbor/malformed', 'as it should be')
    })
    expect(fuzz(fine, [], { seed: 1, runs: 100 })).toMatchObject({ findings: [], accepted: 0 })
    const known = target((bytes) => {
      if (bytes.length === 3) throw new Error('known')
    })
    expect(fuzz(known, [new Uint8Array(3)], { seed: 1, runs: 1 })).toMatchObject({
      inputs: 1,
      findings: [{ reason: 'Error: known' }],
    })
    expect(loadCorpus('test/corpus', known)).toEqual([])
  })
})
