import { spawn } from 'node:child_process'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { SealedObject } from '../../device/sealed-object.ts'
import { SealedStore } from '../../device/sealed-store.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { createLogger, type Logger, silentLogger } from '../../runtime/log.ts'
import { openLevelStore } from '../../store/level.ts'
import { openMemoryStore } from '../../store/memory.ts'
import { encodeRecord } from '../../store/records.ts'
import type { Store } from '../../store/store.ts'
import { bundleProgram } from '../child-program.ts'
import { memoryFolder } from './fixtures.ts'

function object(seq: number, iat = 1000, path = '/s/x'): SealedObject {
  const signed = new Uint8Array(180).fill(seq & 255)
  return { path, seq, sid: Uint8Array.of(1), session: 1, iat, signed, encrypt0: new Uint8Array(80) }
}

function open(
  store: Store,
  more: { strict?: boolean; queueCapacity?: number; log?: Logger } = {},
): Promise<SealedStore> {
  return SealedStore.open({ store, log: silentLogger, strict: false, queueCapacity: 1000, ...more })
}

const seqs = async (objects: SealedStore, limit = 1000): Promise<number[]> =>
  (await objects.backlog(limit)).map((o) => o.seq)

describe('sealed objects', () => {
  test('the newest is served at once, the queue is written together, and both survive', async () => {
    const store = openMemoryStore()
    const first = await open(store)
    for (let seq = 1; seq <= 5; seq++) await first.add(object(seq), { latest: true })
    expect(first.latest('/s/x')?.seq).toBe(5)
    expect((await open(store)).latest('/s/x')).toBeUndefined()
    await first.commit()
    const second = await open(store)
    expect(second.latest('/s/x')?.seq).toBe(5)
    expect(second.queued).toBe(5)
    expect(await seqs(second)).toEqual([1, 2, 3, 4, 5])
  })

  test('strict: on the disk before it is served', async () => {
    const store = openMemoryStore()
    await (await open(store, { strict: true })).add(object(1), { latest: true })
    expect((await open(store)).latest('/s/x')?.seq).toBe(1)
  })

  test('what the proxy took before the commit is never written', async () => {
    const written: string[] = []
    const memory = openMemoryStore()
    const store: Store = {
      ...memory,
      batch: (operations, options) => {
        written.push(...operations.filter((o) => o.type === 'put').map((o) => o.key))
        return memory.batch(operations, options)
      },
    }
    const objects = await open(store)
    await objects.add(object(1), { latest: true })
    const live = objects.live(0)
    expect(live?.seq).toBe(1)
    objects.done(live as never)
    await objects.commit()
    expect(written).toEqual(['o//s/x'])
    expect(objects.queued).toBe(0)
  })

  test('the queue is a ring: the oldest go first, and are counted', async () => {
    const objects = await open(openMemoryStore(), { queueCapacity: 10 })
    for (let seq = 1; seq <= 25; seq++) await objects.add(object(seq), { latest: true })
    await objects.commit()
    await objects.commit()
    expect(objects.dropped).toBe(15)
    expect(await seqs(objects)).toEqual([16, 17, 18, 19, 20, 21, 22, 23, 24, 25])
  })

  test('a disk that cannot be read for once does not end all writing', async () => {
    const memory = openMemoryStore()
    let unreadable = false
    const store: Store = {
      ...memory,
      range: (options) => {
        if (unreadable) throw new IotchainError('store/failed', 'cannot be read')
        return memory.range(options)
      },
    }
    const objects = await open(store, { queueCapacity: 2 })
    for (let seq = 1; seq <= 4; seq++) await objects.add(object(seq), { latest: true })
    unreadable = true
    await objects.commit().catch(() => undefined)
    unreadable = false
    await objects.add(object(5), { latest: true })
    await objects.commit()
    await objects.commit()
    expect(await seqs(await open(memory))).toEqual([4, 5])
  })

  test('a queued record that cannot be read is left out, told once, and holds nothing up', async () => {
    const store = openMemoryStore()
    const first = await open(store)
    for (let seq = 1; seq <= 6; seq++)
      await first.add(object(seq, 1000, seq % 2 === 0 ? '/s/y' : '/s/x'), { latest: true })
    await first.close()
    const key = (seq: number) => `u/${seq.toString(16).padStart(12, '0')}`
    const other = await store.get(key(6))
    await store.batch([
      // cut short, no record at all, the record of another number
      { type: 'put', key: key(1), value: (await store.get(key(1)))!.subarray(0, 20) },
      { type: 'put', key: key(2), value: encodeRecord(7) },
      { type: 'put', key: key(3), value: other! },
    ])
    const lines: string[] = []
    const log = createLogger({ name: 'device', write: (line) => lines.push(line) })
    const forgetting = await open(store, { log })
    await forgetting.forget('/s/x')
    expect(await seqs(forgetting)).toEqual([4, 6])
    expect(forgetting.latest('/s/x')).toBeUndefined()
    await forgetting.close()
    expect(lines.filter((line) => line.includes('cannot be read'))).toHaveLength(1)
    expect((await open(store)).queued).toBe(2)
  })

  test('unreadable records at the head of the queue do not hide what is behind them', async () => {
    const store = openMemoryStore()
    const first = await open(store)
    for (let seq = 1; seq <= 5; seq++) await first.add(object(seq), { latest: true })
    await first.close()
    for (const seq of [1, 2, 3])
      await store.batch([{ type: 'put', key: `u/00000000000${seq}`, value: encodeRecord({}) }])
    const objects = await open(store)
    expect(await seqs(objects, 1)).toEqual([4])
    expect(await seqs(objects, 2)).toEqual([4, 5])
    await objects.commit()
    expect(objects.queued).toBe(2)
  })

  test('a full disk loses the oldest beyond memory, says so, and passes', async () => {
    const memory = openMemoryStore()
    let full = true
    const store: Store = {
      ...memory,
      batch: (operations, options) =>
        full ? Promise.reject(new IotchainError('store/full', 'full')) : memory.batch(operations, options),
    }
    const objects = await open(store)
    for (let seq = 1; seq <= 2000; seq++) await objects.add(object(seq), { latest: true })
    await objects.commit()
    expect(objects.lastError).toMatchObject({ code: 'store/full' })
    // A restart makes no room: the watchdog goes on being fed.
    expect(objects.hangs(Number.POSITIVE_INFINITY)).toBe(false)
    expect(objects.latest('/s/x')?.seq).toBe(2000)
    expect(objects.queued).toBeLessThanOrEqual(512)
    full = false
    await objects.commit()
    expect(objects.lastError).toBeUndefined()
    expect((await seqs(objects)).at(-1)).toBe(2000)
  })

  test('a write that does not come back is told to the watchdog', async () => {
    const memory = openMemoryStore()
    let finish = (): void => undefined
    const store: Store = { ...memory, batch: () => new Promise<void>((done) => (finish = done)) }
    const objects = await open(store)
    await objects.add(object(1), { latest: true })
    const writing = objects.commit()
    await expect.poll(() => objects.hangs(performance.now() + 130_000)).toBe(true)
    expect(objects.hangs()).toBe(false)
    finish()
    await writing
    expect(objects.hangs(Number.POSITIVE_INFINITY)).toBe(false)
  })

  test('whatever is added, taken and restarted: nothing twice, nothing lost, in order', async () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('add' as const), count: fc.integer({ min: 1, max: 20 }) }),
      fc.record({ do: fc.constant('live' as const), count: fc.integer({ min: 1, max: 5 }) }),
      fc.record({ do: fc.constant('backlog' as const), count: fc.integer({ min: 1, max: 8 }) }),
      fc.record({ do: fc.constant('commit' as const), count: fc.constant(1) }),
      fc.record({ do: fc.constant('restart' as const), count: fc.constant(1) }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const store = openMemoryStore()
        let objects = await open(store)
        let next = 1
        const waiting = new Set<number>()
        const take = (seq: number): void => {
          expect(waiting.delete(seq)).toBe(true)
        }
        for (const { do: what, count } of steps) {
          if (what === 'add') {
            for (let i = 0; i < count; i++) {
              waiting.add(next)
              await objects.add(object(next++), { latest: true })
            }
          } else if (what === 'commit') await objects.commit()
          else if (what === 'restart') {
            await objects.close()
            objects = await open(store)
          } else if (what === 'live') {
            for (let i = 0; i < count; i++) {
              const found = objects.live(0)
              if (found === undefined) break
              take(found.seq)
              objects.done(found)
            }
          } else {
            const found = await objects.backlog(count)
            expect(found.map((o) => o.seq)).toEqual([...found.map((o) => o.seq)].sort((a, b) => a - b))
            for (const o of found) {
              take(o.seq)
              objects.done(o)
            }
          }
          expect(objects.queued).toBe(waiting.size)
        }
        expect(await seqs(objects)).toEqual([...waiting].sort((a, b) => a - b))
        await objects.close()
      }),
      { numRuns: 60, seed: 1 },
    )
  })

  test('the power is cut at any moment, six times: the store opens, whole objects only, none before the last commit missing', async () => {
    const program = await bundleProgram('test/device/sealed-store-child.ts')
    const folder = join(memoryFolder(), 'db')
    let highest = 0
    for (let cut = 0; cut < 6; cut++) {
      const child = spawn(process.execPath, [program, folder, String(highest + 1)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      let output = ''
      await new Promise<void>((resolve) => {
        child.stdout.on('data', (data: Buffer) => {
          output += data.toString()
          if (output.length > 40 + ((cut * 131) % 400)) child.kill('SIGKILL')
        })
        child.on('close', () => resolve())
      })
      const committed = output.split('\n').slice(0, -1).map(Number)
      const store = await openLevelStore(folder)
      const objects = await open(store, { queueCapacity: 1_000_000 })
      const found = await objects.backlog(1_000_000)
      const set = new Set(found.map((o) => o.seq))
      for (const seq of committed) expect(set.has(seq), `object ${seq} after cut ${cut}`).toBe(true)
      for (const o of found) expect(o.signed.every((octet) => octet === (o.seq & 255))).toBe(true)
      highest = Math.max(highest, ...set)
      await store.close()
    }
    expect(highest).toBeGreaterThan(20)
  }, 90_000)
})
