import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, statSync, unlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { openLevelStore } from '../../store/level.ts'
import { openMemoryStore } from '../../store/memory.ts'
import { decodeRecord, encodeRecord } from '../../store/records.ts'
import { prefixRange, type Store, type StoreRange } from '../../store/store.ts'
import { bundleProgram } from '../child-program.ts'

const folders: string[] = []
function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'iotchain-store-'))
  folders.push(path)
  return path
}
afterEach(() => {
  for (const path of folders.splice(0)) rmSync(path, { recursive: true, force: true })
})

async function entries(store: Store, range: StoreRange): Promise<[string, number[]][]> {
  const out: [string, number[]][] = []
  for await (const [key, value] of store.range(range)) out.push([key, [...value]])
  return out
}

describe.each([
  ['memory', async () => openMemoryStore()],
  ['level', () => openLevelStore(folder())],
] as const)('store: %s', (_, open) => {
  test('puts, deletes and ranges as one ordered map', async () => {
    const store = await open()
    await store.batch([
      { type: 'put', key: 'b/2', value: Uint8Array.of(2) },
      { type: 'put', key: 'b/1', value: Uint8Array.of(1) },
      { type: 'put', key: 'c', value: Uint8Array.of(3) },
      { type: 'put', key: 'a', value: Uint8Array.of(0) },
    ])
    await store.batch([{ type: 'del', key: 'a' }], { sync: true })
    expect(await store.get('a')).toBeUndefined()
    expect(await store.get('b/1')).toEqual(Uint8Array.of(1))
    expect(await entries(store, prefixRange('b/'))).toEqual([
      ['b/1', [1]],
      ['b/2', [2]],
    ])
    expect(await entries(store, { reverse: true, limit: 1 })).toEqual([['c', [3]]])
    expect(await entries(store, { gt: 'b/1', lte: 'b/2' })).toEqual([['b/2', [2]]])
    await store.close()
    await expect(store.get('c')).rejects.toMatchObject({ code: 'store/closed' })
  })

  test('a value that was read is the reader’s own', async () => {
    const store = await open()
    const value = Uint8Array.of(7)
    await store.batch([{ type: 'put', key: 'k', value }])
    const first = (await store.get('k')) as Uint8Array
    first[0] = 9
    expect(await store.get('k')).toEqual(Uint8Array.of(7))
    await store.close()
  })
})

test('level orders keys as memory does, whatever the characters', async () => {
  const [level, memory] = [await openLevelStore(folder()), openMemoryStore()]
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 4 }), { maxLength: 20 }),
      async (keys) => {
        const operations = keys.map((key, i) => ({ type: 'put', key, value: Uint8Array.of(i) }) as const)
        await level.batch(operations)
        await memory.batch(operations)
        expect(await entries(level, {})).toEqual(await entries(memory, {}))
      },
    ),
    { numRuns: 40, seed: 1 },
  )
  await level.close()
})

describe('level', () => {
  test('a second opener is told that the folder is in use', async () => {
    const path = folder()
    const store = await openLevelStore(path)
    await expect(openLevelStore(path)).rejects.toMatchObject({ code: 'store/locked' })
    await store.close()
  })

  test('makes its folder for the owner alone', async () => {
    const path = join(folder(), 'state', 'db')
    const store = await openLevelStore(path)
    expect(statSync(path).mode & 0o077).toBe(0)
    await store.close()
  })

  test('says that it is damaged', async () => {
    const path = folder()
    const store = await openLevelStore(path)
    await store.batch([{ type: 'put', key: 'k', value: Uint8Array.of(1) }], { sync: true })
    await store.close()
    for (const file of readdirSync(path).filter((f) => f.startsWith('MANIFEST'))) unlinkSync(join(path, file))
    await expect(openLevelStore(path)).rejects.toMatchObject({
      code: expect.stringMatching(/^store\/(corrupt|failed)$/),
    })
  })

  test('a full disk is a coded error, keeps what was written, and passes by itself', async ({ skip }) => {
    if (spawnSync('unshare', ['-rm', 'true']).status !== 0) skip('skipped: no mount namespaces here (unshare -rm)')
    const program = await bundleProgram('test/store/full-disk-child.ts')
    const mount = folder()
    const script = `mount -t tmpfs -o size=4m none ${mount} && exec ${process.execPath} ${program} ${mount}`
    const { stdout, stderr } = spawnSync('unshare', ['-rm', 'sh', '-c', script], { encoding: 'utf8' })
    expect(stderr).toBe('')
    const { told, kept, recovered, length } = JSON.parse(stdout) as Record<string, unknown>
    expect(told).toEqual(['store/full', expect.stringMatching(/^store\/(full|failed)$/)])
    expect(kept).toEqual([1])
    expect({ recovered, length }).toEqual({ recovered: true, length: 100_000 })
  })
})

describe('records', () => {
  test('plain data come back as they went in', () => {
    const value = {
      map: new Map<unknown, unknown>([[1, new Uint8Array([1, 2])]]),
      list: [{ a: 1 }, { a: 2 ** 40 }],
      big: 2n ** 60n,
      none: null,
      bytes: new Uint8Array(0),
    }
    expect(decodeRecord(encodeRecord(value))).toEqual(value)
  })

  test('anything else is an error of the store', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        try {
          decodeRecord(bytes)
        } catch (error) {
          expect(error).toMatchObject({ code: 'store/corrupt' })
        }
      }),
      { numRuns: 500, seed: 1 },
    )
  })
})
