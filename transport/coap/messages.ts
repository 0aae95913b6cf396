/** What a client program sees of CoAP: requests to make, responses, observations. */
import { fromUtf8 } from '../../protocol/bytes.ts'
import { type CoapMethod, codeText, isSuccess } from './codes.ts'
import { ContentFormat } from './content-format.ts'
import type { CoapOption, OptionSet } from './option-set.ts'
import { OptionNumber } from './options.ts'
import { decodeProblem, type ProblemDetails } from './problem-details.ts'
import type { Peer } from './transport.ts'

export interface RequestInit {
  /** Default GET. */
  readonly method?: CoapMethod | undefined
  /** `/s/temp?from=1` with segments percent-encoded, or the segments themselves. */
  readonly path: string | readonly string[]
  /** Items to add to those in `path`. */
  readonly query?: readonly string[] | undefined
  /** Uri-Host, when the server has several names. */
  readonly host?: string | undefined
  readonly payload?: Uint8Array | undefined
  readonly contentFormat?: number | undefined
  readonly accept?: number | undefined
  /** ETags of representations at hand: the response may be 2.03. */
  readonly etag?: Uint8Array | readonly Uint8Array[] | undefined
  readonly ifMatch?: Uint8Array | readonly Uint8Array[] | undefined
  readonly ifNoneMatch?: boolean | undefined
  readonly options?: readonly CoapOption[] | undefined
  /** Default true: CON. */
  readonly confirmable?: boolean | undefined
  /** Block size to ask for and to send with: 16 … 1024, default 1024. */
  readonly blockOctets?: number | undefined
  /** For the whole operation, all blocks included. Default: what the protocol's own timers give (about 93 s). */
  readonly timeoutMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export class CoapResponse {
  readonly code: number
  readonly payload: Uint8Array
  readonly options: OptionSet
  readonly peer: Peer

  constructor(code: number, payload: Uint8Array, options: OptionSet, peer: Peer) {
    this.code = code
    this.payload = payload
    this.options = options
    this.peer = peer
  }

  /** Class 2. */
  get ok(): boolean {
    return isSuccess(this.code)
  }

  /** `'2.05'` */
  get codeText(): string {
    return codeText(this.code)
  }

  get contentFormat(): number | undefined {
    return this.options.getUint(OptionNumber.contentFormat)
  }

  get etag(): Uint8Array | undefined {
    return this.options.get(OptionNumber.etag)
  }

  /** Seconds; 60 when the option is absent (RFC 7252 §5.10.5). */
  get maxAge(): number {
    return this.options.getUint(OptionNumber.maxAge) ?? 60
  }

  /** The Location-Path segments; empty when there are none. */
  get locationPath(): string[] {
    return this.options.getAll(OptionNumber.locationPath).map(fromUtf8)
  }

  get locationQuery(): string[] {
    return this.options.getAll(OptionNumber.locationQuery).map(fromUtf8)
  }

  get observe(): number | undefined {
    return this.options.getUint(OptionNumber.observe)
  }

  /** The problem that an error response tells (RFC 9290), undefined if it tells none that can be read. */
  get problem(): ProblemDetails | undefined {
    return this.contentFormat === ContentFormat.problemDetails ? decodeProblem(this.payload) : undefined
  }

  /** The payload as text. @throws `message/bad-utf8` */
  get text(): string {
    return fromUtf8(this.payload)
  }
}

export interface ObserveInit extends Omit<RequestInit, 'method' | 'timeoutMs'> {
  /** GET (default) or FETCH. */
  readonly method?: 'GET' | 'FETCH' | undefined
  /** For each registration. */
  readonly timeoutMs?: number | undefined
  /** Go on trying even if the first registration gets no answer. Default: that ends the observation. */
  readonly persistent?: boolean | undefined
  /** Refusals that pass by themselves, beside 5.xx and 4.29: the client goes on registering after them too. */
  readonly passing?: readonly number[] | undefined
}

export interface ObserveCallbacks {
  /** The first representation and each later one, whole, newest only, in order. */
  readonly onNotification: (response: CoapResponse) => void
  /**
   * The observation is over: without an error after `close()`, else with the reason (`coap/observe-refused` when the
   * server says 4.xx, then with its answer; `coap/peer-gone`, `coap/closed`).
   */
  readonly onEnd?: ((error?: Error, refusal?: CoapResponse) => void) | undefined
  /** The server does not answer, or refuses, for now; the client goes on registering again by itself. */
  readonly onInterrupted?: ((error: Error, refusal?: CoapResponse) => void) | undefined
}

export interface Observation {
  /** Resolves when the first representation has arrived; rejects if the observation ends before. */
  readonly ready: Promise<CoapResponse>
  /** Stops: tells the server (Observe=1) and forgets. */
  close(): void
}
