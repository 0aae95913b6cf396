import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { checkVectorFile, readVectorFile } from '../../tools/vector-file.ts'
import { replay } from '../../tools/vector-replay.ts'
import { codeOf, SUITES } from './suites.ts'

const PATH = 'test/vectors/groups-and-objects.json'
const folder = mkdtempSync(join(tmpdir(), 'iotchain-vectors-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe.each(SUITES)('$name', ({ suite }) => {
  test('replays every case of the vectors', () => {
    const { passed, failures } = replay(readVectorFile(PATH), suite)
    expect(failures).toEqual([])
    expect(passed).toBe(532)
  }, 120_000)
})

/** Replaces what is found at a path like `scenarios.0.broadcasts.3.K`. */
const TEXT = readFileSync(PATH, 'utf8')

function changed(path: string, change: (value: unknown) => unknown): unknown {
  const file: unknown = JSON.parse(TEXT)
  const keys = path.split('.')
  let at = file as Record<string, unknown>
  for (const key of keys.slice(0, -1)) at = at[key] as Record<string, unknown>
  const last = keys.at(-1) as string
  at[last] = change(at[last])
  return file
}

const flip = (value: unknown): unknown => {
  const text = String(value)
  return text.slice(0, -1) + (text.endsWith('0') ? '1' : '0')
}

describe('a vector that is wrong is found', () => {
  const suite = SUITES[0]?.suite as (typeof SUITES)[0]['suite']
  const cases: [string, (value: unknown) => unknown, number][] = [
    ['derive.EM', flip, 18 + 5 - 1],
    ['derive.labels.2.label', flip, 1],
    ['derive.time_nodes.1.node', flip, 1],
    ['dyadic.3.nodes', (v) => [...(v as unknown[]), [1, 1]], 1],
    ['cover.7.packed.0', flip, 1],
    ['personal.4.labels_sha256', flip, 1],
    ['scenarios.1.broadcasts.5.sign1', flip, 1],
    ['scenarios.1.broadcasts.5.payload', flip, 1],
    ['scenarios.1.broadcasts.5.opens_from.m004', () => 3, 1],
    ['scenarios.1.broadcasts.5.opens_from.m005', () => undefined, 1],
    ['scenarios.1.personal_keys.9.labels', flip, 1],
    ['scenarios.1.personal_keys.9.leaf', (v) => Number(v) + 1, 1],
    ['negative.must_not_parse.0.sign1', () => '00', 0],
    ['objects.cases.2.mac0', flip, 1],
    ['objects.cases.2.cek', flip, 1],
    ['objects.kid', flip, 12],
  ]
  test.each(cases)('%s', (path, change, expected) => {
    const vectors = checkVectorFile(JSON.parse(JSON.stringify(changed(path, change))), path)
    // the scenarios are what takes the time
    const kept = /^scenarios\.(\d)/.exec(path)?.[1]
    const scenarios = vectors.scenarios.filter((_, n) => (kept === undefined ? false : n === Number(kept)))
    const negative = { ...vectors.negative, must_not_parse: [], must_not_open: [], must_not_verify: [] }
    const { failures } = replay({ ...vectors, scenarios, negative }, suite)
    if (path === 'derive.EM') expect(failures.length).toBeGreaterThanOrEqual(expected)
    else expect(failures).toHaveLength(expected)
    for (const line of failures) expect(line).not.toContain('\n')
  })

  test('a message that parses, opens or verifies where it must not', () => {
    const vectors = readVectorFile(PATH)
    const scenario = vectors.scenarios[1] as (typeof vectors.scenarios)[0]
    const good = { name: 'good', sign1: scenario.broadcasts[23]?.sign1 as string }
    const negative = { scenario: scenario.seed, must_not_parse: [good], must_not_open: [good], must_not_verify: [good] }
    const { failures } = replay(
      { ...vectors, scenarios: [scenario], negative, objects: { ...vectors.objects, cases: [] } },
      suite,
    )
    expect(failures.map((f) => f.split(':').slice(1, 3).join(':'))).toEqual([
      ' must not parse: good',
      ' must not verify: good',
      ' must not open: good',
    ])
  })
})

test('a file that is not one of vectors is one sentence', () => {
  const file = join(folder, 'bad.json')
  expect(codeOf(() => readVectorFile(join(folder, 'missing.json')))).toBe('config/bad-vectors')
  writeFileSync(file, '{')
  expect(codeOf(() => readVectorFile(file))).toBe('config/bad-vectors')
  writeFileSync(file, JSON.stringify(changed('objects.cases.0.sid', () => 'zz')))
  expect(() => readVectorFile(file)).toThrow(/objects\.cases\.0\.sid/)
})
