/**
 * A resource followed: CoAP observe underneath (which registers again by itself), each notification verified and
 * opened in turn. A refused one is told and forgotten; the watch goes on.
 */
import { Code } from '../transport/coap/codes.ts'
import type { CoapResponse, Observation } from '../transport/coap/messages.ts'
import { responseError } from './errors.ts'
import { acceptOf, describe, type ObjectPlace, pathAt } from './fetch.ts'
import type { Reading, ReadingOpener } from './open.ts'

export interface WatchCallbacks {
  /** A new reading; one that was told already is not told again. */
  readonly onReading: (reading: Reading) => void
  /** What came could not be accepted (`object/…`, `client/…`). */
  readonly onRefused?: ((error: Error) => void) | undefined
  /** The server is silent, or has nothing to give, for now; the watch goes on trying. */
  readonly onInterrupted?: ((error: Error) => void) | undefined
  /** The watch is over: without an error after `close()`, with `client/…` where the server will have none of it. */
  readonly onEnd?: ((error?: Error) => void) | undefined
}

export interface WatchOptions {
  readonly form?: 'signed' | 'mac' | undefined
  /** Something was read just now: go on also if the first registration fails for now. */
  readonly persistent?: boolean | undefined
}

/** After the owner had it forgotten, while a device starts or takes another configuration, there is none for a while. */
const PASSING = [Code.notFound]

export class Watch {
  readonly #opener: ReadingOpener
  readonly #place: ObjectPlace
  readonly #form: 'signed' | 'mac'
  readonly #callbacks: WatchCallbacks
  readonly #observation: Observation
  #newest: Uint8Array | undefined
  #working: Promise<void> | undefined
  #closed = false

  constructor(opener: ReadingOpener, place: ObjectPlace, callbacks: WatchCallbacks, options: WatchOptions = {}) {
    const { form = 'signed', persistent } = options
    this.#opener = opener
    this.#place = place
    this.#form = form
    this.#callbacks = callbacks
    const told = (error: Error, refusal: CoapResponse | undefined): Error =>
      refusal === undefined ? error : responseError(refusal, describe(place))
    this.#observation = place.connection.observe(
      pathAt(place),
      {
        onNotification: (response) => this.#notified(response),
        onInterrupted: (error, refusal) => callbacks.onInterrupted?.(told(error, refusal)),
        onEnd: (error, refusal) => {
          this.#closed = true
          callbacks.onEnd?.(error && told(error, refusal))
        },
      },
      { accept: acceptOf(form), persistent, passing: PASSING },
    )
  }

  /** Resolves with the first answer of the server; rejects when there will be none. */
  get ready(): Promise<CoapResponse> {
    return this.#observation.ready
  }

  close(): void {
    this.#closed = true
    this.#observation.close()
  }

  #notified(response: CoapResponse): void {
    if (!response.ok) {
      this.#callbacks.onRefused?.(responseError(response, describe(this.#place)))
      return
    }
    this.#newest = response.payload
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined
    })
  }

  /** Only the newest counts: what arrives while one is being opened replaces what waits. */
  async #work(): Promise<void> {
    while (this.#newest !== undefined && !this.#closed) {
      const bytes = this.#newest
      this.#newest = undefined
      try {
        const reading = await this.#opener.open(bytes, {
          device: this.#place.device,
          path: this.#place.path,
          form: this.#form,
        })
        if (!reading.repeated && !this.#closed) this.#callbacks.onReading(reading)
      } catch (error) {
        if (!this.#closed) this.#callbacks.onRefused?.(error as Error)
      }
    }
  }
}
