/** The cells of the CoAP matrix: each one scenario, judged by what the client got and by what crossed our transport. */
import { setTimeout as delay } from 'node:timers/promises'
import {
  type CoapDriver,
  LARGE_OCTETS,
  type ObserveOutcome,
  type Outcome,
  pattern,
  RESOURCES,
  SMALL_BODY,
  UNKNOWN_CRITICAL_OPTION,
} from '../peers/protocol.ts'
import { Option, optionOf, type Seen, uintOf } from './tap.ts'

/** Which side is ours. */
export type Direction = 'their client, our server' | 'our client, their server'

export interface CellContext {
  readonly driver: CoapDriver
  readonly direction: Direction
  /** Everything that has crossed our transport so far. */
  seen(): readonly Seen[]
}

export interface Verdict {
  readonly ok: boolean
  /** What was found, for a cell that failed or that has something to say. */
  readonly detail: string
}

export interface Cell {
  readonly id: string
  readonly title: string
  run(context: CellContext): Promise<Verdict>
}

const SMALL_HEX = Buffer.from(SMALL_BODY).toString('hex')
const LARGE_HEX = pattern(LARGE_OCTETS, 1).toString('hex')

function describe(outcome: Outcome): string {
  if (outcome.error !== undefined) return outcome.error
  const octets = (outcome.payload ?? '').length / 2
  return `${outcome.code}, ${octets} octets${outcome.etag === undefined ? '' : `, ETag ${outcome.etag}`}`
}

function verdict(ok: boolean, detail: string): Verdict {
  return { ok, detail }
}

/** What crossed our transport while `work` ran. */
async function watched<T>(context: CellContext, work: () => Promise<T>): Promise<{ result: T; seen: Seen[] }> {
  const from = context.seen().length
  const result = await work()
  return { result, seen: context.seen().slice(from) }
}

const isRequest = (seen: Seen): boolean => seen.code.startsWith('0.') && seen.code !== '0.00'
const isResponse = (seen: Seen): boolean => /^[245]\./.test(seen.code)

function get(id: string, title: string, type: 'CON' | 'NON'): Cell {
  return {
    id,
    title,
    run: async (context) => {
      const { result, seen } = await watched(context, () => context.driver.request({ path: RESOURCES.small, type }))
      const asked = seen.find(isRequest)?.type
      if (asked !== type) return verdict(false, `the request went as ${asked}`)
      return verdict(result.code === '2.05' && result.payload === SMALL_HEX, describe(result))
    },
  }
}

function upload(id: string, method: 'PUT' | 'POST', seed: number): Cell {
  return {
    id,
    title: `${method} 10 KB (Block1)`,
    run: async (context) => {
      const { result, seen } = await watched(context, () =>
        context.driver.request({ method, path: RESOURCES.store, size: LARGE_OCTETS, seed, format: 42 }),
      )
      const blocks = seen.filter((each) => isRequest(each) && optionOf(each, Option.block1) !== undefined).length
      if (result.code !== '2.04') return verdict(false, `${describe(result)} after ${blocks} blocks`)
      const stored = await context.driver.request({ path: RESOURCES.store })
      const whole = stored.payload === pattern(LARGE_OCTETS, seed).toString('hex')
      return verdict(whole && blocks >= 10, `${blocks} blocks; read back: ${describe(stored)}`)
    },
  }
}

function refused(id: string, title: string, code: string, ask: (driver: CoapDriver) => Promise<Outcome>): Cell {
  return {
    id,
    title: `${title} → ${code}`,
    run: async (context) => {
      const { result, seen } = await watched(context, () => ask(context.driver))
      const onWire = seen.filter(isResponse).at(-1)?.code
      return verdict(onWire === code, `on the wire ${onWire}; the client says: ${describe(result)}`)
    },
  }
}

/** The token of the observation in `seen`. */
function observeToken(seen: readonly Seen[]): string | undefined {
  return seen.find((each) => isRequest(each) && uintOf(optionOf(each, Option.observe)) === 0)?.token
}

function isNotification(seen: Seen, token: string | undefined): boolean {
  return isResponse(seen) && seen.token === token && optionOf(seen, Option.observe) !== undefined
}

function numbersOf(outcome: ObserveOutcome): number[] {
  return (outcome.notifications ?? []).map((each) => {
    const match = /^tick (\d+)$/.exec(Buffer.from(each.payload ?? '', 'hex').toString())
    return match === null ? Number.NaN : Number(match[1])
  })
}

function ascending(numbers: readonly number[]): boolean {
  return numbers.every((number, i) => i === 0 || number > numbers[i - 1]!)
}

const QUIET_MS = 500

