import { expect, test } from 'vitest'
import { Archive } from '../../keyserver/archive.ts'
import type { Group } from '../../keyserver/group.ts'
import { Key, Storage } from '../../keyserver/storage.ts'
import { openMemoryStore } from '../../store/memory.ts'

const NAME = '0011223344556677'

test('what a failing store kept goes with the next broadcast', async () => {
  const memory = openMemoryStore()
  let failing = false
  const store: typeof memory = Object.assign(Object.create(memory), {
    batch: (operations: Parameters<typeof memory.batch>[0]) => {
      if (failing) return Promise.reject(new Error('the disk refuses'))
      return memory.batch(operations)
    },
  })
  const archive = new Archive(new Storage(store), 250)
  const bytes = new Uint8Array(100)
  const publish = async (session: number): Promise<void> => {
    await memory.batch([{ type: 'put', key: Key.broadcast(NAME, session), value: bytes }])
    const group = { name: NAME, newest: { session, bytes }, manager: { windowStart: session } }
    await archive.trim(group as unknown as Group)
  }
  const kept = async (): Promise<number> => {
    let count = 0
    for await (const _ of memory.range({ gte: 'bc/', lt: 'bc0' })) count++
    return count
  }
  for (let session = 1; session <= 5; session++) await publish(session)
  expect(await kept()).toBe(3)
  failing = true
  for (let session = 6; session <= 8; session++) await expect(publish(session)).rejects.toThrow('refuses')
  expect(await kept()).toBe(6)
  failing = false
  await publish(9)
  expect(await kept()).toBe(3)
})
