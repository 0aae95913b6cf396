/** Each attack against each target: what is thrown, and how the target must come through it. */
import { setTimeout as delay } from 'node:timers/promises'
import { seeded } from './datagrams.ts'
import {
  cookieFlood,
  type Flood,
  mutatedFlood,
  observerFlood,
  oversizedFlood,
  portZeroFlood,
  randomFlood,
  resetFlood,
  spoofedGets,
  uploadFlood,
} from './floods.ts'
import type { Outside } from './honest.ts'
import { addressOf, hostOf, type Spoofed, sendSpoofed } from './raw.ts'
import type { System, Target } from './system.ts'
import { udpCounters } from './udp-counters.ts'

export interface Field {
  readonly system: System
  readonly outside: Outside
  /** Path of raw-sender. */
  readonly sender: string
  /** A ClientHello of our client. */
  readonly hello: Buffer
}

/** undefined: it came through; else what is wrong. The text after `ok:` is a remark. */
export interface Finding {
  readonly wrong?: string | undefined
  readonly remark: string
}

export interface Attack {
  readonly title: string
  applies(target: Target): boolean
  run(field: Field, target: Target): Promise<Finding>
}

const PER_SECOND = 20_000
const onCoap = (target: Target): boolean => !target.secure
const everywhere = (_target: Target): boolean => true

/** Sent at a time; after each, the rate falls if the target's socket was too full to take it, and rises if not. */
const CHUNK = 5000
const CHUNK_SECONDS = 1
const LEAST_PER_SECOND = 500

interface Poured {
  readonly taken: number
  readonly sent: number
  /** UDP payload of what was sent. */
  readonly octets: number
  /** Found the sockets of the daemons full: whatever honest clients sent meanwhile had the same luck. */
  readonly lost: number
  readonly rate: number
}

/**
 * Until the sockets of the namespace have taken `count` datagrams and `work` is over, or three times as many were sent.
 * The rate follows what the machine can do: a socket that is full loses what honest clients send as well, and tells
 * nothing about the daemon.
 */
async function pour(
  { sender, outside }: Field,
  target: Target,
  count: number,
  perSecond: number,
  datagrams: Iterator<Spoofed>,
  work: Promise<unknown> = Promise.resolve(),
): Promise<Poured> {
  const start = udpCounters()
  let [sent, octets, rate] = [0, 0, perSecond]
  let working = true
  const over = (): void => {
    working = false
  }
  work.then(over, over)
  const taken = (): number => udpCounters().taken - start.taken
  while ((taken() < count && sent < 3 * count) || working) {
    const before = udpCounters()
    const size = Math.min(CHUNK, count, Math.ceil(rate * CHUNK_SECONDS))
    const chunk = Array.from({ length: size }, () => datagrams.next().value as Spoofed)
    const done = await sendSpoofed(sender, outside.namespace, target.port, rate, chunk)
    sent += done.datagrams
    octets += done.octets
    await delay(50)
    const lost = udpCounters().full - before.full
    rate = lost > chunk.length / 20 ? Math.max(LEAST_PER_SECOND, rate / 2) : Math.min(perSecond, rate * 1.5)
  }
  return { taken: taken(), sent, octets, lost: udpCounters().full - start.full, rate }
}

async function delivered(
  field: Field,
  target: Target,
  count: number,
  perSecond: number,
  datagrams: Iterator<Spoofed>,
): Promise<string> {
  const { taken, sent, rate } = await pour(field, target, count, perSecond, datagrams)
  if (taken < count) throw new Error(`only ${taken} of ${sent} datagrams were delivered: the machine is too busy`)
  return `${taken} delivered of ${sent}, ${rate.toFixed(0)} a second at the end`
}

function flood(title: string, seed: number, count: number, datagrams: Flood, applies = everywhere): Attack {
  return {
    title,
    applies,
    run: async (field, target) => {
      const endless = datagrams(target, seeded(seed), field.hello)[Symbol.iterator]()
      return { remark: await delivered(field, target, count, PER_SECOND, endless) }
    },
  }
}

const slowPeers: Attack = {
  title: '300 slow peers',
  applies: onCoap,
  run: async ({ outside, system }, target) => {
    const peers = await outside.ready('slow', target.port, target.readPath, target.uploadPath, 300)
    await delay(4000)
    // while they are at it, somebody else comes
    const wrong = await outside.get(target, system)
    await delay(4000)
    const { answers } = await outside.end<{ answers: number }>(peers)
    return { wrong: wrong === undefined ? undefined : `while they were there: ${wrong}`, remark: `${answers} answers` }
  },
}

const spoofedResets: Attack = {
  title: 'RST and ACK of every message ID from other ports of an observer',
  applies: (target) => target.observable,
  run: async ({ outside, sender }, target) => {
    const local = 45_000 + (target.port % 1000)
    const observer = await outside.ready('observe', target.port, target.readPath, local)
    const heard = async (): Promise<number> => {
      observer.write('how many\n')
      await delay(500)
      const line = observer.stdout.trim().split('\n').at(-1) ?? '{}'
      return (JSON.parse(line) as { notifications: number }).notifications
    }
    // until the first confirmable notification is acknowledged the relation is one with a source that may be spoofed,
    // and ends when that one datagram is lost (docs/coap.md); a flood may well lose it
    for (const end = performance.now() + 20_000; performance.now() < end; ) if ((await heard()) >= 3) break
    const others = [local + 1, local - 1, local + 2000, 5683]
    const host = hostOf(0, 2)
    await sendSpoofed(sender, outside.namespace, target.port, PER_SECOND, resetFlood(host, others))
    const before = await heard()
    // a broadcast comes with each session of five seconds, a reading each second
    for (const end = performance.now() + 20_000; performance.now() < end; ) if ((await heard()) > before) break
    const { notifications, end } = await outside.end<{ notifications: number; end?: string }>(observer)
    const wrong =
      notifications > before ? undefined : `no notification after the flood (${notifications}; ${end ?? 'not told'})`
    return { wrong, remark: `${notifications} notifications, ${notifications - before} of them afterwards` }
  },
}

