/**
 * The whole system, told in order (IoTChain §II, Fig. 1): a sensor's reading goes to a client that holds a token, through
 * a device and through a proxy, and to nobody else. Every step is the real thing; `docs/` say what each one means.
 *
 *   npm run demo -- [--json] [--keep] [--chain anvil|geth]
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { isIotchainError } from '../protocol/errors.ts'
import { type ChainKind, startChain } from './chain.ts'
import { Narrator } from './narrator.ts'
import { tellHowToPlay } from './play.ts'
import { ProcessTree } from './processes.ts'
import { Reader } from './reader.ts'
import {
  admission,
  deviceJoins,
  healing,
  joinAndHear,
  outsider,
  readDirectly,
  readThroughProxy,
  revocation,
} from './scenes.ts'
import { readerOf, setUpDaemons, setUpOwner, startDaemons } from './stage.ts'

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    chain: { type: 'string', default: 'anvil' },
    help: { type: 'boolean', default: false },
  },
})
if (options.help) {
  console.log(
    'npm run demo -- [--json: one result line] [--keep: leave it running, with commands to play] [--chain anvil|geth]',
  )
  process.exit(0)
}

if (options.chain !== 'anvil' && options.chain !== 'geth') {
  console.error(`the demo knows no chain "${options.chain}": anvil or geth`)
  process.exit(2)
}
const kind: ChainKind = options.chain

const narrator = new Narrator(options)
const tree = new ProcessTree()
const folder = await mkdtemp(join(tmpdir(), 'iotchain-demo-'))
const readers: Reader[] = []

async function story(): Promise<void> {
  narrator.line('IoTChain: a chain, a key server, a device, a proxy, client A and client B, all on this host')

  const chain = await narrator.step(
    'chain',
    'A chain',
    () => startChain(tree, kind),
    (c) => `${c.what}, chain id ${c.chainId}, a block a second`,
  )
  const set = await narrator.step(
    'contracts',
    'The resource owner deploys its contracts and founds a certification authority',
    () => setUpOwner(folder, chain),
    (s) => `DeviceRegistry ${s.registry}, AccessToken ${s.contract}`,
  )
  const stage = await narrator.step(
    'registration',
    'The device makes its keys and signs its registration; the owner submits it and publishes an offer',
    () => setUpDaemons(folder, chain, set),
    (s) => `device ${s.device} is registered; tokens for it cost a puzzle`,
  )
  await narrator.step(
    'daemons',
    'Key server, proxy and device start',
    () => startDaemons(tree, stage.configs),
    () => tree.names.filter((n) => n !== kind).join(', '),
  )
  const view = readerOf(stage)
  const [keyA, keyB] = chain.clientKeys
  const a = new Reader('client A', keyA, stage, view)
  const b = new Reader('client B', keyB, stage, view)
  readers.push(a, b)

  await admission(narrator, stage, view, a)
  await deviceJoins(narrator, stage, a)
  await joinAndHear(narrator, a)
  await readDirectly(narrator, a)
  await readThroughProxy(narrator, a)
  await healing(narrator, a)
  await outsider(narrator, a, b)
  await revocation(narrator, stage, a)
  narrator.table()
  if (options.keep) await tellHowToPlay(narrator, stage)
}

async function cleanUp(): Promise<void> {
  await Promise.all(readers.map((r) => r.close().catch(() => undefined)))
  await tree.stop()
  await rm(folder, { recursive: true, force: true })
}

const interrupted = new Promise<never>((_, stop) => {
  const end = (signal: string) => () => stop(new Error(`stopped by ${signal}`))
  process.once('SIGINT', end('Ctrl-C'))
  process.once('SIGTERM', end('SIGTERM'))
})
const ended = new Promise<never>((_, failed) => {
  tree.onUnexpectedEnd = (name, last) => failed(new Error(`${name} ended unexpectedly:\n  ${last.join('\n  ')}`))
})
interrupted.catch(() => undefined)
ended.catch(() => undefined)

let failure: unknown
try {
  await Promise.race([story(), interrupted, ended])
  if (options.keep) {
    narrator.line('everything stays up; Ctrl-C stops it')
    await Promise.race([interrupted, ended]).catch(() => undefined)
  }
} catch (error) {
  failure = error
}
await cleanUp()
if (failure !== undefined) {
  const text = failure instanceof Error ? failure.message : String(failure)
  const hint = isIotchainError(failure) && failure.hint !== undefined ? ` (${failure.hint})` : ''
  if (!options.json) console.error(`\nthe demo failed: ${text}${hint}`)
  narrator.result(false, text)
} else narrator.result(true)
process.exit(failure === undefined ? 0 : 1)
