/** The bundle of the device, as the packages hold it: what its start loads, which bar P8 depends on. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bundle } from '../../tools/package/bundle.ts'

const ROOT = resolve(import.meta.dirname, '..', '..')
let folder: string
let loaded: Map<string, string>

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bundle-'))
  await bundle({ root: ROOT, commands: ['iotchain-device'], out: folder })
  loaded = new Map()
  load(join(folder, 'iotchain-device.mjs'))
}, 120_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Follows what a file imports by itself; what it asks for later is not followed. */
function load(file: string): void {
  if (loaded.has(file)) return
  const text = readFileSync(file, 'utf8')
  loaded.set(file, text)
  for (const [, path] of text.matchAll(/(?:from|import)"(\.[^"]+)"/g)) load(join(dirname(file), path as string))
}

const all = (): string => [...loaded.values()].join('\n')

test('the start loads neither YAML nor schemas nor the X.509 library nor ethers', () => {
  expect(loaded.size).toBeGreaterThan(1)
  expect(all()).toContain('async function runForeground')
  for (const [what, mark] of [
    ['yaml', 'YAMLParseError'],
    ['zod', 'ZodDiscriminatedUnion'],
    ['@peculiar/x509', 'X509CertificateGenerator'],
    ['ethers', 'JsonRpcProvider'],
  ] as const) {
    expect([what, all().includes(mark)]).toEqual([what, false])
  }
})

test('Node’s own modules are taken by name, without the loader’s view of all their exports', () => {
  // `createRequire` of the banner is the exception.
  const imported = [...all().matchAll(/(?:from|import\(?) ?["']node:([a-z_/]+)["']/g)].map((m) => m[1])
  expect([...new Set(imported)]).toEqual(['module'])
  expect(all()).not.toContain('"webcrypto"')
})

test('every chunk that a file names is there', () => {
  for (const [file, text] of loaded) {
    for (const [, path] of text.matchAll(/import\("(\.[^"]+)"\)/g)) {
      expect(existsSync(join(dirname(file), path as string)), path).toBe(true)
    }
  }
})