/** The observation ended in the way that was asked for, and the server has fallen silent. */
async function judgeEnd(context: CellContext, from: number, cancel: 'rst' | 'deregister'): Promise<Verdict> {
  // the last word may still be on its way: a reset answers the next notification, and a deregistration is retransmitted
  const said = (): boolean =>
    context
      .seen()
      .slice(from)
      .some((each) =>
        cancel === 'rst' ? each.type === 'RST' : isRequest(each) && uintOf(optionOf(each, Option.observe)) === 1,
      )
  const end = performance.now() + 4000
  while (!said() && performance.now() < end) await delay(20)
  const how = cancel === 'rst' ? 'RST' : 'GET with Observe=1'
  if (!said()) return verdict(false, `no ${how} crossed the wire`)
  const token = observeToken(context.seen().slice(from))
  await delay(300) // what was under way
  const mark = context.seen().length
  await delay(QUIET_MS)
  const late = context
    .seen()
    .slice(mark)
    .filter((each) => isNotification(each, token)).length
  return verdict(late === 0, late === 0 ? `${how}, then silence` : `${late} notifications after the ${how}`)
}

function observation(id: string, title: string, count: number, cancel: 'rst' | 'deregister'): Cell {
  return {
    id,
    title,
    run: async (context) => {
      const from = context.seen().length
      const result = await context.driver.observe({ path: RESOURCES.obs, count, cancel })
      if (result.error !== undefined) return verdict(false, result.error)
      const numbers = numbersOf(result)
      if (numbers.length !== count || !ascending(numbers)) return verdict(false, `got ${numbers.join(' ')}`)
      if (!result.notifications!.slice(0, -1).every((each) => each.observe)) {
        return verdict(false, 'a notification without the Observe option')
      }
      if (id === 'observe-20') return verdict(true, `${numbers[0]} … ${numbers.at(-1)}`)
      return await judgeEnd(context, from, cancel)
    },
  }
}

const largeNotifications: Cell = {
  id: 'observe-10k',
  title: 'notifications of 10 KB',
  run: async (context) => {
    const result = await context.driver.observe({ path: RESOURCES.obsLarge, count: 3, cancel: 'deregister' })
    if (result.error !== undefined) return verdict(false, result.error)
    const bodies = (result.notifications ?? []).map((each) => Buffer.from(each.payload ?? '', 'hex'))
    const whole = bodies.map((body) => body.length === LARGE_OCTETS && body.equals(pattern(LARGE_OCTETS, body[0]!)))
    const different = new Set(bodies.map((body) => body[0])).size
    const ok = bodies.length === 3 && whole.every(Boolean) && different === 3
    return verdict(ok, `${bodies.map((body) => body.length).join(', ')} octets, ${different} different`)
  },
}

const separate: Cell = {
  id: 'separate',
  title: 'separate response',
  run: async (context) => {
    const { result, seen } = await watched(context, () => context.driver.request({ path: RESOURCES.slow, type: 'CON' }))
    const acked = seen.some((each) => each.type === 'ACK' && each.code === '0.00')
    const late = seen.some((each) => each.type !== 'ACK' && each.code === '2.05')
    const ok = result.code === '2.05' && result.payload === Buffer.from('late').toString('hex') && acked && late
    return verdict(ok, `empty ACK: ${acked}, separate 2.05: ${late}; ${describe(result)}`)
  },
}

export const CELLS: readonly Cell[] = [
  get('get-con', 'GET CON', 'CON'),
  get('get-non', 'GET NON', 'NON'),
  {
    id: 'block2',
    title: 'GET 10 KB (Block2)',
    run: async (context) => {
      const { result, seen } = await watched(context, () => context.driver.request({ path: RESOURCES.large }))
      const blocks = seen.filter((each) => isResponse(each) && optionOf(each, Option.block2) !== undefined).length
      return verdict(
        result.code === '2.05' && result.payload === LARGE_HEX && blocks >= 10,
        `${blocks} blocks; ${describe(result)}`,
      )
    },
  },
  upload('block1-put', 'PUT', 7),
  upload('block1-post', 'POST', 8),
  refused('etag', 'ETag', '2.03', (driver) => driver.request({ path: RESOURCES.etag, etag: '653031' })),
  refused('accept', 'Accept', '4.06', (driver) => driver.request({ path: RESOURCES.accept, accept: 60 })),
  refused('if-match', 'If-Match', '4.12', (driver) =>
    driver.request({ method: 'PUT', path: RESOURCES.ifMatch, ifmatch: 'aa', size: 4 }),
  ),
  refused('if-none-match', 'If-None-Match', '4.12', (driver) =>
    driver.request({ method: 'PUT', path: RESOURCES.ifMatch, ifnonematch: 1, size: 4 }),
  ),
  refused('critical', 'unknown critical option', '4.02', (driver) =>
    driver.request({ path: RESOURCES.critical, critical: UNKNOWN_CRITICAL_OPTION }),
  ),
  separate,
  observation('observe-20', '20 notifications', 20, 'deregister'),
  largeNotifications,
  observation('cancel-rst', 'cancel by RST', 2, 'rst'),
  observation('cancel-observe', 'cancel by Observe=1', 2, 'deregister'),
]
