/**
 * Brings sealed objects to the proxy: fresh ones first, in order; then the backlog, oldest first, into its history.
 * Nothing is forgotten before the proxy has taken it or has said that it never will.
 */
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { decodeBatchReply, encodeBatch } from '../protocol/messages/batch.ts'
import type { Logger } from '../runtime/log.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { Code, codeName, isSuccess } from '../transport/coap/codes.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { refusal } from './refusal.ts'
import { segmentsOf } from './sealed-object.ts'
import type { QueuedObject, SealedStore } from './sealed-store.ts'
import { Task } from './task.ts'

export interface UploaderOptions {
  readonly address: Address
  readonly objects: SealedStore
  readonly log: Logger
  /** A client of the proxy; closed by the uploader. */
  readonly dial: () => Promise<CoapClient>
  readonly nowSeconds: () => number | undefined
  readonly retry: { readonly initial: number; readonly max: number }
}

/** The proxy takes an object as a resource's newest up to 300 s after it was sealed (protocol.md §4.6). */
const FRESH_SECONDS = 240
/** One transfer of the backlog: so many objects, of so many octets together. */
const BATCH_OBJECTS = 64
const BATCH_OCTETS = 48_000
const REQUEST_MS = 20_000
/** A proxy that does not know the device's credential yet fetches it; after so many refusals the object is given up. */
const UNKNOWN_SIGNER_TRIES = 10

export class Uploader {
  readonly #options: UploaderOptions
  readonly #task: Task
  #client: CoapClient | undefined
  #refusals = 0
  /** False once the proxy has said that it knows no batches. */
  #batches = true
  uploaded = 0
  /** Objects that the proxy will never take. */
  refused = 0

  constructor(options: UploaderOptions) {
    this.#options = options
    this.#task = new Task(
      { name: 'upload', log: options.log, initialMs: options.retry.initial, maxMs: options.retry.max },
      (signal) => this.#upload(signal),
    )
  }

  get lastError(): unknown {
    return this.#task.lastError
  }

  start(): void {
    this.#task.start()
  }

  /** There is something to bring. */
  wake(): void {
    this.#task.nudge()
  }

  async stop(): Promise<void> {
    const stopped = this.#task.stop()
    await this.#client?.close()
    await stopped
  }

  async #upload(signal: AbortSignal): Promise<number | undefined> {
    const { objects, dial, nowSeconds } = this.#options
    // A proxy whose clock is behind takes nothing fresh before that is set right; what is older it takes.
    let early: Error | undefined
    while (!signal.aborted) {
      const minIat = (nowSeconds() ?? 0) - FRESH_SECONDS
      const fresh = early === undefined ? objects.live(minIat) : undefined
      const backlog = fresh === undefined ? await objects.backlog(this.#batches ? BATCH_OBJECTS : 1, minIat) : []
      const first = fresh ?? backlog[0]
      if (first === undefined) {
        if (early !== undefined) throw early
        return undefined
      }
      this.#client ??= await dial()
      try {
        if (fresh !== undefined) early = await this.#put(this.#client, fresh, false)
        else if (this.#batches) await this.#batch(this.#client, fitting(backlog))
        else {
          const refused = await this.#put(this.#client, first, true)
          if (refused !== undefined) throw refused
        }
      } catch (error) {
        await this.#close()
        throw error
      }
    }
    return undefined
  }

  /** @returns why the proxy does not take it yet, if that is because of its time */
  async #put(client: CoapClient, object: QueuedObject, late: boolean): Promise<Error | undefined> {
    const path = ['d', this.#options.address, ...segmentsOf(object.path)]
    const reply = await client.put(path, object.signed, {
      contentFormat: ContentFormat.coseSign1,
      query: late ? ['backlog'] : [],
      timeoutMs: REQUEST_MS,
    })
    if (reply.code === Code.conflict && !late) {
      // Something newer is there already: it belongs into the history.
      return this.#put(client, object, true)
    }
    const error = refusal(reply, 'the proxy does not take the object now')
    if (reply.problem?.title === 'object/future') return error
    if (!this.#settle(object, reply.code, reply.problem?.detail)) throw error
    return undefined
  }

  async #batch(client: CoapClient, batch: readonly QueuedObject[]): Promise<void> {
    const items = batch.map((o) => ({ path: segmentsOf(o.path), object: o.signed }))
    const reply = await client.post(['d', this.#options.address, '@batch'], encodeBatch(items), {
      contentFormat: ContentFormat.cbor,
      timeoutMs: REQUEST_MS,
    })
    if (reply.code === Code.methodNotAllowed || reply.code === Code.notFound) {
      this.#batches = false
      return
    }
    if (!reply.ok) throw refusal(reply, 'the proxy does not take the backlog now')
    const codes = decodeBatchReply(reply.payload)
    const left = batch.filter((object, i) => !this.#settle(object, codes[i] ?? Code.serviceUnavailable, undefined))
    if (left.length > 0) {
      throw new IotchainError('device/refused', `the proxy does not take ${left.length} objects of the backlog now`)
    }
  }

  /** What the proxy said of an object. @returns false when it is to be brought again later */
  #settle(object: QueuedObject, code: number, problem: string | undefined): boolean {
    const { objects, log } = this.#options
    if (isSuccess(code)) {
      this.uploaded++
      this.#refusals = 0
      objects.done(object)
      return true
    }
    if (code >> 5 === 5 || code === Code.tooManyRequests || code === Code.notFound) return false
    const unknown = code === Code.unauthorized || code === Code.forbidden
    if (unknown && ++this.#refusals < UNKNOWN_SIGNER_TRIES) return false
    this.#refusals = 0
    this.refused++
    objects.done(object)
    const { path, seq } = object
    log.limited('upload-refused', 'warn', { path, seq, reply: codeName(code), problem }, 'the proxy refuses an object')
    return true
  }

  async #close(): Promise<void> {
    const client = this.#client
    this.#client = undefined
    await client?.close().catch(() => undefined)
  }
}

/** As many as one transfer may carry; at least one. */
function fitting(objects: readonly QueuedObject[]): readonly QueuedObject[] {
  let octets = 0
  const end = objects.findIndex((o, i) => {
    octets += o.signed.length + 64
    return i > 0 && octets > BATCH_OCTETS
  })
  return end < 0 ? objects : objects.slice(0, end)
}
