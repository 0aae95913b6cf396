import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'

/** docs/errors.md names every code that the source throws, and no other. */
const ROOT = resolve(import.meta.dirname, '..')
const FOLDERS = [
  'protocol',
  'transport',
  'chain',
  'store',
  'runtime',
  'device',
  'keyserver',
  'proxy',
  'client',
  'owner',
  'bin',
]

const source = FOLDERS.flatMap((folder) =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((f) => f.endsWith('.ts'))
    .map((f) => readFileSync(join(ROOT, folder, f), 'utf8')),
).join('\n')
const areas = readFileSync(join(ROOT, 'protocol/errors.ts'), 'utf8')
  .match(/type Area =([\s\S]*?)\n\n/)?.[1]
  ?.match(/[a-z]+/g) as string[]
const thrown = new Set(
  [...source.matchAll(/'([a-z]+\/[a-z0-9-]+)'/g)]
    .map((m) => m[1] as string)
    .filter((c) => areas.includes(c.split('/')[0] as string)),
)
const documented = new Set(
  [...readFileSync(join(ROOT, 'docs/errors.md'), 'utf8').matchAll(/^\| `([^`]+)` \|/gm)].map((m) => m[1] as string),
)

describe('docs/errors.md', () => {
  test('names each code that the source uses', () => {
    expect(thrown.size).toBeGreaterThan(20)
    expect([...thrown].filter((c) => !documented.has(c)).sort()).toEqual([])
  })

  test('names no code that the source does not use', () => {
    expect([...documented].filter((c) => !thrown.has(c)).sort()).toEqual([])
  })
})
