/** Run by sealed-store.test.ts: adds objects, and prints the number of each that must survive a cut of the power. */
import { writeSync } from 'node:fs'
import { SealedStore } from '../../device/sealed-store.ts'
import { silentLogger } from '../../runtime/log.ts'
import { openLevelStore } from '../../store/level.ts'

const [, , folder, first] = process.argv as [string, string, string, string]
const store = await openLevelStore(folder)
const objects = await SealedStore.open({ store, log: silentLogger, strict: true, queueCapacity: 1_000_000 })
for (let seq = Number(first); ; seq++) {
  const signed = new Uint8Array(180).fill(seq & 255)
  const object = {
    path: '/s/x',
    seq,
    sid: Uint8Array.of(1),
    session: 1,
    iat: 1000,
    signed,
    encrypt0: new Uint8Array(80),
  }
  await objects.add(object, { latest: true })
  writeSync(1, `${seq}\n`)
}
