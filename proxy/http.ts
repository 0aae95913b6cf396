/**
 * The same resources over HTTP (RFC 8075), read only, for browsers that verify and open by themselves: ETag,
 * Cache-Control, CORS, and server-sent events in place of observe.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { toHex } from '../protocol/bytes.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { mediaType } from '../transport/coap/content-format.ts'
import { coapCodeOf } from '../transport/coap/error-codes.ts'
import { formatPath } from '../transport/coap/uri.ts'
import type { Changes } from './changes.ts'

/** What a path stands for now. */
export interface Representation {
  readonly bytes: Uint8Array
  readonly contentFormat: number
  readonly etag: Uint8Array | undefined
  /** Seconds. */
  readonly maxAge: number
  /** It never changes. */
  readonly immutable?: boolean
}

/** The read side of the proxy, whatever the protocol in front. */
export type Lookup = (
  path: readonly string[],
  query: readonly string[],
) => Promise<Representation | undefined> | Representation | undefined

export interface HttpOptions {
  readonly host: string
  readonly port: number
  readonly origins: readonly string[]
  readonly maxStreams: number
  readonly lookup: Lookup
  readonly changes: Changes
  readonly log: Logger
  /** Error code → CoAP code, beside the engine's own table. */
  readonly errorCodes?: Readonly<Record<string, number>>
  /** Between comments that keep a quiet stream open. */
  readonly heartbeatMs?: number
}

const MAX_SEGMENTS = 32
const MAX_URL = 4096
/** What may lie in a slow reader's socket before its stream is closed: it comes back by itself. */
const MAX_BACKLOG_OCTETS = 256 * 1024

export class HttpGateway {
  readonly #options: HttpOptions
  readonly #server: Server
  readonly #streams = new Set<ServerResponse>()

  constructor(options: HttpOptions) {
    this.#options = options
    this.#server = createServer(
      { headersTimeout: 10_000, requestTimeout: 10_000, keepAliveTimeout: 30_000, maxHeaderSize: 8192 },
      (request, response) => {
        this.#answer(request, response).catch((error: unknown) => this.#failed(response, error))
      },
    )
    this.#server.maxConnections = options.maxStreams + 256
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  get streams(): number {
    return this.#streams.size
  }

