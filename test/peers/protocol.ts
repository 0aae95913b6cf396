/**
 * How the suites talk to a foreign CoAP stack. Each stack has one small program of ours that drives the unmodified
 * library (`libcoap/peer.c`, `aiocoap/peer.py`, `californium/Peer.java`, `go/coap-peer/main.go`, `node-coap/peer.ts`):
 *
 * - `server HOST PORT` prints `{"ready":true,"port":N}` and serves the resources below until its standard input ends;
 * - `client HOST PORT` reads one command a line and prints one JSON result a line.
 *
 * A command is `request` or `observe` and `name=value` fields, see {@link RequestCommand} and {@link ObserveCommand};
 * a result has the command's `id`. A client gives up after 8 s.
 */

/** What `/small` and `/critical` serve, text/plain: 29 octets. */
export const SMALL_BODY = 'a small body of 29 octets: ok'

export const LARGE_OCTETS = 10_240

/** The resources that every server offers. */
export const RESOURCES = {
  small: '/small',
  /** 10 240 octets of `pattern(…, 1)`, with an ETag. */
  large: '/large',
  /** 175 octets of `pattern(…, 3)`, content-format 18: the size of a sealed object. For benches. */
  reading: '/reading',
  /** `late`, as a separate response after 0.5 s. */
  slow: '/slow',
  /** `tick N`; N grows every 50 ms. */
  obs: '/obs',
  /** `pattern(10 240, N & 255)`; N grows every 400 ms. */
  obsLarge: '/obslarge',
  /** What was PUT or POSTed there last. */
  store: '/store',
  /** ETag 653031 (hex; text, because npm coap reads ETags as UTF-8). */
  etag: '/etag',
  /** text/plain only. */
  accept: '/accept',
  /** Exists with ETag 653032. */
  ifMatch: '/ifmatch',
  critical: '/critical',
} as const

/** Critical, unsafe, from the experimental range (RFC 7252 §12.2): no stack knows it. */
export const UNKNOWN_CRITICAL_OPTION = 65_001

/** The body that everybody can make: octet i is `31 i + 17 ⌊i / 256⌋ + seed` modulo 256. */
export function pattern(octets: number, seed: number): Buffer {
  const body = Buffer.alloc(octets)
  for (let i = 0; i < octets; i++) body[i] = i * 31 + (i >> 8) * 17 + seed
  return body
}

export interface RequestCommand {
  readonly method?: 'GET' | 'PUT' | 'POST'
  readonly path: string
  readonly type?: 'CON' | 'NON'
  /** Hex. */
  readonly etag?: string
  readonly accept?: number
  /** Hex. */
  readonly ifmatch?: string
  readonly ifnonematch?: 1
  /** Number of an option to add, with the value `x`. */
  readonly critical?: number
  /** Octets of `pattern(size, seed)` to send. */
  readonly size?: number
  readonly seed?: number
  readonly format?: number
}

export interface ObserveCommand {
  readonly path: string
  /** Responses to wait for, the first one included. */
  readonly count: number
  /** `rst`: forget the observation and reset the next notification; `deregister`: GET with Observe = 1. */
  readonly cancel: 'rst' | 'deregister'
}

export interface Outcome {
  /** `2.05` */
  readonly code?: string
  /** Hex. */
  readonly payload?: string
  readonly etag?: string
  readonly format?: number
  /** The stack's own word when there was no response. */
  readonly error?: string
}

export interface ObserveOutcome {
  readonly notifications?: readonly (Outcome & { readonly observe: boolean })[]
  readonly error?: string
}

/** A CoAP client under test: a foreign program, or our own. */
export interface CoapDriver {
  request(command: RequestCommand): Promise<Outcome>
  observe(command: ObserveCommand): Promise<ObserveOutcome>
  close(): Promise<void>
}

export function commandLine(op: 'request' | 'observe', id: number, fields: RequestCommand | ObserveCommand): string {
  const words = Object.entries(fields).map(([name, value]) => `${name}=${value}`)
  return `${op} id=${id} ${words.join(' ')}\n`
}

export function parseCommandLine(line: string): { op: string; fields: Record<string, string> } {
  const [op = '', ...words] = line.trim().split(/ +/)
  return { op, fields: Object.fromEntries(words.map((word) => word.split(/=(.*)/s, 2) as [string, string])) }
}
