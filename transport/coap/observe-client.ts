/**
 * The client's side of observe (RFC 7641 §3): registers, keeps order, fetches the rest of notifications in blocks,
 * and registers again before the last representation goes stale, so that a restarted server learns of it too.
 */
import { IotchainError, isIotchainError } from '../../protocol/errors.ts'
import { BlockTransfer, toResponse } from './block-transfer.ts'
import { type ClientExchanges, failure, type TokenHandle } from './client-exchanges.ts'
import { Code, codeName, codeOfMethod } from './codes.ts'
import { Deadline } from './deadline.ts'
import type { CoapLimits } from './limits.ts'
import { encodeTail, type Message } from './message.ts'
import type { CoapResponse, Observation, ObserveCallbacks, ObserveInit } from './messages.ts'
import { uintOption } from './option-set.ts'
import { OptionNumber } from './options.ts'
import { requestOptions } from './request-options.ts'
import type { Timer, Timers } from './timers.ts'
import type { Peer } from './transport.ts'

/** RFC 7641 §3.4: a notification that comes this much later is newer, whatever its number says. */
const ORDER_WINDOW_MS = 128_000
const HALF_OF_SEQUENCE = 2 ** 23
const FIRST_RETRY_MS = 2000
const LAST_RETRY_MS = 60_000
/** Max-Age 0 forbids to reuse a representation, not to trust that the next one will come. */
const MAX_AGE_ZERO_MS = 30_000
const ECHO_ROUNDS = 2

export interface ObserveClientParts {
  readonly exchanges: ClientExchanges
  readonly limits: CoapLimits
  readonly timers: Timers
  readonly random: () => number
  readonly randomBytes: (length: number) => Uint8Array
}

export class ClientObservation implements Observation {
  readonly ready: Promise<CoapResponse>
  readonly #parts: ObserveClientParts
  readonly #peer: Peer
  readonly #init: ObserveInit
  readonly #callbacks: ObserveCallbacks
  readonly #handle: TokenHandle
  readonly #controller = new AbortController()
  readonly #onCallerAbort = () => this.close()
  #resolveReady: (response: CoapResponse) => void = () => {}
  #rejectReady: (error: Error) => void = () => {}
  #timer: Timer | undefined
  #ended = false
  #registered = false
  #delivered = false
  #echo: Uint8Array | undefined
  #echoRounds = 0
  #failures = 0
  #lastSequence: number | undefined
  #lastMs = 0
  /** The server tells by itself before Max-Age is over, as a sensor does. */
  #regular = false
  #assembling = false
  #waiting: CoapResponse | undefined

