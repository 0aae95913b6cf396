import { readdirSync, readFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'

/** The layers of ARCHITECTURE.md: what each folder may import. The second check beside Biome's. */
const ROOT = resolve(import.meta.dirname, '..')
const ROLES = ['device', 'keyserver', 'proxy', 'client', 'owner']
const MAY_IMPORT: Record<string, string[]> = {
  protocol: [],
  transport: ['protocol'],
  chain: ['protocol'],
  store: ['protocol'],
  runtime: ['protocol'],
  device: ['protocol', 'transport', 'store', 'runtime'],
  proxy: ['protocol', 'transport', 'store', 'runtime'],
  keyserver: ['protocol', 'transport', 'store', 'runtime', 'chain'],
  client: ['protocol', 'transport', 'store', 'runtime', 'chain'],
  owner: ['protocol', 'transport', 'store', 'runtime', 'chain'],
}

interface Import {
  file: string
  specifier: string
  folder: string
  target: string | undefined
}

function sourcesOf(folder: string): string[] {
  try {
    return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((f) => f.endsWith('.ts') && !f.endsWith('.d.ts'))
      .map((f) => join(ROOT, folder, f))
  } catch {
    return []
  }
}

const files = Object.keys(MAY_IMPORT).flatMap(sourcesOf)
const imports: Import[] = files.flatMap((path) => {
  const file = relative(ROOT, path)
  const folder = file.split('/')[0] as string
  const text = readFileSync(path, 'utf8')
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((m) => {
    const specifier = m[1] as string
    const target = specifier.startsWith('.') ? relative(ROOT, resolve(path, '..', specifier)).split('/')[0] : undefined
    return { file, specifier, folder, target }
  })
})

describe('layers', () => {
  test('there is something to check', () => {
    expect(files.length).toBeGreaterThan(30)
    expect(imports.length).toBeGreaterThan(100)
  })

  test('imports point down, and a role never imports a role', () => {
    const wrong = imports.filter(
      (i) => i.target !== undefined && i.target !== i.folder && !(MAY_IMPORT[i.folder] ?? []).includes(i.target),
    )
    expect(wrong.map((i) => `${i.file} imports ${i.specifier}`)).toEqual([])
  })

  test('protocol/ knows no Node API, but for crypto/node.ts', () => {
    const wrong = imports.filter(
      (i) => i.folder === 'protocol' && i.specifier.startsWith('node:') && i.file !== 'protocol/crypto/node.ts',
    )
    expect(wrong).toEqual([])
  })

  test('device and proxy never reach ethers', () => {
    const wrong = imports.filter((i) => ['device', 'proxy'].includes(i.folder) && /^ethers(\/|$)/.test(i.specifier))
    expect(wrong).toEqual([])
    expect(ROLES.every((r) => r in MAY_IMPORT)).toBe(true)
  })
})
