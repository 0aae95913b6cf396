/**
 * The power fails at random moments: while the device serves, and while it comes back from the cut before. Each time
 * the store recovers and the device seals again; over all of them no (sid, seq) pair stands for two objects, and every
 * object verifies and opens.
 */
import { createHash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fetchObject } from '../../client/fetch.ts'
import type { Reader } from '../../demo/reader.ts'
import { READERS, type Stage } from '../../demo/stage.ts'
import { toHex } from '../../protocol/bytes.ts'
import { parseHeader } from '../../protocol/objects/parse.ts'
import { bootAmd64, type Parts, READY_LIMIT_MS, START_DEVICE } from './amd64-machine.ts'
import { eventually, type Report } from './report.ts'

export interface PowerCutOptions {
  readonly report: Report
  readonly parts: Parts
  readonly stage: Stage
  readonly reader: Reader
  readonly work: string
  readonly disk: string
  readonly cuts: number
}

const WATCHED = ['first', 'second', 'third']
/** Each so many-th cut does not wait for the device to be back from the one before. */
const EARLY_EVERY = 4
const EARLY_MS = 15_000
const SERVING_MS = 4000

/** What the device and its proxy have shown, over all cuts. */
class SeenObjects {
  readonly #reader: Reader
  readonly #report: Report
  readonly #digests = new Map<string, string>()
  twice = 0
  unverified = 0

  constructor(reader: Reader, report: Report) {
    this.#reader = reader
    this.#report = report
  }

  get count(): number {
    return this.#digests.size
  }

  async take(name: string, via: 'device' | 'proxy'): Promise<void> {
    const reader = this.#reader
    const place = { ...(via === 'device' ? await reader.atDevice() : await reader.atProxy()), path: ['s', name] }
    const bytes = await fetchObject(place, { timeoutMs: 2000 })
    if (bytes === undefined) return
    const { sid, seq } = parseHeader(bytes)
    const pair = `${toHex(sid)} ${seq}`
    const digest = createHash('sha256').update(bytes).digest('hex')
    const known = this.#digests.get(pair)
    if (known === digest) return
    if (known !== undefined) this.twice++
    this.#digests.set(pair, digest)
    await reader.library
      .open(bytes, { device: place.device, path: place.path, form: 'signed', kind: 'past' })
      .catch((error: unknown) => {
        this.unverified++
        this.#report.say(`not opened: ${error instanceof Error ? error.message : error}`)
      })
  }
}

export async function powerCuts(options: PowerCutOptions): Promise<void> {
  const { report, parts, stage, reader, work, disk, cuts } = options
  await manyReadings(parts)
  const seen = new SeenObjects(reader, report)
  let mayBeEarly = 0
  let recovered = 0
  // The last start follows the last cut.
  for (let start = 0; start <= cuts; start++) {
    const { machine, shell } = await bootAmd64(parts, { work, disk, deviceUri: stage.deviceUri })
    try {
      await shell.run(START_DEVICE)
      if (start < cuts && start % EARLY_EVERY === EARLY_EVERY - 1) {
        mayBeEarly++
        await sleep(Math.random() * EARLY_MS)
      } else {
        const before = seen.count
        await eventually(READY_LIMIT_MS, async () => {
          await seen.take(WATCHED[0] as string, 'device')
          if (seen.count === before) throw new Error(`no new object ${start === 0 ? 'at first' : `after cut ${start}`}`)
        })
        recovered++
        const until = Date.now() + (start < cuts ? Math.random() * SERVING_MS : SERVING_MS)
        while (Date.now() < until) {
          for (const name of WATCHED) {
            await seen.take(name, 'device').catch(() => undefined)
            await seen.take(name, 'proxy').catch(() => undefined)
          }
          await sleep(50)
        }
      }
    } finally {
      await machine.kill()
    }
    if (start < cuts) report.say(`cut ${start + 1} of ${cuts}: ${seen.count} objects so far`)
  }
  report.check(
    'the store recovers from every power cut, also from one during recovery',
    recovered === cuts + 1 - mayBeEarly,
    `${recovered} starts served, ${mayBeEarly} were cut without a wait`,
  )
  report.check(
    'no (sid, seq) stands for two objects',
    seen.twice === 0 && seen.count > cuts,
    `${seen.count} objects, ${seen.twice} twice`,
  )
  report.check('every object verifies and opens', seen.unverified === 0, `${seen.unverified} did not`)
}

/** Many writes, no hardware: the cuts hit the store as often as can be. */
async function manyReadings({ guest }: Parts): Promise<void> {
  const file = join(guest, 'conf/device.yaml')
  const config = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>
  const resources = WATCHED.map((name, seed) => ({
    ...{ path: `/s/${name}`, driver: 'simulated', seed, unit: 'Cel', group: READERS, every: '200ms' },
  }))
  await writeFile(file, JSON.stringify({ ...config, resources }))
}
