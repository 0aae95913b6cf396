/**
 * `npm run test:second [-- --rounds N --seed N --lives N] [--no-live]`: an implementation of docs/protocol.md in another language (Python, this
 * folder) and this one: vectors, random data both ways, damaged data, running daemons. Last line `N passed, N failed`.
 */
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Random } from '../adversary/random.ts'
import { onPath, PeerMissing, packageRoot } from '../peers/install.ts'
import { cborCells, contentCells, ethereumCells, messageCells } from './codec-cells.ts'
import { groupCells } from './group-cells.ts'
import { liveCells } from './live-cells.ts'
import { credentialCells, judgementCells, sealCells, verifyCells } from './object-cells.ts'
import { Second } from './peer.ts'
import { type Stand, Tally } from './tally.ts'

const SHOWN_FAILURES = 40

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '100' },
    lives: { type: 'string', default: '16' },
    seed: { type: 'string', default: String(Math.floor(Date.now() / 1000)) },
    live: { type: 'boolean', default: true },
  },
  allowNegative: true,
})

interface Replayed {
  readonly counts: Readonly<Record<string, number>>
  readonly failed: readonly string[]
}

async function vectors(second: Second, tally: Tally): Promise<void> {
  const file = join(packageRoot(), 'test', 'vectors', 'groups-and-objects.json')
  const { counts, failed } = await second.command<Replayed>({ op: 'vectors', file })
  for (const what of failed) tally.check('vectors', false, () => what)
  for (const [kind, count] of Object.entries(counts)) {
    const bad = failed.filter((what) => what.startsWith(`${kind}: `)).length
    for (let n = bad; n < count; n++) tally.check(`vectors: ${kind}`, true, () => '')
  }
}

async function everything(second: Second, tally: Tally): Promise<void> {
  const random = new Random(Number(values.seed))
  const stand: Stand = { second, tally, random, rounds: Number(values.rounds) }
  await vectors(second, tally)
  await cborCells(stand)
  await messageCells(stand)
  await contentCells(stand)
  await ethereumCells(stand)
  await groupCells(stand, Number(values.lives))
  await sealCells(stand)
  await credentialCells(stand)
  await verifyCells(stand)
  await judgementCells(stand)
  if (!values.live) return
  if (onPath('openssl') === undefined) console.log('skipped: running daemons: openssl is not installed')
  else console.log(`with running daemons: ${await liveCells(second, tally)}`)
}

async function main(): Promise<number> {
  let second: Second
  try {
    second = await Second.start()
  } catch (error) {
    if (!(error instanceof PeerMissing)) throw error
    console.log(`skipped: ${error.message}`)
    return 0
  }
  const tally = new Tally()
  console.log(`seed ${values.seed}`)
  try {
    await everything(second, tally)
  } catch (error) {
    tally.check('the run', false, () => String(error instanceof Error ? error.stack : error))
  } finally {
    await second.stop()
  }
  for (const [title, count] of tally.counts) console.log(`${String(count).padStart(7)}  ${title}`)
  for (const failure of tally.failures.slice(0, SHOWN_FAILURES)) console.log(`FAILED ${failure}`)
  console.log(`${tally.passed} passed, ${tally.failures.length} failed`)
  return tally.failures.length === 0 ? 0 : 1
}

process.exitCode = await main()
