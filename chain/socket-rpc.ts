/**
 * JSON-RPC over a lasting connection: a node's socket file (IPC) or WebSocket. What is under way when the connection
 * breaks fails as `chain/unreachable`; the next request connects again. So it does after a request that nothing came
 * after: a connection may be dead without a sign (suspended host, NAT). Nothing is subscribed to, nothing is replayed.
 */
import { createConnection } from 'node:net'
import { IotchainError } from '../protocol/errors.ts'
import { JsonRpc, type JsonRpcOptions, type Rpc, RpcError, revertData } from './rpc.ts'
import { openWebSocket } from './websocket.ts'

export interface WireEvents {
  onmessage(text: string): void
  onclose(): void
}

export interface Wire {
  send(text: string): void
  close(): void
  /** At once, without a word to the other side. */
  destroy(): void
}

/** A node by its address: http(s)://, ws(s)://, or the path of its socket file. @throws `chain/bad-url` */
export function connectRpc(options: JsonRpcOptions): Rpc & { close?(): void } {
  const { url } = options
  const isPath = url.startsWith('/') || url.startsWith('ipc:')
  return isPath || /^wss?:/.test(url) ? new SocketRpc(options) : new JsonRpc(options)
}

interface Pending {
  readonly method: string
  readonly resolve: (value: never) => void
  readonly reject: (reason: unknown) => void
  readonly timer: NodeJS.Timeout
}

const MAX_MESSAGE = 64 * 1024 * 1024

export class SocketRpc implements Rpc {
  readonly name: string
  readonly #open: (events: WireEvents) => Promise<Wire>
  readonly #timeoutMs: number
  readonly #pending = new Map<number, Pending>()
  #wire: Promise<Wire> | undefined
  /** What `#wire` came to. */
  #live: Wire | undefined
  /** Messages that came. */
  #heard = 0
  #nextId = 1

  /** @throws `chain/bad-url` */
  constructor(options: JsonRpcOptions) {
    this.#timeoutMs = options.timeoutMs ?? 10_000
    const { url } = options
    if (url.startsWith('/') || url.startsWith('ipc:')) {
      const path = url.replace(/^ipc:(\/\/)?/, '')
      this.name = path
      this.#open = (events) => openSocketFile(path, events)
    } else {
      if (!URL.canParse(url)) {
        throw new IotchainError('chain/bad-url', 'the address of the Ethereum node is no URL', {
          hint: 'Write it like http://127.0.0.1:8545, ws://127.0.0.1:8546 or /path/geth.ipc.',
        })
      }
      const parsed = new URL(url)
      this.name = `${parsed.protocol}//${parsed.host}`
      this.#open = (events) => openWebSocket(parsed, events, this.#timeoutMs)
    }
  }

  async call<T>(method: string, params: readonly unknown[] = []): Promise<T> {
    const wire = await this.#connected()
    return new Promise<T>((resolve, reject) => {
      const id = this.#nextId++
      const heard = this.#heard
      const timer = setTimeout(() => {
        this.#pending.delete(id)
        if (this.#heard === heard) this.#abandon(wire)
        reject(this.#unreachable('timed out'))
      }, this.#timeoutMs)
      this.#pending.set(id, { method, resolve: resolve as (value: never) => void, reject, timer })
      wire.send(JSON.stringify({ jsonrpc: '2.0', id, method, params }))
    })
  }

  /** Ends the connection; a later request opens another. */
  close(): void {
    this.#wire?.then((wire) => wire.close()).catch(() => undefined)
  }

  async #connected(): Promise<Wire> {
    // a connection that failed may close long after another one has taken its place
    const open = (): Promise<Wire> => {
      const mine: Promise<Wire> = this.#open({
        onmessage: (text) => this.#take(text),
        onclose: () => {
          if (this.#wire === mine) this.#lost('it closed the connection')
        },
      })
      return mine
    }
    this.#wire ??= open()
    const opening = this.#wire
    try {
      const wire = await opening
      if (this.#wire === opening) this.#live = wire
      return wire
    } catch (cause) {
      if (this.#wire === opening) this.#wire = undefined
      throw this.#unreachable((cause as NodeJS.ErrnoException).code ?? (cause as Error).message, cause)
    }
  }

  #take(text: string): void {
    this.#heard++
    let answer: { id?: unknown; result?: unknown; error?: { code?: unknown; message?: unknown; data?: unknown } }
    try {
      answer = JSON.parse(text)
    } catch {
      return
    }
    const pending = typeof answer?.id === 'number' ? this.#pending.get(answer.id) : undefined
    if (pending === undefined) return
    this.#pending.delete(answer.id as number)
    clearTimeout(pending.timer)
    const { error } = answer
    if (error === undefined || error === null) pending.resolve(answer.result as never)
    else {
      const code = typeof error.code === 'number' ? error.code : 0
      const message = String(error.message ?? 'no reason given')
      pending.reject(new RpcError(pending.method, code, message, revertData(error.data)))
    }
  }

  #abandon(wire: Wire): void {
    if (this.#live === wire) this.#lost('the connection is dead')
    wire.destroy()
  }

  #lost(why: string): void {
    this.#wire = undefined
    this.#live = undefined
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer)
      reject(this.#unreachable(why))
    }
    this.#pending.clear()
  }

  #unreachable(why: string, cause?: unknown): IotchainError {
    return new IotchainError('chain/unreachable', `the Ethereum node at ${this.name} does not answer (${why})`, {
      hint: 'Start the node, or set rpcUrl to one that runs.',
      cause,
      retryAfterSeconds: 5,
    })
  }
}

/** geth ends each message with a line feed. */
function openSocketFile(path: string, events: WireEvents): Promise<Wire> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path)
    let text = ''
    socket.setEncoding('utf8')
    socket.on('error', reject)
    const destroy = (): void => {
      socket.destroy()
    }
    socket.on('connect', () => resolve({ send: (t) => socket.write(`${t}\n`), close: destroy, destroy }))
    socket.on('data', (chunk: string) => {
      text += chunk
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        events.onmessage(text.slice(0, end))
        text = text.slice(end + 1)
      }
      if (text.length > MAX_MESSAGE) socket.destroy()
    })
    socket.on('close', () => events.onclose())
  })
}
