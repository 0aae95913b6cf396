/**
 * node --expose-gc dist/test/transport/udp/fuzz-main.js [--rounds N] [--workers N] [--seed S]
 *
 * Fuzzes the UDP part of the binding: batches with wrong lengths and counts, addresses that are none, sockets closed,
 * opened, exhausted and forgotten from within their callbacks, workers that end at any moment. Nothing leaves this host.
 * Fails if what is read is not what was sent, or (with the sanitizers) on the first octet out of bounds.
 */
import { readdirSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { type UdpBinding, type UdpHandle, udpBinding } from '../../../transport/udp/native-socket.ts'
import { ADDRESS_OCTETS, HEADER, LENGTH_AT, OWN_AT, OWN_OCTETS } from '../../../transport/udp/send-batch.ts'
import { seeded } from '../dtls/relay.ts'

const SPACE = 16 * (65_536 + HEADER)
const PLACES = ['127.0.0.1', '0.0.0.0', '::1', '::'] as const
/** Of the datagrams: as an address family it is none. */
const FILL = 0x77

const counts = { sent: 0, refused: 0, rejected: 0, read: 0, thrown: 0, closed: 0, exhausted: 0 }
const mischief = new Error('mischief')
let random: () => number
let udp: UdpBinding

interface Open {
  readonly handle: UdpHandle
  readonly v6: boolean
  readonly port: number
  /** To be kept: the module has no other hold on it than the callback. */
  space: Buffer | undefined
}

const below = (n: number): number => Math.floor(random() * n)
const oneOf = <T>(list: readonly T[]): T => list[below(list.length)] as T

function open(): Open | undefined {
  const place = oneOf(PLACES)
  const v6 = place.includes(':')
  const handle = udp.openUdp(place, v6, 0, random() < 0.3, random() < 0.3)
  if (typeof handle === 'number') return undefined // a host without IPv6
  const address = udp.udpAddress(handle) as Buffer
  return { handle, v6, port: address.readUInt16BE(2), space: undefined }
}

/** Begins to read; the callback does one thing or another. */
function read(all: Open[], one: Open): void {
  const space = Buffer.allocUnsafeSlow(SPACE)
  one.space = space
  udp.readUdp(one.handle, space, (count, octets) => {
    if (count > 0) check(space, count, octets)
    const what = random()
    if (what < 0.05) udp.closeUdp(one.handle)
    else if (what < 0.1) for (const { handle } of all) udp.closeUdp(handle)
    else if (what < 0.15) another(all)
    else if (what < 0.2) udp.awaitRoom(one.handle)
    else if (what < 0.3) sendTo(all, one)
    else if (what < 0.32) globalThis.gc?.()
    else if (what < 0.34) exhaust(one)
    if (what > 0.34 && what < 0.36) udp.closeUdp(one.handle)
    if (workerData === 'exit' && random() < 0.01) process.exit(0)
    if (random() < 0.03) throw mischief
  })
}

function another(all: Open[]): void {
  const one = open()
  if (one === undefined) return
  all.push(one)
  read(all, one)
}

/** Its memory goes to somebody else, who throws it away. */
function exhaust({ space }: Open): void {
  if (space === undefined || space.byteLength === 0) return
  const memory = space.buffer as ArrayBuffer
  structuredClone(memory, { transfer: [memory] })
  counts.exhausted++
}

/** @throws what is wrong with what lies in `space` */
function check(space: Buffer, count: number, octets: number): void {
  let at = 0
  for (let i = 0; i < count; i++) {
    const length = space.readUInt16BE(at + LENGTH_AT)
    const payload = space.subarray(at + HEADER, at + HEADER + length)
    const address = udp.addressText(space.subarray(at + 1, at + 1 + (space[at] as number)))
    if (
      address === undefined ||
      (space[at] as number) > ADDRESS_OCTETS ||
      (space[at + OWN_AT] as number) > OWN_OCTETS
    ) {
      fail(`a datagram came from ${address}`)
    }
    if (payload.length !== length || payload.some((octet) => octet !== FILL)) fail('a datagram is not what was sent')
    at += HEADER + length
  }
  if (at !== octets) fail(`${count} datagrams in ${octets} octets, and ${at} were counted`)
  counts.read += count
}

function fail(why: string): never {
  console.error(`failed: ${why}`)
  process.exit(1)
}

/** A batch for any of them, in order or not. */
function sendTo(all: Open[], from: Open): void {
  const items = Array.from({ length: below(70) }, () => itemFor(oneOf(all), from.v6))
  const octets = Buffer.concat(items)
  const wild = random() < 0.3
  if (wild) mangle(octets, items)
  const start = wild && random() < 0.3 ? below(octets.length + 20) - 10 : 0
  const count = wild && random() < 0.3 ? below(80) - 5 : items.length
  const taken = udp.sendBatch(from.handle, octets, start, count) as number | undefined
  if (taken === undefined) counts.rejected++
  else if (taken < 0) counts.refused++
  else counts.sent += taken
}

function itemFor(to: Open, v6: boolean): Buffer {
  const length = random() < 0.02 ? below(60_000) : below(200)
  const item = Buffer.alloc(HEADER + length, FILL)
  const address = udp.socketAddress(v6 && to.v6 ? '::1' : '127.0.0.1', v6) as Buffer
  address.writeUInt16BE(to.port, 2)
  item.fill(0, 0, HEADER)
  item[0] = address.length
  address.copy(item, 1)
  if (random() < 0.2) {
    item[OWN_AT] = v6 ? 20 : 12
    for (let i = 1; i <= OWN_OCTETS; i++) item[OWN_AT + i] = random() < 0.7 ? 0 : below(256)
  }
  item.writeUInt16BE(length, LENGTH_AT)
  return item
}

/** Wrong lengths, here and there; none makes a datagram of two. */
function mangle(octets: Buffer, items: readonly Buffer[]): void {
  let at = 0
  for (const { length } of items) {
    if (random() < 0.05) octets[at] = below(256)
    if (random() < 0.05) octets[at + OWN_AT] = below(256)
    const left = octets.length - at - HEADER
    const wrong = random() < 0.5 ? below(length - HEADER) : left + 1 + below(1000)
    if (random() < 0.05 && wrong < 65_536) octets.writeUInt16BE(wrong, at + LENGTH_AT)
    at += length
  }
}

function abuse(): void {
  const texts = ['', '%', '1.2.3.4', '::ffff:1.2.3.4', 'fe80::1%lo', 'fe80::1%1', '::1%', `::1%${'9'.repeat(40)}`]
  const text = oneOf(texts).slice(0, below(60)) + 'x'.repeat(random() < 0.3 ? below(100) : 0)
  for (const v6 of [true, false]) udp.socketAddress(text, v6)
  udp.addressText(Buffer.from(Array.from({ length: below(40) }, () => (random() < 0.5 ? below(12) : below(256)))))
  for (const call of [udp.closeUdp, udp.awaitRoom, udp.udpAddress] as ((handle: unknown) => unknown)[]) {
    try {
      call(oneOf<unknown>([{}, undefined, null, 1, Object.create(null)]))
      fail('an object of nobody was taken for a socket')
    } catch (error) {
      if (!(error instanceof TypeError)) throw error
    }
  }
}

async function round(): Promise<void> {
  const all: Open[] = []
  for (let i = 1 + below(4); i > 0; i--) {
    const one = open()
    if (one === undefined) continue
    all.push(one)
    if (random() < 0.8) read(all, one)
  }
  abuse()
  for (let i = 1 + below(4); i > 0; i--) {
    for (const one of [...all]) if (random() < 0.7) sendTo(all, one)
    if (random() < 0.1) exhaust(oneOf(all))
    await turn()
  }
  counts.closed += all.length
  // those that are not read are left to the collector now and then
  for (const { handle, space } of all) if (space !== undefined || random() < 0.5) udp.closeUdp(handle)
  await turn()
}

async function rounds(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await round()
}

/** Of one worker: it ends by itself, in the middle of a callback, or when the parent says so. */
async function worker(how: 'by itself' | 'exit' | 'terminate', seed: number): Promise<void> {
  const one = new Worker(new URL(import.meta.url), { workerData: how, argv: ['--seed', String(seed)] })
  const ended = new Promise<number>((resolve) => one.once('exit', resolve))
  one.once('error', (error) => fail(`a worker: ${error.stack}`))
  if (how === 'terminate') {
    await new Promise((up) => one.once('message', up))
    for (let i = below(20); i > 0; i--) await turn()
    await one.terminate()
  }
  const code = await ended
  if (how !== 'terminate' && code !== 0) fail(`a worker ended with ${code}`)
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '400' },
    workers: { type: 'string', default: '30' },
    seed: { type: 'string', default: '1' },
  },
})
const native = udpBinding()
if (native === undefined) {
  console.log('skipped: the binding is not built, or this is no Linux')
  process.exit(0)
}
udp = native
random = seeded(Number(values.seed))
process.on('uncaughtException', (error) => {
  if (error !== mischief) fail(error.stack ?? String(error))
  counts.thrown++
})
if (!isMainThread) {
  parentPort?.postMessage('up')
  await rounds(workerData === 'terminate' ? 10_000 : 30)
  process.exit(0)
}
// what Node opens for itself is open before the first count
await worker('by itself', 1)
const descriptors = (): number => readdirSync('/proc/self/fd').length
const before = descriptors()
await rounds(Number(values.rounds))
for (let i = 0; i < Number(values.workers); i++) {
  await worker(oneOf(['by itself', 'exit', 'terminate'] as const), i)
}
for (let i = 0; i < 5; i++) {
  globalThis.gc?.()
  await turn()
}
const left = descriptors() - before
console.log(`${values.rounds} rounds, ${values.workers} workers: ${JSON.stringify(counts)}, ${left} descriptors left`)
if (counts.read === 0 || counts.thrown === 0 || counts.rejected === 0) fail('nothing was tried')
if (globalThis.gc !== undefined && left > 4) fail('sockets stay open')
