/** Run on a 4 MiB file system by store.test.ts: fills the disk below a store, frees it, and tells what happened. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openLevelStore } from '../../store/level.ts'

const root = process.argv[2] as string
const store = await openLevelStore(join(root, 'db'))
await store.batch([{ type: 'put', key: 'kept', value: Uint8Array.of(1) }], { sync: true })
try {
  writeFileSync(join(root, 'ballast'), new Uint8Array(8 << 20))
} catch {
  // The disk is full now.
}
const put = { type: 'put', key: 'new', value: new Uint8Array(100_000) } as const
const told: string[] = []
for (let i = 0; i < 2; i++) {
  await store.batch([put], { sync: true }).then(
    () => told.push('written'),
    (error: { code: string }) => told.push(error.code),
  )
}
const kept = [...((await store.get('kept')) ?? [])]
rmSync(join(root, 'ballast'))
let recovered = false
for (let i = 0; i < 50 && !recovered; i++) {
  recovered = await store.batch([put], { sync: true }).then(
    () => true,
    () => false,
  )
  if (!recovered) await new Promise((resolve) => setTimeout(resolve, 100))
}
const length = (await store.get('new'))?.length
await store.close()
console.log(JSON.stringify({ told, kept, recovered, length }))