const halfOpenHandshakes: Attack = {
  title: '900 half-open handshakes from three hosts',
  applies: (target) => target.secure,
  run: async ({ outside, system }, target) => {
    const hosts = [9, 10, 11].map((b) => addressOf(hostOf(9, b)))
    const peers = await Promise.all(hosts.map((host) => outside.ready('half-open', target.port, host, 300)))
    const wrong = await outside.get(target, system)
    const verified = peers.map((peer) => (JSON.parse(peer.stdout.trim()) as { verified: number }).verified)
    for (const peer of peers) await peer.stop()
    return {
      wrong: wrong === undefined ? undefined : `meanwhile an honest client: ${wrong}`,
      remark: `${verified.join(' + ')} cookies returned`,
    }
  },
}

const VICTIM_PORTS = 200
const SPOOFED = 20_000

/** Reads, observes and fetches with unmodified programs, each as a host of its own; undefined when all of it worked. */
async function unmodified(outside: Outside, target: Target, large: Target): Promise<string | undefined> {
  const { port, readPath } = target
  const [read, aioRead, heard, aioHeard, fetched, aioFetched] = await Promise.all([
    outside.coapClientGet(port, readPath, addressOf(hostOf(3, 1))),
    outside.aiocoapGet(readPath),
    outside.coapClientObserve(port, readPath, addressOf(hostOf(3, 2)), 7),
    outside.aiocoapObserve(readPath, 2),
    target === large ? outside.coapClientGet(port, '/large', addressOf(hostOf(3, 3))) : 10_240,
    target === large ? outside.aiocoapGet('/large') : 10_240,
  ])
  const wrong = [
    read > 50 ? '' : `coap-client read ${read} octets`,
    aioRead > 50 ? '' : `aiocoap read ${aioRead} octets`,
    heard >= 2 ? '' : `coap-client heard ${heard} notifications`,
    aioHeard >= 2 ? '' : `aiocoap heard ${aioHeard} notifications`,
    fetched === 10_240 ? '' : `coap-client fetched ${fetched} of 10 240 octets`,
    aioFetched === 10_240 ? '' : `aiocoap fetched ${aioFetched} of 10 240 octets`,
    outside.aiocoapSaid === '' ? '' : `aiocoap says ${outside.aiocoapSaid}`,
  ].filter((each) => each !== '')
  return wrong.length === 0 ? undefined : wrong.join('; ')
}

const amplification: Attack = {
  title: '20 000 spoofed requests for one victim',
  applies: everywhere,
  run: async (field, target) => {
    const { system, outside, hello } = field
    const host = hostOf(5, target.port & 255)
    const victim = await outside.ready('victim', addressOf(host), 40_000, VICTIM_PORTS)
    const large = system.targets.find(({ name }) => name === 'engine')!
    if (!target.secure) await outside.prepareAiocoap(target.port, target === large ? 3 : 2)
    const began = performance.now()
    const datagrams = spoofedGets(target, hello, host, 40_000, VICTIM_PORTS)[Symbol.iterator]()
    const honest = target.secure ? outside.get(target, system) : unmodified(outside, target, large)
    const { octets: sent, taken, lost } = await pour(field, target, SPOOFED, 2000, datagrams, honest)
    const wrong = await honest
    await delay(1000)
    const seconds = (performance.now() - began) / 1000
    const { octets, datagrams: replies } = await outside.end<{ octets: number; datagrams: number }>(victim)
    const allowed = Math.floor(16_384 + 1024 * seconds + 3 * sent)
    const figures = `the victim got ${octets} octets in ${replies} datagrams; allowed ${allowed}`
    const remark = `sent ${sent} octets, ${taken} datagrams taken, ${lost} lost at full sockets; ${figures}`
    if (octets > allowed) return { wrong: remark, remark }
    if (taken < SPOOFED) return { wrong: `the machine is too busy: ${remark}`, remark }
    if (replies === 0) return { wrong: 'the victim got nothing: nothing was tried', remark }
    return { wrong: wrong === undefined ? undefined : `meanwhile: ${wrong}; ${remark}`, remark }
  },
}

export const ATTACKS: readonly Attack[] = [
  flood('100 000 random datagrams', 1, 100_000, randomFlood),
  flood('100 000 mutated messages', 2, 100_000, mutatedFlood),
  flood('source port 0', 3, 2000, portZeroFlood),
  flood('20 000 half-open uploads', 4, 20_000, uploadFlood, onCoap),
  flood('20 000 observers', 5, 20_000, observerFlood, onCoap),
  flood('10 000 oversized blocks', 6, 10_000, oversizedFlood, onCoap),
  slowPeers,
  spoofedResets,
  flood('20 000 ClientHellos without a cookie', 7, 20_000, cookieFlood, (target) => target.secure),
  halfOpenHandshakes,
  amplification,
]
