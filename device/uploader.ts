/**
 * Brings sealed objects to the proxy: fresh ones first, in order; then the backlog, oldest first, into its history.
 * Nothing is forgotten before the proxy has taken it or has said that it never will.
 */
import type { Address } from '../protocol/messages/address.ts'
import type { Logger } from '../runtime/log.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { Code, codeName } from '../transport/coap/codes.ts'
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
const BACKLOG_AT_ONCE = 16
/** A proxy that does not know the device's credential yet fetches it; after so many refusals the object is given up. */
const UNKNOWN_SIGNER_TRIES = 10

export class Uploader {
  readonly #options: UploaderOptions
  readonly #task: Task
  #client: CoapClient | undefined
  #refusals = 0
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
    let backlog: QueuedObject[] = []
    while (!signal.aborted) {
      const fresh = objects.live((nowSeconds() ?? 0) - FRESH_SECONDS)
      if (fresh === undefined && backlog.length === 0) backlog = await objects.backlog(BACKLOG_AT_ONCE)
      const object = fresh ?? backlog.shift()
      if (object === undefined) return undefined
      this.#client ??= await dial()
      try {
        await this.#put(this.#client, object, fresh === undefined)
      } catch (error) {
        await this.#close()
        throw error
      }
    }
    return undefined
  }

  async #put(client: CoapClient, object: QueuedObject, late: boolean): Promise<void> {
    const { address, objects, log } = this.#options
    const path = ['d', address, ...segmentsOf(object.path)]
    const reply = await client.put(path, object.signed, {
      contentFormat: ContentFormat.coseSign1,
      query: late ? ['backlog'] : [],
    })
    if (reply.ok) {
      this.uploaded++
      this.#refusals = 0
      objects.done(object)
      return
    }
    if (reply.code === Code.conflict && !late) {
      // Something newer is there already: it belongs into the history.
      await this.#put(client, object, true)
      return
    }
    const patience = reply.code >> 5 === 5 || reply.code === Code.tooManyRequests || reply.code === Code.notFound
    const unknown =
      (reply.code === Code.unauthorized || reply.code === Code.forbidden) && ++this.#refusals < UNKNOWN_SIGNER_TRIES
    if (patience || unknown) throw refusal(reply, 'the proxy does not take the object now')
    this.#refusals = 0
    this.refused++
    objects.done(object)
    log.limited(
      'upload-refused',
      'warn',
      { path: object.path, seq: object.seq, reply: codeName(reply.code), problem: reply.problem?.detail },
      'the proxy refuses an object',
    )
  }

  async #close(): Promise<void> {
    const client = this.#client
    this.#client = undefined
    await client?.close().catch(() => undefined)
  }
}
