/**
 * JSON-RPC to an Ethereum node: batches what is asked in one turn, keeps connections alive (fetch), times out,
 * and says in two codes what went wrong: the node did not answer (`chain/unreachable`), or it answered with an
 * error (`RpcError`, `chain/rpc`). Nothing is remembered between requests, so a restarted node is simply there again.
 */
import { IotchainError } from '../protocol/errors.ts'
import type { Hex } from './types.ts'

export interface JsonRpcOptions {
  /** http(s)://host:port; credentials in it are never repeated in an error. */
  readonly url: string
  /** Limit for one exchange, default 10 000. */
  readonly timeoutMs?: number
  /** Requests in one HTTP body, default 100; 1 for a node that refuses batches. */
  readonly maxBatch?: number
}

/** Something that answers JSON-RPC: one node, or several that agree. */
export interface Rpc {
  /** fit for logs and errors: no credentials, no path */
  readonly name: string
  /** @throws `chain/unreachable`, `RpcError` */
  call<T>(method: string, params?: readonly unknown[]): Promise<T>
  /**
   * Where there are several nodes: the first answer that passes `check`, for what proves itself.
   * @throws what `check` throws, `chain/unreachable`, `RpcError`
   */
  checked?<T>(method: string, params: readonly unknown[], check: (answer: unknown) => T): Promise<T>
}

/** What the node itself answered: its code, its text, and the octets of a revert where there are any. */
export class RpcError extends IotchainError {
  readonly rpcCode: number
  readonly data: Hex | undefined

  constructor(method: string, rpcCode: number, message: string, data: Hex | undefined) {
    super('chain/rpc', `the node refused ${method}: ${message}`)
    this.rpcCode = rpcCode
    this.data = data
  }
}

/** Octets in one body: anvil takes 2 MB, geth 5 MB. */
const MAX_BODY = 1_000_000
/** Answers of more octets than this are refused unread. */
const MAX_ANSWER = 64 * 1024 * 1024

interface Pending {
  readonly method: string
  readonly params: readonly unknown[]
  readonly resolve: (value: unknown) => void
  readonly reject: (reason: unknown) => void
}

export class JsonRpc implements Rpc {
  /** scheme, host and port, without credentials or path: fit for logs and errors */
  readonly name: string
  readonly #url: string
  readonly #headers: Record<string, string>
  readonly #timeoutMs: number
  readonly #maxBatch: number
  #queue: Pending[] = []
  #nextId = 1
  /** HTTP exchanges made so far. */
  exchanges = 0

  /** @throws `chain/bad-url` */
  constructor(options: JsonRpcOptions) {
    const url = parseUrl(options.url)
    this.name = `${url.protocol}//${url.host}`
    this.#headers = { 'content-type': 'application/json' }
    if (url.username !== '' || url.password !== '') {
      const pair = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`
      this.#headers['authorization'] = `Basic ${btoa(pair)}`
      url.username = ''
      url.password = ''
    }
    this.#url = url.href
    this.#timeoutMs = options.timeoutMs ?? 10_000
    this.#maxBatch = Math.max(1, options.maxBatch ?? 100)
  }

  /**
   * One request; those made in the same turn of the event loop travel together.
   *
   * @throws `chain/unreachable`, or `RpcError` with what the node answered
   */
  call<T>(method: string, params: readonly unknown[] = []): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#queue.push({ method, params, resolve: resolve as (value: unknown) => void, reject })
      if (this.#queue.length === 1) setImmediate(() => this.#flush())
    })
  }

  #flush(): void {
    const queue = this.#queue
    this.#queue = []
    let batch: (Pending & { id: number; body: string })[] = []
    let length = 0
    const send = (): void => {
      if (batch.length === 0) return
      const sent = batch
      batch = []
      length = 0
      this.#exchange(sent).catch((cause: unknown) => {
        for (const p of sent) p.reject(cause)
      })
    }
    for (const pending of queue) {
      const id = this.#nextId++
      const body = JSON.stringify({ jsonrpc: '2.0', id, method: pending.method, params: pending.params })
      if (batch.length >= this.#maxBatch || length + body.length > MAX_BODY) send()
      batch.push({ ...pending, id, body })
      length += body.length
    }
    send()
  }

  async #exchange(batch: readonly (Pending & { id: number; body: string })[]): Promise<void> {
    const bodies = batch.map((p) => p.body)
    const answers = await this.#post(bodies.length === 1 ? (bodies[0] as string) : `[${bodies.join(',')}]`)
    const byId = new Map<unknown, Record<string, unknown>>()
    for (const answer of Array.isArray(answers) ? answers : [answers]) {
      if (typeof answer === 'object' && answer !== null) byId.set((answer as { id?: unknown }).id, answer)
    }
    // a refusal of the whole body carries no id
    const refusal = byId.size === 1 ? byId.get(null) : undefined
    for (const pending of batch) settle(pending, byId.get(pending.id) ?? refusal, this.name)
  }

  async #post(body: string): Promise<unknown> {
    this.exchanges++
    try {
      const response = await fetch(this.#url, {
        method: 'POST',
        headers: this.#headers,
        body,
        signal: AbortSignal.timeout(this.#timeoutMs),
      })
      const text = await readBounded(response)
      // geth answers a refused batch with 200 or 400 and JSON; a proxy in front of it may answer anything
      if (!response.ok && !text.startsWith('{') && !text.startsWith('[')) throw new Error(`HTTP ${response.status}`)
      return JSON.parse(text) as unknown
    } catch (cause) {
      throw new IotchainError(
        'chain/unreachable',
        `the Ethereum node at ${this.name} does not answer (${why(cause)})`,
        {
          hint: 'Start the node, or set rpcUrl to one that runs.',
          cause,
          retryAfterSeconds: 5,
        },
      )
    }
  }
}

function settle(pending: Pending, answer: Record<string, unknown> | undefined, name: string): void {
  if (answer === undefined) {
    pending.reject(
      new IotchainError('chain/unreachable', `the Ethereum node at ${name} left ${pending.method} unanswered`, {
        retryAfterSeconds: 5,
      }),
    )
    return
  }
  const error = answer['error'] as { code?: unknown; message?: unknown; data?: unknown } | undefined
  if (error === undefined || error === null) {
    pending.resolve(answer['result'])
    return
  }
  const code = typeof error.code === 'number' ? error.code : 0
  pending.reject(new RpcError(pending.method, code, String(error.message ?? 'no reason given'), revertData(error.data)))
}

/** geth gives the octets as a string, others inside an object. */
export function revertData(data: unknown): Hex | undefined {
  const text = typeof data === 'object' && data !== null ? (data as { data?: unknown }).data : data
  return typeof text === 'string' && /^0x[0-9a-fA-F]*$/.test(text) ? (text as Hex) : undefined
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw new IotchainError('chain/bad-url', 'the address of the Ethereum node is no http:// or https:// URL', {
      hint: 'Write it like http://127.0.0.1:8545.',
    })
  }
  return url
}

async function readBounded(response: Response): Promise<string> {
  if (response.body === null) return ''
  const parts: Uint8Array[] = []
  let length = 0
  for await (const part of response.body) {
    length += part.length
    if (length > MAX_ANSWER) throw new Error('the answer is too long')
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

function why(cause: unknown): string {
  if (!(cause instanceof Error)) return 'no reason given'
  if (cause.name === 'TimeoutError') return 'timed out'
  const inner = cause.cause as { code?: unknown } | undefined
  return typeof inner?.code === 'string' ? inner.code : cause.message
}
