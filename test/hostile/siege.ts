/** Runs inside the daemons' namespace: starts the system, attacks every target, judges it. Started by main.ts. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { connect } from '../../transport/dtls/connect.ts'
import { asText, count, type Result } from '../interop/results.ts'
import { ATTACKS, type Attack, type Field } from './attacks.ts'
import type { DaemonProcess } from './daemon-process.ts'
import { seeded } from './datagrams.ts'
import { mutatedFlood, observerFlood, spoofedGets, uploadFlood } from './floods.ts'
import { Outside } from './honest.ts'
import { hostOf, rawSender, type Spoofed, sendSpoofed } from './raw.ts'
import { startSystem, type Target } from './system.ts'

const TABLE = 'Hostile packets, over a veth pair'
/** Log lines that an attack may cost: the daemons' own, and rate-limited ones. */
const LINES = 100
const MEMORY_FACTOR = 1.2
/** Half-open uploads are kept for two minutes, message IDs for four (EXCHANGE_LIFETIME); then V8 has to notice. */
const MEMORY_PATIENCE_MS = 400_000

/** The ClientHello that our own client sends. */
async function clientHello(): Promise<Buffer> {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const association = connect('127.0.0.1', socket.address().port, { expectSpki: Buffer.alloc(32) })
  association.opened.catch(() => {})
  const [hello] = (await once(socket, 'message')) as [Buffer]
  association.destroy()
  socket.close()
  return hello
}

function* first(datagrams: Iterable<Spoofed>, count: number): Iterable<Spoofed> {
  let i = 0
  for (const each of datagrams) {
    if (i++ >= count) return
    yield each
  }
}

/** What an hour of ordinary life brings: code compiled, heap grown, tables in use. Memory is compared with after this. */
async function warmUp(field: Field, target: Target): Promise<void> {
  const { outside, sender, hello } = field
  const random = seeded(99)
  await sendSpoofed(
    sender,
    outside.namespace,
    target.port,
    5000,
    first(spoofedGets(target, hello, hostOf(6, 6), 30_000, 200), 20_000),
  )
  for (const flood of target.secure ? [mutatedFlood] : [mutatedFlood, observerFlood, uploadFlood]) {
    const some = first(flood(target, random, hello), 5000)
    await sendSpoofed(sender, outside.namespace, target.port, 5000, some)
  }
  const wrong = await outside.get(target, field.system)
  if (wrong !== undefined) throw new Error(`${target.name} does not answer before any attack: ${wrong}`)
}

async function judged(field: Field, attack: Attack, target: Target): Promise<Pick<Result, 'status' | 'detail'>> {
  const { daemon } = target
  const { pid, lines } = daemon
  const began = performance.now()
  let remark: string
  try {
    const finding = await attack.run(field, target)
    if (finding.wrong !== undefined) return { status: 'failed', detail: finding.wrong }
    remark = finding.remark
  } catch (error) {
    return { status: 'failed', detail: error instanceof Error ? error.message : String(error) }
  }
  if (!daemon.alive) return { status: 'failed', detail: `the daemon died: ${daemon.lastWords}` }
  const wrong = await field.outside.get(target, field.system)
  if (wrong !== undefined) return { status: 'failed', detail: `afterwards it does not answer: ${wrong}` }
  if (!daemon.alive || daemon.pid !== pid) return { status: 'failed', detail: 'it is another process now' }
  const logged = daemon.lines - lines
  const seconds = (performance.now() - began) / 1000
  if (logged > LINES) return { status: 'failed', detail: `${logged} log lines; most: ${daemon.mostLogged}` }
  const figures = `${logged} log lines, ${daemon.rss().toFixed(0)} MiB, ${seconds.toFixed(0)} s`
  return { status: 'ok', detail: `${remark}; ${figures}` }
}

/** MiB of a daemon before the attacks. */
interface Start {
  /** Kept after a collection, before anything was sent to it. */
  readonly fresh: number
  /** The same after the warm-up. */
  readonly kept: number
  readonly rss: number
}

/** Memory comes back once the time of what was kept is over; an honest client now and then keeps the daemons busy. */
async function memoryReturns(
  field: Field,
  starts: ReadonlyMap<DaemonProcess, Start>,
  onResult: (result: Result) => void,
): Promise<void> {
  const end = performance.now() + MEMORY_PATIENCE_MS
  const waiting = new Map(starts)
  for (;;) {
    for (const [daemon, start] of waiting) {
      const kept = daemon.alive ? await daemon.keeps() : Number.POSITIVE_INFINITY
      const now = daemon.alive ? daemon.rss() : Number.POSITIVE_INFINITY
      const over = performance.now() >= end
      const back = now <= start.rss * MEMORY_FACTOR
      if (!back && !over && daemon.alive) continue
      waiting.delete(daemon)
      const status = back ? 'ok' : 'failed'
      const mib = (...values: number[]): string => `${values.map((value) => value.toFixed(1)).join(' → ')} MiB`
      const detail = `resident ${mib(start.rss, now)}, ${(now / start.rss).toFixed(2)}×; kept after a collection: fresh ${mib(start.fresh, start.kept, kept)}, ${(kept / start.kept).toFixed(2)}×`
      for (const { name } of field.system.targets.filter((target) => target.daemon === daemon)) {
        onResult({ table: TABLE, cell: 'memory back within 1.2× of the start', peer: name, status, detail })
      }
    }
    if (waiting.size === 0) return
    for (const target of field.system.targets)
      if (waiting.has(target.daemon)) await field.outside.get(target, field.system)
    await delay(3000)
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    target: { type: 'string', multiple: true },
    attack: { type: 'string', multiple: true },
    verbose: { type: 'boolean' },
  },
})
const outside = new Outside(positionals[0]!)
const results: Result[] = []
const onResult = (result: Result): void => {
  results.push(result)
  if (values.verbose || result.status === 'failed') {
    process.stderr.write(`${result.status} | ${result.peer} | ${result.cell} | ${result.detail}\n`)
  }
}

const sender = await rawSender()
const system = await startSystem()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void system.stop().finally(() => process.exit(1)))
}
try {
  const field: Field = { system, outside, sender, hello: await clientHello() }
  const targets = system.targets.filter(({ name }) => values.target?.includes(name) ?? true)
  const attacks = ATTACKS.filter(({ title }) => values.attack?.some((each) => title.includes(each)) ?? true)
  const fresh = new Map<DaemonProcess, number>()
  for (const { daemon } of targets) fresh.set(daemon, await daemon.keeps())
  for (const target of targets) await warmUp(field, target)
  const starts = new Map<DaemonProcess, Start>()
  for (const { daemon } of targets) {
    const rss = daemon.rss()
    starts.set(daemon, { fresh: fresh.get(daemon) ?? 0, kept: await daemon.keeps(), rss })
  }
  for (const target of targets) {
    for (const attack of attacks) {
      if (!attack.applies(target)) continue
      const outcome = await judged(field, attack, target)
      onResult({ table: TABLE, cell: attack.title, peer: target.name, ...outcome })
    }
  }
  await memoryReturns(field, starts, onResult)
} finally {
  await system.stop()
}
process.stdout.write(`\n${asText(results)}\n`)
const failed = count(results, 'failed')
process.stdout.write(`${count(results, 'ok')} passed, ${failed} failed, 0 skipped\n`)
process.exit(failed > 0 ? 1 : 0)
