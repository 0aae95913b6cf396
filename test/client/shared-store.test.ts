import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SharedStore } from '../../client/shared-store.ts'
import { utf8 } from '../../protocol/bytes.ts'
import { openLevelStore } from '../../store/level.ts'

describe('a state folder shared by several commands', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'iotchain-shared-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  test('two stores on one folder see each other, and count without losing a step', async () => {
    const stores = [new SharedStore(folder, { idleMs: 1 }), new SharedStore(folder, { idleMs: 1 })]
    const increment = (shared: SharedStore): Promise<void> =>
      shared.exclusively(async (store) => {
        const before = (await store.get('n'))?.[0] ?? 0
        await new Promise((resolve) => setTimeout(resolve, 1))
        await store.batch([{ type: 'put', key: 'n', value: Uint8Array.of(before + 1) }])
      })
    for (let round = 0; round < 5; round++) await Promise.all(stores.map(increment))
    expect(new Uint8Array((await stores[0]!.get('n'))!)).toEqual(Uint8Array.of(10))
    await Promise.all(stores.map((s) => s.close()))
  })

  test('work of one store in parallel loses nothing', async () => {
    const shared = new SharedStore(folder, { idleMs: 1 })
    await Promise.all(
      Array.from({ length: 20 }, () =>
        shared.exclusively(async (store) => {
          const before = (await store.get('m'))?.[0] ?? 0
          await store.batch([{ type: 'put', key: 'm', value: Uint8Array.of(before + 1) }])
        }),
      ),
    )
    expect(new Uint8Array((await shared.get('m'))!)).toEqual(Uint8Array.of(20))
    const entries: string[] = []
    for await (const [key] of shared.range({ gte: 'm', lte: 'n' })) entries.push(key)
    expect(entries).toEqual(['m', 'n'])
    await shared.close()
  })

  test('a folder held by another for good is reported after the patience', async () => {
    const other = await openLevelStore(folder)
    const shared = new SharedStore(folder, { patienceMs: 30 })
    await expect(shared.get('n')).rejects.toMatchObject({ code: 'store/locked' })
    await other.batch([{ type: 'put', key: 'x', value: utf8('x') }])
    await other.close()
    expect(new Uint8Array((await shared.get('x'))!)).toEqual(utf8('x'))
    await shared.close()
  })
})
