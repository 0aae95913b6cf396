/**
 * The power fails at random moments. After each cut the store recovers and the device seals again; over all of them no
 * (sid, seq) pair stands for two objects, and every object verifies and opens.
 */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { fetchObject } from '../../client/fetch.ts'
import type { Reader } from '../../demo/reader.ts'
import type { Stage } from '../../demo/stage.ts'
import { toHex } from '../../protocol/bytes.ts'
import { parseHeader } from '../../protocol/objects/parse.ts'
import { bootAmd64, type Parts, READY_LIMIT_MS, START_DEVICE } from './amd64-machine.ts'
import { eventually, type Report } from './report.ts'
import { plugGpio, plugSensors } from './simulated-hardware.ts'

export interface PowerCutOptions {
  readonly report: Report
  readonly parts: Parts
  readonly stage: Stage
  readonly reader: Reader
  readonly work: string
  readonly disk: string
  readonly cuts: number
}

const WATCHED = ['air', 'pressure', 'board']

export async function powerCuts(options: PowerCutOptions): Promise<void> {
  const { report, parts, stage, reader, work, disk, cuts } = options
  const seen = new Map<string, string>()
  let twice = 0
  let unverified = 0
  let recovered = 0
  const take = async (name: string, via: 'device' | 'proxy'): Promise<void> => {
    const place = { ...(via === 'device' ? await reader.atDevice() : await reader.atProxy()), path: ['s', name] }
    const bytes = await fetchObject(place, { timeoutMs: 2000 })
    if (bytes === undefined) return
    const { sid, seq } = parseHeader(bytes)
    const pair = `${toHex(sid)} ${seq}`
    const digest = createHash('sha256').update(bytes).digest('hex')
    const known = seen.get(pair)
    if (known === digest) return
    if (known !== undefined) twice++
    seen.set(pair, digest)
    await reader.library
      .open(bytes, { device: place.device, path: place.path, form: 'signed', kind: 'past' })
      .catch((error: unknown) => {
        unverified++
        report.say(`not opened: ${error instanceof Error ? error.message : error}`)
      })
  }

  for (let cut = 1; cut <= cuts; cut++) {
    const { machine, shell } = await bootAmd64(parts, { work, disk, deviceUri: stage.deviceUri })
    try {
      await plugGpio(shell)
      await plugSensors(shell)
      await shell.run(START_DEVICE)
      const before = seen.size
      await eventually(READY_LIMIT_MS, async () => {
        await take('air', 'device')
        if (seen.size === before) throw new Error('no new object yet')
      })
      recovered++
      const until = Date.now() + Math.random() * 4000
      while (Date.now() < until) {
        for (const name of WATCHED) {
          await take(name, 'device').catch(() => undefined)
          await take(name, 'proxy').catch(() => undefined)
        }
        await sleep(50)
      }
      report.say(`cut ${cut} of ${cuts}: ${seen.size} objects so far`)
    } finally {
      await machine.kill()
    }
  }
  report.check('the store recovers from every power cut', recovered === cuts, `${recovered} of ${cuts}`)
  report.check(
    'no (sid, seq) stands for two objects',
    twice === 0 && seen.size > cuts,
    `${seen.size} objects, ${twice} twice`,
  )
  report.check('every object verifies and opens', unverified === 0, `${unverified} did not`)
}
