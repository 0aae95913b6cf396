import { mkdtempSync, readdirSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { isThere, readFileIfExists, readFileOrExplain, writeFileAtomic } from '../../runtime/atomic-file.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'iotchain-atomic-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('the file is replaced whole, for the owner alone, and nothing is left beside it', () => {
  const path = join(folder, 'state')
  writeFileAtomic(path, 'one')
  writeFileAtomic(path, Uint8Array.of(1, 2))
  expect([...(readFileIfExists(path) ?? [])]).toEqual([1, 2])
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(readdirSync(folder)).toEqual(['state'])
})

test('a mode that is asked for holds under a strict umask', () => {
  const path = join(folder, 'device.yaml')
  const before = process.umask(0o077)
  try {
    writeFileAtomic(path, 'x', { mode: 0o644 })
  } finally {
    process.umask(before)
  }
  expect(statSync(path).mode & 0o777).toBe(0o644)
})

test('exclusive refuses to overwrite', () => {
  const path = join(folder, 'key')
  writeFileAtomic(path, 'one', { exclusive: true })
  expect(() => writeFileAtomic(path, 'two', { exclusive: true })).toThrow(
    expect.objectContaining({ code: 'runtime/exists' }),
  )
  expect(readFileIfExists(path)?.toString()).toBe('one')
})

test('faults are sentences', () => {
  expect(readFileIfExists(join(folder, 'none'))).toBeUndefined()
  expect(() => readFileOrExplain(join(folder, 'none'), 'certificate')).toThrow(/the certificate .* is not there/)
  expect(() => writeFileAtomic(join(folder, 'no/such/file'), 'x')).toThrow(
    expect.objectContaining({ code: 'runtime/cannot-write' }),
  )
  expect(() => writeFileAtomic('/dev/full/x', 'x')).toThrow(expect.objectContaining({ name: 'IotchainError' }))
})

test('a file that cannot be looked at is not taken for one that is missing', () => {
  const path = join(folder, 'loop')
  symlinkSync(path, path)
  expect(isThere(path)).toBe(true)
  expect(() => readFileOrExplain(path, 'file')).toThrow(/cannot be read/)
  expect(isThere(join(folder, 'none'))).toBe(false)
  expect(isThere(join(folder, 'none', 'below'))).toBe(false)
})