  /** @throws `coap/busy`, `coap/bad-uri` */
  constructor(parts: ObserveClientParts, peer: Peer, init: ObserveInit, callbacks: ObserveCallbacks) {
    this.#parts = parts
    this.#peer = peer
    this.#init = init
    this.#callbacks = callbacks
    requestOptions(init)
    this.#handle = parts.exchanges.open(peer)
    this.ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve
      this.#rejectReady = reject
    })
    this.ready.catch(() => {})
    init.signal?.addEventListener('abort', this.#onCallerAbort)
    if (init.signal?.aborted) queueMicrotask(this.#onCallerAbort)
    else this.#start()
  }

  close(): void {
    if (this.#ended) return
    const { exchanges } = this.#parts
    const wasRegistered = this.#registered
    this.#stop()
    if (wasRegistered) {
      exchanges
        .send(this.#handle, this.#peer, this.#request(1))
        .catch(() => {})
        .finally(() => exchanges.close(this.#handle))
    } else {
      exchanges.close(this.#handle)
    }
    this.#rejectReady(new IotchainError('coap/aborted', 'the observation was closed before anything came'))
    this.#callbacks.onEnd?.()
  }

  #start(): void {
    this.#register().catch((error: unknown) => this.#end(asError(error)))
  }

  #stop(): void {
    this.#ended = true
    this.#timer?.cancel()
    this.#init.signal?.removeEventListener('abort', this.#onCallerAbort)
    this.#controller.abort(new IotchainError('coap/aborted', 'the observation was closed'))
  }

  #end(error: Error, refusal?: CoapResponse): void {
    if (this.#ended) return
    this.#stop()
    this.#parts.exchanges.close(this.#handle)
    this.#rejectReady(error)
    this.#callbacks.onEnd?.(error, refusal)
  }

  #request(observe: 0 | 1): { code: number; tail: Uint8Array; confirmable: boolean } {
    const options = [...requestOptions(this.#init), uintOption(OptionNumber.observe, observe)]
    if (this.#echo !== undefined) options.push({ number: OptionNumber.echo, value: this.#echo })
    return {
      code: codeOfMethod(this.#init.method ?? 'GET'),
      tail: encodeTail(options, this.#init.payload),
      confirmable: this.#init.confirmable !== false,
    }
  }

  async #register(): Promise<void> {
    const { exchanges, timers } = this.#parts
    const deadline = new Deadline(timers, this.#init.timeoutMs, this.#controller.signal, () =>
      failure('timeout', this.#peer),
    )
    let message: Message
    try {
      message = await exchanges.send(this.#handle, this.#peer, this.#request(0), deadline.signal)
    } catch (error) {
      if (!this.#ended) this.#onFailure(asError(error))
      return
    } finally {
      deadline.end()
    }
    if (this.#ended) return
    this.#handle.onResponse = (notification) => this.#onMessage(notification, false)
    this.#handle.onFailure = (error) => this.#end(error)
    this.#onMessage(message, true)
  }

  #onMessage(message: Message, registration: boolean): void {
    let response: CoapResponse
    try {
      response = toResponse(message, this.#peer)
    } catch (error) {
      this.#onFailure(asError(error))
      return
    }
    if (!response.ok) {
      this.#onRefused(response)
      return
    }
    this.#echoRounds = 0
    this.#failures = 0
    const { observe } = response
    this.#registered = observe !== undefined
    const now = this.#parts.timers.monotonicMs()
    if (!registration && observe !== undefined && !this.#isFresh(observe, now)) return
    if (!registration) this.#regular = now - this.#lastMs <= maxAgeMs(response) * 1.2
    this.#lastSequence = observe
    this.#lastMs = now
    this.#schedule(this.#renewalMs(response))
    this.#take(response)
  }

  #isFresh(sequence: number, nowMs: number): boolean {
    const last = this.#lastSequence
    if (last === undefined || nowMs > this.#lastMs + ORDER_WINDOW_MS) return true
    return (
      (last < sequence && sequence - last < HALF_OF_SEQUENCE) || (last > sequence && last - sequence > HALF_OF_SEQUENCE)
    )
  }

  /** Assembles one after the other; of what arrives meanwhile only the newest counts. */
  #take(response: CoapResponse): void {
    if (this.#assembling) {
      this.#waiting = response
      return
    }
    this.#assembling = true
    this.#assemble(response)
      .then((whole) => this.#deliver(whole))
      .catch((error: unknown) => {
        if (!this.#ended) this.#onFailure(asError(error))
      })
      .finally(() => {
        this.#assembling = false
        const next = this.#waiting
        this.#waiting = undefined
        if (next !== undefined && !this.#ended) this.#take(next)
      })
  }

  async #assemble(response: CoapResponse): Promise<CoapResponse> {
    const block = response.options.getUint(OptionNumber.block2) ?? 0
    if ((block & 8) === 0) return response
    const { exchanges } = this.#parts
    const handle = exchanges.open(this.#peer)
    try {
      const { persistent: _persistent, timeoutMs: _timeoutMs, ...init } = this.#init
      return await new BlockTransfer(this.#parts, handle, this.#peer, init, this.#controller.signal).download(response)
    } finally {
      exchanges.close(handle)
    }
  }

  #deliver(response: CoapResponse): void {
    if (this.#ended) return
    this.#delivered = true
    this.#resolveReady(response)
    try {
      this.#callbacks.onNotification(response)
    } catch (error) {
      this.#end(asError(error))
    }
  }

  /** Before Max-Age is over; a little after it where the server tells regularly by itself (RFC 7641 §3.3.1). */
  #renewalMs(response: CoapResponse): number {
    const { limits, random } = this.#parts
    const age = maxAgeMs(response)
    const grace = Math.min(5000 + 10_000 * random(), Math.max(1000, age))
    const wanted = this.#regular && this.#registered ? age + grace : age * (0.75 + 0.15 * random())
    return Math.min(Math.max(1000, wanted), limits.observeRefreshMs * (0.9 + 0.1 * random()))
  }

  #schedule(delayMs: number): void {
    this.#timer?.cancel()
    this.#timer = this.#parts.timers.after(delayMs, () => this.#start())
  }

  #onRefused(response: CoapResponse): void {
    const echo = response.code === Code.unauthorized ? response.options.get(OptionNumber.echo) : undefined
    this.#registered = false
    if (echo !== undefined && this.#echoRounds < ECHO_ROUNDS) {
      this.#echoRounds++
      this.#echo = echo
      this.#start()
      return
    }
    const { title, detail } = response.problem ?? {}
    const why = [codeName(response.code), title, detail].filter((part) => part !== undefined).join(', ')
    const error = new IotchainError('coap/observe-refused', `the server ended the observation: ${why}`)
    const passing =
      response.code >> 5 === 5 ||
      response.code === Code.tooManyRequests ||
      this.#init.passing?.includes(response.code) === true
    if (passing && (this.#delivered || this.#init.persistent === true)) {
      this.#interrupt(
        error,
        Math.max(this.#retryMs(), response.options.has(OptionNumber.maxAge) ? maxAgeMs(response) : 0),
        response,
      )
    } else {
      this.#end(error, response)
    }
  }

  #onFailure(error: Error): void {
    const final = isIotchainError(error) && (error.code === 'coap/closed' || error.code === 'coap/peer-gone')
    if (final || (!this.#delivered && this.#init.persistent !== true)) {
      this.#end(error)
      return
    }
    this.#interrupt(error, this.#retryMs())
  }

  #interrupt(error: Error, retryMs: number, refusal?: CoapResponse): void {
    // notifications of a relation that the server still knows go on arriving meanwhile
    this.#handle.onResponse = (notification) => this.#onMessage(notification, false)
    this.#handle.onFailure = (failed) => this.#end(failed)
    this.#schedule(retryMs)
    this.#callbacks.onInterrupted?.(error, refusal)
  }

  #retryMs(): number {
    const backOff = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures++)
    return backOff * (0.5 + 0.5 * this.#parts.random())
  }
}

function maxAgeMs(response: CoapResponse): number {
  return response.maxAge === 0 ? MAX_AGE_ZERO_MS : response.maxAge * 1000
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new IotchainError('coap/bad-response', String(error))
}
