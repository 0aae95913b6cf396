/**
 * Forward proxying (RFC 7252 §5.7.2) for the hosts that the configuration names, and for no others: a constrained client
 * behind a firewall reaches its devices by this proxy. Nothing is cached and nothing is followed further than Hop-Limit
 * (RFC 8768) allows.
 */
import { fromUtf8 } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { Code } from '../transport/coap/codes.ts'
import type { CoapResponse } from '../transport/coap/messages.ts'
import { uintOption } from '../transport/coap/option-set.ts'
import { isCritical, OptionNumber } from '../transport/coap/options.ts'
import { problemReply } from '../transport/coap/problem-details.ts'
import type { CoapReply, CoapRequest } from '../transport/coap/server.ts'
import { type CoapUri, formatCoapUri, parseCoapUri } from '../transport/coap/uri.ts'
import { dial } from '../transport/dial.ts'

export interface ForwarderOptions {
  /** `host` or `host:port`; without a port any is allowed. */
  readonly allow: readonly string[]
  readonly clock: Clock
  readonly dialer?: (uri: string) => Promise<CoapClient>
}

/** RFC 8768 §3: the value of a request without the option. */
const DEFAULT_HOPS = 16
const PATIENCE_MS = 30_000
/** Connections kept open, and for how long without use. */
const MAX_CONNECTIONS = 64
const IDLE_MS = 60_000

/** Options that say where a request goes, and those that the engine makes anew for the next hop. */
const OWN = new Set<number>([
  OptionNumber.uriHost,
  OptionNumber.uriPort,
  OptionNumber.uriPath,
  OptionNumber.uriQuery,
  OptionNumber.proxyUri,
  OptionNumber.proxyScheme,
  OptionNumber.hopLimit,
  OptionNumber.observe,
  OptionNumber.block1,
  OptionNumber.block2,
  OptionNumber.size1,
  OptionNumber.size2,
  OptionNumber.echo,
  OptionNumber.requestTag,
  OptionNumber.noResponse,
  OptionNumber.contentFormat,
  OptionNumber.accept,
  OptionNumber.etag,
  OptionNumber.ifMatch,
  OptionNumber.ifNoneMatch,
])

export class Forwarder {
  readonly #options: ForwarderOptions
  readonly #allow: readonly { readonly host: string; readonly port: number | undefined }[]
  readonly #open = new Map<string, { client: Promise<CoapClient>; usedMs: number }>()

  /** @throws `config/invalid` */
  constructor(options: ForwarderOptions) {
    this.#options = options
    this.#allow = options.allow.map(parseAllowed)
  }

  /** For the router: answers requests with Proxy-Uri or Proxy-Scheme. */
  readonly handle = async (request: CoapRequest): Promise<CoapReply> => {
    const target = targetOf(request)
    if (target === undefined) return { code: Code.badRequest }
    if (target.scheme !== 'coap' || !this.#isAllowed(target)) {
      return problemReply(Code.proxyingNotSupported, {
        detail: 'this proxy forwards to the hosts of its configuration only',
      })
    }
    const hops = request.options.getUint(OptionNumber.hopLimit) ?? DEFAULT_HOPS
    if (hops <= 1) return problemReply(Code.hopLimitReached, { detail: 'too many proxies on the way' })
    // Proxy-Critical options that are not understood end the way here (RFC 7252 §5.7.1).
    const foreign = [...request.options].filter((o) => !OWN.has(o.number))
    if (foreign.some((o) => isCritical(o.number))) return { code: Code.badOption }
    try {
      const client = await this.#connect(target)
      const response = await client.request({
        method: request.method,
        path: target.path,
        query: target.query,
        payload: request.payload.length === 0 ? undefined : request.payload,
        contentFormat: request.contentFormat,
        accept: request.accept,
        etag: request.etags,
        ifMatch: request.ifMatch,
        ifNoneMatch: request.ifNoneMatch,
        options: [...foreign.filter(isSafeToForward), uintOption(OptionNumber.hopLimit, hops - 1)],
        timeoutMs: PATIENCE_MS,
      })
      return replyOf(response)
    } catch (error) {
      if (!isIotchainError(error)) throw error
      const code = error.code === 'coap/timeout' ? Code.gatewayTimeout : Code.badGateway
      return problemReply(code, { title: error.code })
    }
  }