  async start(): Promise<void> {
    const { host, port } = this.#options
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (cause: NodeJS.ErrnoException) => {
        reject(
          new IotchainError(
            'proxy/http-listen',
            `HTTP cannot listen at ${host}:${port}: ${cause.code ?? cause.message}`,
            {
              cause,
              hint: 'choose another http.listen, or "off"',
            },
          ),
        )
      })
      this.#server.listen(port, host, resolve)
    })
  }

  async stop(): Promise<void> {
    for (const stream of this.#streams) stream.end()
    if (!this.#server.listening) return
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve())
      this.#server.closeAllConnections()
    })
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#allowOrigin(request, response)
    if (request.method === 'OPTIONS') {
      response.setHeader('access-control-allow-methods', 'GET, HEAD')
      response.setHeader('access-control-allow-headers', 'accept, if-none-match, last-event-id')
      response.setHeader('access-control-max-age', '86400')
      response.writeHead(204).end()
      return
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD, OPTIONS')
      problem(response, 405, 'this gateway reads only')
      return
    }
    const target = parseTarget(request.url ?? '/')
    if (target === undefined) {
      problem(response, 400, 'this address cannot be read')
      return
    }
    if (request.method === 'GET' && (request.headers.accept ?? '').includes('text/event-stream')) {
      await this.#stream(request, response, target)
      return
    }
    const found = await this.#options.lookup(target.path, target.query)
    if (found === undefined) {
      problem(response, 404, 'nothing is stored under this address')
      return
    }
    const etag = found.etag === undefined ? undefined : `"${toHex(found.etag)}"`
    if (etag !== undefined) response.setHeader('etag', etag)
    response.setHeader('cache-control', cacheControl(found))
    response.setHeader('x-content-type-options', 'nosniff')
    if (etag !== undefined && matchesEtag(request.headers['if-none-match'], etag)) {
      response.writeHead(304).end()
      return
    }
    response.setHeader('content-type', mediaType(found.contentFormat) ?? 'application/octet-stream')
    response.setHeader('content-length', found.bytes.length)
    response.writeHead(200)
    response.end(request.method === 'HEAD' ? undefined : found.bytes)
  }

  /** One event per change: `id` is the ETag, `data` the octets in base64url. */
  async #stream(
    request: IncomingMessage,
    response: ServerResponse,
    target: { path: readonly string[]; query: readonly string[] },
  ): Promise<void> {
    const first = await this.#options.lookup(target.path, [])
    if (first === undefined || first.immutable === true || target.query.length > 0) {
      problem(response, first === undefined ? 404 : 406, 'there is nothing here that changes')
      return
    }
    if (this.#streams.size >= this.#options.maxStreams) {
      response.setHeader('retry-after', '30')
      problem(response, 503, 'too many streams are open')
      return
    }
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    })
    response.write('retry: 5000\n\n')
    let last = String(request.headers['last-event-id'] ?? '')
    const send = (found: Representation): void => {
      const id = toHex(found.etag ?? new Uint8Array(0))
      if (id === last) return
      last = id
      response.write(`id: ${id}\ndata: ${Buffer.from(found.bytes).toString('base64url')}\n\n`)
      if (response.writableLength > MAX_BACKLOG_OCTETS) response.destroy()
    }
    const update = async (): Promise<void> => {
      const now = await this.#options.lookup(target.path, [])
      if (now !== undefined && !response.writableEnded) send(now)
    }
    const unsubscribe = this.#options.changes.subscribe(formatPath(target.path), () => {
      update().catch(() => response.destroy())
    })
    const heartbeat = setInterval(() => response.write(': \n\n'), this.#options.heartbeatMs ?? 15_000)
    this.#streams.add(response)
    response.once('close', () => {
      clearInterval(heartbeat)
      unsubscribe()
      this.#streams.delete(response)
    })
    send(first)
  }

  /** Errors know their code: the CoAP code becomes the HTTP status of the same number (RFC 8075 §7). */
  #failed(response: ServerResponse, error: unknown): void {
    const code = coapCodeOf(error, this.#options.errorCodes)
    const status = (code >> 5) * 100 + (code & 31)
    if (status === 500) this.#options.log.limited('http', 'error', { err: error }, 'an HTTP request failed')
    if (response.headersSent) {
      response.destroy()
      return
    }
    if (!isIotchainError(error) || status === 500) {
      problem(response, 500, 'the proxy failed')
      return
    }
    if (error.retryAfterSeconds !== undefined) response.setHeader('retry-after', Math.ceil(error.retryAfterSeconds))
    problem(response, status, error.message)
  }

  #allowOrigin(request: IncomingMessage, response: ServerResponse): void {
    const { origins } = this.#options
    const origin = request.headers.origin
    if (origins.includes('*')) response.setHeader('access-control-allow-origin', '*')
    else {
      response.setHeader('vary', 'Origin')
      if (origin !== undefined && origins.includes(origin)) response.setHeader('access-control-allow-origin', origin)
    }
    response.setHeader('access-control-expose-headers', 'ETag')
  }
}

/** What may change is asked for again soon: a 304 costs next to nothing, and nobody is told of a change. */
function cacheControl(found: Representation): string {
  return found.immutable === true
    ? `public, max-age=${found.maxAge}, immutable`
    : `public, max-age=${Math.min(found.maxAge, 5)}`
}

function parseTarget(url: string): { path: string[]; query: string[] } | undefined {
  if (url.length > MAX_URL || !url.startsWith('/')) return undefined
  const [text = '', search] = splitOnce(url, '?')
  try {
    const path = text.slice(1).split('/').map(decodeURIComponent)
    const query = search === undefined || search === '' ? [] : search.split('&').map(decodeURIComponent)
    return path.length > MAX_SEGMENTS ? undefined : { path, query }
  } catch {
    return undefined
  }
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

function matchesEtag(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false
  return header.split(',').some((item) => item.trim() === '*' || item.trim().replace(/^W\//, '') === etag)
}

/** RFC 9457. */
function problem(response: ServerResponse, status: number, title: string): void {
  response.writeHead(status, { 'content-type': 'application/problem+json' }).end(JSON.stringify({ status, title }))
}
