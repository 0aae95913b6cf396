import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Address } from '../../protocol/messages/address.ts'
import { type ArchiveLimits, ObjectArchive, type StoredObject } from '../../proxy/archive.ts'
import { openLevelStore } from '../../store/level.ts'
import { openMemoryStore } from '../../store/memory.ts'

const DEVICE: Address = `0x${'ab'.repeat(20)}`
const LIMITS: ArchiveLimits = {
  devices: 2,
  resourcesPerDevice: 2,
  historyBytesPerDevice: 10_000,
  historyKeepSeconds: 1000,
}

function object(seq: number, iat = seq, octets = 100, sid = 1): StoredObject {
  const bytes = new Uint8Array(octets).fill(seq & 255)
  return { bytes, etag: bytes.slice(0, 8), gid: new Uint8Array(8), session: 1, sid: Uint8Array.of(sid), seq, iat }
}

const seqs = (entries: readonly { seq: number }[]): number[] => entries.map((e) => e.seq)

describe('the archive', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'iotchain-archive-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  test('a superseded object becomes a past one, found by time and by place', async () => {
    const archive = await ObjectArchive.open(openMemoryStore(), LIMITS)
    for (const seq of [1, 2, 3]) await archive.putLatest(DEVICE, '/s/temp', object(seq))
    expect(archive.resource(DEVICE, '/s/temp')?.latest?.seq).toBe(3)
    expect(seqs(await archive.list(DEVICE, '/s/temp', 0, 10))).toEqual([1, 2])
    expect(seqs(await archive.list(DEVICE, '/s/temp', 2, 2))).toEqual([2])
    expect((await archive.past(DEVICE, '/s/temp', 'object', Uint8Array.of(1), 2))?.bytes).toEqual(object(2).bytes)
    expect(await archive.list(DEVICE, '/s', 0, 10)).toEqual([])
  })

  test('everything is there again after a restart', async () => {
    const store = await openLevelStore(join(folder, 'restart'))
    const archive = await ObjectArchive.open(store, LIMITS)
    await archive.putLatest(DEVICE, '/s/temp', object(1))
    await archive.putLatest(DEVICE, '/s/temp', object(2))
    await archive.putPast(DEVICE, '/s/temp', 'pack', object(7, 7, 300))
    await store.close()
    const again = await openLevelStore(join(folder, 'restart'))
    const reopened = await ObjectArchive.open(again, LIMITS)
    const latest = reopened.resource(DEVICE, '/s/temp')?.latest
    expect(latest?.seq).toBe(2)
    expect(Buffer.compare(latest!.bytes, object(2).bytes)).toBe(0)
    expect((await reopened.pack(DEVICE, '/s/temp', 7))?.bytes.length).toBe(300)
    expect(reopened.resources(DEVICE).map((r) => r.resource)).toEqual(['/s/temp'])
    await again.close()
  })

  test('quotas of devices and resources', async () => {
    const archive = await ObjectArchive.open(openMemoryStore(), LIMITS)
    await archive.putLatest(DEVICE, '/a', object(1))
    await archive.putLatest(DEVICE, '/b', object(2))
    expect(() => archive.assertRoom(DEVICE, '/c')).toThrow(expect.objectContaining({ code: 'proxy/quota' }))
    archive.assertRoom(DEVICE, '/b')
    const other: Address = `0x${'01'.repeat(20)}`
    await archive.putLatest(other, '/a', object(1))
    const third: Address = `0x${'02'.repeat(20)}`
    expect(() => archive.assertRoom(third, '/a')).toThrow(expect.objectContaining({ code: 'proxy/quota' }))
  })

  test('the oldest go when a device has more than its share, and when they are too old', async () => {
    const archive = await ObjectArchive.open(openMemoryStore(), { ...LIMITS, historyBytesPerDevice: 2000 })
    for (let seq = 1; seq <= 100; seq++) await archive.putLatest(DEVICE, '/s/temp', object(seq))
    const kept = seqs(await archive.list(DEVICE, '/s/temp', 0, 1000))
    expect(kept.length).toBeLessThanOrEqual(20)
    expect(kept.at(-1)).toBe(99)
    await archive.expire(1095)
    expect(seqs(await archive.list(DEVICE, '/s/temp', 0, 2000)).every((s) => s >= 95)).toBe(true)
    expect(archive.resource(DEVICE, '/s/temp')?.latest?.seq).toBe(100)
  })

  test('a tombstone deletes what is before it and nothing else', async () => {
    const archive = await ObjectArchive.open(openMemoryStore(), LIMITS)
    for (const seq of [1, 2, 3]) await archive.putLatest(DEVICE, '/s/temp', object(seq))
    await archive.putPast(DEVICE, '/s/temp', 'pack', object(2, 2, 50))
    await archive.putLatest(DEVICE, '/s/other', object(1))
    await archive.putGone(DEVICE, '/s/temp', object(3, 3), (p) => p.seq < 3)
    expect(seqs(await archive.list(DEVICE, '/s/temp', 0, 10))).toEqual([])
    expect(archive.resource(DEVICE, '/s/temp')).toMatchObject({ latest: { seq: 3 }, gone: { seq: 3 } })
    await archive.putGone(DEVICE, '/s/temp', object(9, 9), (p) => p.seq < 9)
    expect(archive.resource(DEVICE, '/s/temp')).toMatchObject({ latest: undefined, gone: { seq: 9 } })
    expect(archive.resource(DEVICE, '/s/other')?.latest?.seq).toBe(1)
  })

  test('property: what is listed is what was put, minus what was dropped; the size kept is the sum', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ seq: fc.integer({ min: 0, max: 50 }), octets: fc.integer({ min: 1, max: 400 }) }), {
          maxLength: 40,
        }),
        async (puts) => {
          const archive = await ObjectArchive.open(openMemoryStore(), LIMITS)
          const known = new Set<number>()
          for (const { seq, octets } of puts) {
            if (known.has(seq)) continue
            known.add(seq)
            await archive.putPast(DEVICE, '/p', 'object', object(seq, seq, octets))
          }
          const listed = await archive.list(DEVICE, '/p', 0, 100)
          expect(listed.every((e) => known.has(e.seq))).toBe(true)
          expect(seqs(listed)).toEqual([...seqs(listed)].sort((a, b) => a - b))
          expect(listed.reduce((sum, e) => sum + e.octets, 0)).toBeLessThanOrEqual(LIMITS.historyBytesPerDevice)
        },
      ),
      { numRuns: 30, seed: 7 },
    )
  })

  test('a full disk refuses the object and leaves the one before', async () => {
    const store = openMemoryStore()
    let full = false
    const failing = {
      ...store,
      batch: (...args: Parameters<typeof store.batch>) =>
        full ? Promise.reject(Object.assign(new Error('full'), { code: 'store/full' })) : store.batch(...args),
    }
    const archive = await ObjectArchive.open(failing, LIMITS)
    await archive.putLatest(DEVICE, '/s/temp', object(1))
    full = true
    await expect(archive.putLatest(DEVICE, '/s/temp', object(2))).rejects.toThrow('full')
    expect(archive.resource(DEVICE, '/s/temp')?.latest?.seq).toBe(1)
    full = false
    await archive.putLatest(DEVICE, '/s/temp', object(3))
    expect(seqs(await archive.list(DEVICE, '/s/temp', 0, 10))).toEqual([1])
  })
})