  /** Called now and then. */
  maintain(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const [origin, { usedMs }] of this.#open) if (nowMs - usedMs > IDLE_MS) this.#drop(origin)
  }

  stop(): void {
    for (const origin of [...this.#open.keys()]) this.#drop(origin)
  }

  #isAllowed(target: Pick<CoapUri, 'host' | 'port'>): boolean {
    return this.#allow.some((a) => a.host === target.host && (a.port === undefined || a.port === target.port))
  }

  #connect(target: Pick<CoapUri, 'host' | 'port'>): Promise<CoapClient> {
    const origin = formatCoapUri({ scheme: 'coap', host: target.host, port: target.port })
    const nowMs = this.#options.clock.monotonicMs()
    const known = this.#open.get(origin)
    if (known !== undefined) {
      known.usedMs = nowMs
      return known.client
    }
    if (this.#open.size >= MAX_CONNECTIONS) this.#drop(this.#open.keys().next().value as string)
    const client = (this.#options.dialer ?? dial)(origin)
    client.catch(() => this.#open.delete(origin))
    this.#open.set(origin, { client, usedMs: nowMs })
    return client
  }

  #drop(origin: string): void {
    const open = this.#open.get(origin)
    this.#open.delete(origin)
    open?.client.then((client) => client.close()).catch(() => undefined)
  }
}

/** Where the request goes; undefined when that cannot be read. Other schemes come back as they are, to be refused. */
function targetOf(
  request: CoapRequest,
): (Pick<CoapUri, 'host' | 'port' | 'path' | 'query'> & { scheme: string }) | undefined {
  try {
    return readTarget(request)
  } catch (error) {
    if (!isIotchainError(error)) throw error
    return undefined
  }
}

/** @throws `coap/bad-uri`, `message/bad-utf8` */
function readTarget(request: CoapRequest): Pick<CoapUri, 'host' | 'port' | 'path' | 'query'> & { scheme: string } {
  const whole = request.options.getText(OptionNumber.proxyUri)
  const foreign = /^([a-z][a-z0-9+.-]*):/i.exec(whole ?? '')?.[1]?.toLowerCase()
  if (foreign !== undefined && !foreign.startsWith('coap'))
    return { scheme: foreign, host: '', port: 0, path: [], query: [] }
  if (whole !== undefined) return parseCoapUri(whole)
  const scheme = fromUtf8(request.options.get(OptionNumber.proxyScheme) ?? new Uint8Array(0))
  const host = request.options.getText(OptionNumber.uriHost)
  if (host === undefined) throw new IotchainError('coap/bad-uri', 'a request to be forwarded names its host')
  const port = request.options.getUint(OptionNumber.uriPort)
  const literal = host.includes(':') ? `[${host}]` : host
  const base = parseCoapUri(`${scheme}://${literal}${port === undefined ? '' : `:${port}`}`)
  return { ...base, path: request.path, query: request.query }
}

/** An elective option may be passed on unless it is marked Unsafe (RFC 7252 §5.4.6). */
function isSafeToForward(option: { readonly number: number }): boolean {
  return (option.number & 2) === 0
}

function replyOf(response: CoapResponse): CoapReply {
  return {
    code: response.code,
    payload: response.payload.length === 0 ? undefined : response.payload,
    contentFormat: response.contentFormat,
    etag: response.etag,
    maxAge: response.options.has(OptionNumber.maxAge) ? response.maxAge : undefined,
    locationPath: response.locationPath.length === 0 ? undefined : response.locationPath,
    locationQuery: response.locationQuery.length === 0 ? undefined : response.locationQuery,
  }
}

function parseAllowed(text: string): { host: string; port: number | undefined } {
  try {
    if (!/^(\[[0-9a-f:.%a-z]+\]|[a-z0-9._-]+)(:\d{1,5})?$/i.test(text)) throw new Error('neither a name nor an address')
    const { host, port } = parseCoapUri(`coap://${text}`)
    return { host, port: /:\d+$/.test(text.replace(/^\[.*\]/, 'x')) ? port : undefined }
  } catch (cause) {
    throw new IotchainError('config/invalid', `forward.allow: "${text}" is no host`, {
      hint: 'write a name or an address, with or without a port: sensor.lan, [fd00::7]:5683',
      cause,
    })
  }
}
