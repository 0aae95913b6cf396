/** Requests of ours that wait for a response: matched by peer and token (RFC 7252 §5.3.2). */
import { IotchainError, isIotchainError } from '../../protocol/errors.ts'
import type { CoapLimits } from './limits.ts'
import { assemble, type Message, MessageType } from './message.ts'
import type { Confirmable, MessageLayer, Outcome } from './message-layer.ts'
import type { Slot } from './send-queue.ts'
import type { Timer, Timers } from './timers.ts'
import type { Peer } from './transport.ts'

const TOKEN_LENGTH = 4
const EMPTY = Buffer.alloc(0)

/** A token in use with one peer, or with a group (`peer` undefined: a response from anybody). */
export class TokenHandle {
  readonly token: Uint8Array
  readonly mapKey: string
  readonly tokenKey: string
  readonly peer: Peer | undefined
  onResponse: ((message: Message, peer: Peer) => void) | undefined
  onFailure: ((error: IotchainError) => void) | undefined

  constructor(token: Uint8Array, tokenKey: string, peer: Peer | undefined) {
    this.token = token
    this.tokenKey = tokenKey
    this.peer = peer
    this.mapKey = `${peer?.key ?? ''}|${tokenKey}`
  }
}

export interface SendRequest {
  readonly code: number
  readonly tail: Uint8Array
  readonly confirmable: boolean
  /** For a response that came by itself, not with the ACK: false lets it pass by (a late one to an earlier block). */
  readonly accepts?: ((message: Message) => boolean) | undefined
}

export interface ClientExchangesParts {
  readonly layer: MessageLayer
  readonly limits: CoapLimits
  readonly timers: Timers
  readonly randomBytes: (length: number) => Uint8Array
}

export class ClientExchanges {
  readonly #parts: ClientExchangesParts
  readonly #handles = new Map<string, TokenHandle>()

  constructor(parts: ClientExchangesParts) {
    this.#parts = parts
  }

  get size(): number {
    return this.#handles.size
  }

  /** @throws `coap/busy` when too many requests are outstanding */
  open(peer: Peer | undefined): TokenHandle {
    if (this.#handles.size >= this.#parts.limits.outstandingRequests) throw busy()
    for (;;) {
      const token = Buffer.from(this.#parts.randomBytes(TOKEN_LENGTH))
      const handle = new TokenHandle(token, token.toString('latin1'), peer)
      if (this.#handles.has(handle.mapKey)) continue
      this.#handles.set(handle.mapKey, handle)
      return handle
    }
  }

  /** From now on a response with this token is rejected with RST. */
  close(handle: TokenHandle): void {
    if (this.#handles.get(handle.mapKey) === handle) this.#handles.delete(handle.mapKey)
    handle.onResponse = undefined
    handle.onFailure = undefined
  }

  find(message: Message, peer: Peer): TokenHandle | undefined {
    return this.#handles.get(`${peer.key}|${message.tokenKey}`) ?? this.#handles.get(`|${message.tokenKey}`)
  }

  /** Fails all that waits for a peer, or for anybody. */
  drop(error: IotchainError, peer?: Peer): void {
    for (const handle of [...this.#handles.values()]) {
      if (peer === undefined || handle.peer?.key === peer.key) handle.onFailure?.(error)
    }
  }

  /**
   * Sends one request and waits for its response.
   * @throws `coap/timeout`, `coap/reset`, `coap/unreachable`, `coap/busy`, `coap/aborted`, or what `drop` says
   */
  send(handle: TokenHandle, peer: Peer, request: SendRequest, signal?: AbortSignal): Promise<Message> {
    return new Promise((resolve, reject) => {
      const { layer, limits, timers } = this.#parts
      let confirmable: Confirmable | undefined
      let slot: Slot | undefined
      let timer: Timer | undefined
      const stop = () => {
        handle.onResponse = undefined
        handle.onFailure = undefined
        signal?.removeEventListener('abort', onAbort)
        timer?.cancel()
        if (confirmable !== undefined) layer.cancel(confirmable)
        if (slot !== undefined) layer.queue.free(slot)
      }
      const fail = (error: IotchainError) => {
        stop()
        reject(error)
      }
      const onAbort = () => fail(aborted(signal))
      if (signal?.aborted) {
        reject(aborted(signal))
        return
      }
      signal?.addEventListener('abort', onAbort)
      handle.onFailure = fail
      handle.onResponse = (message) => {
        if (request.accepts?.(message) === false) return
        stop()
        resolve(message)
      }
      if (request.confirmable) {
        confirmable = layer.confirm(peer, assemble(MessageType.con, request.code, 0, handle.token, request.tail), {
          accepts: (reply) => reply.tokenKey === handle.tokenKey,
          onSettled: (outcome, reply) => {
            if (outcome !== 'acknowledged') {
              fail(failure(outcome, peer))
            } else if (reply !== undefined) {
              stop()
              resolve(reply)
            } else {
              // the empty ACK ended the retransmissions: the separate response gets time of its own
              timer = timers.after(limits.separateTimeoutMs, () => fail(failure('timeout', peer)))
            }
          },
        })
        return
      }
      slot = layer.queue.take(peer, () => {
        const messageId = layer.nextMessageId(peer)
        timer = timers.after(limits.nonTimeoutMs, () => fail(failure('timeout', peer)))
        layer.transmit(assemble(MessageType.non, request.code, messageId, handle.token, request.tail), peer)
      })
      if (slot === undefined) fail(busy())
    })
  }

  /** CoAP ping: an empty CON that is answered with RST (RFC 7252 §4.3). @returns milliseconds */
  ping(peer: Peer): Promise<number> {
    return new Promise((resolve, reject) => {
      const datagram = assemble(MessageType.con, 0, 0, EMPTY, EMPTY)
      this.#parts.layer.confirm(peer, datagram, {
        onSettled: (outcome, _reply, elapsedMs) => {
          if (outcome === 'reset' || outcome === 'acknowledged') resolve(elapsedMs)
          else reject(failure(outcome, peer))
        },
      })
    })
  }
}

export function failure(outcome: Outcome, peer: Peer): IotchainError {
  const where = `${peer.address.includes(':') ? `[${peer.address}]` : peer.address}:${peer.port}`
  switch (outcome) {
    case 'reset':
      return new IotchainError('coap/reset', `${where} rejected the message`, {
        hint: 'the program there is no CoAP server, or it was restarted in the middle of an exchange: try again',
      })
    case 'unreachable':
      return new IotchainError('coap/unreachable', `nothing listens at ${where}`, {
        hint: 'check address and port, and that the server is running',
      })
    case 'queue-full':
      return busy()
    case 'closed':
      return new IotchainError('coap/closed', 'the endpoint was closed')
    default:
      return new IotchainError('coap/timeout', `no answer from ${where}`, {
        hint: 'check address and port, and that UDP gets through',
      })
  }
}

function busy(): IotchainError {
  return new IotchainError('coap/busy', 'too many requests are outstanding', { hint: 'wait for some to finish' })
}

export function aborted(signal: AbortSignal | undefined): IotchainError {
  if (isIotchainError(signal?.reason)) return signal.reason
  return new IotchainError('coap/aborted', 'the request was cancelled', { cause: signal?.reason })
}
