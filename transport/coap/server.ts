/**
 * What a server program sees of CoAP: requests, replies, resources. `Router` (router.ts) finds the resource;
 * everything that the protocol itself asks for is done by the engine before and after a handler:
 * block-wise transfer both ways, ETag → 2.03, Accept → 4.06, If-Match / If-None-Match → 4.12, observe, No-Response,
 * deduplication, errors as problem details. A handler sees whole bodies and returns whole bodies.
 */
import type { CoapMethod } from './codes.ts'
import type { CoapOption, OptionSet } from './option-set.ts'
import type { Peer } from './transport.ts'

export interface CoapRequest {
  readonly method: CoapMethod
  /** Uri-Path segments, decoded; `[]` is `/`. */
  readonly path: readonly string[]
  /** The path as text, segments percent-encoded: `/s/temp`. */
  readonly pathText: string
  /** Uri-Query items, each `name=value` or `name`. */
  readonly query: readonly string[]
  /** The whole body. */
  readonly payload: Uint8Array
  readonly contentFormat: number | undefined
  readonly accept: number | undefined
  readonly etags: readonly Uint8Array[]
  readonly ifMatch: readonly Uint8Array[]
  readonly ifNoneMatch: boolean
  /** 0 registers, 1 deregisters. The engine has dealt with it already. */
  readonly observe: number | undefined
  /** What the `:name` and `*rest` parts of the pattern matched; `*rest` is the remaining path as text without leading `/`. */
  readonly params: Readonly<Record<string, string>>
  readonly peer: Peer
  readonly options: OptionSet
  readonly confirmable: boolean
  /** Sent to a group: only replies of class 2 leave, after a random delay (RFC 7252 §8.2). */
  readonly multicast: boolean
  /** The source address is known not to be spoofed: DTLS, loopback, a trusted prefix, Echo or an ACK. */
  readonly verified: boolean
  /** Made by the engine to build a notification: there is no datagram behind it. */
  readonly notification: boolean
}

export interface CoapReply {
  /** e.g. `Code.content` or `code(2, 5)` */
  readonly code: number
  readonly payload?: Uint8Array | undefined
  readonly contentFormat?: number | undefined
  /** 1 to 8 octets. A body that needs several blocks gets one from the engine if it has none. */
  readonly etag?: Uint8Array | undefined
  /** Seconds; absent means 60 (RFC 7252 §5.10.5). */
  readonly maxAge?: number | undefined
  readonly locationPath?: readonly string[] | undefined
  readonly locationQuery?: readonly string[] | undefined
  /** Any other option. */
  readonly options?: readonly CoapOption[] | undefined
  /**
   * Called once when the client has acknowledged the reply. Such a reply goes as a separate confirmable response,
   * in several blocks: the last of them.
   * Never called for a source that is not verified, nor when the client is gone.
   */
  readonly onAcknowledged?: (() => void) | undefined
}

export type Handler = (request: CoapRequest) => CoapReply | Promise<CoapReply>

/** Target attributes for `/.well-known/core` (RFC 6690 §3). `ct` is filled in by the program, `obs` by the engine. */
export interface LinkAttributes {
  readonly rt?: string | readonly string[] | undefined
  readonly if?: string | readonly string[] | undefined
  readonly ct?: number | readonly number[] | undefined
  readonly sz?: number | undefined
  readonly title?: string | undefined
  readonly [name: string]: string | number | boolean | readonly string[] | readonly number[] | undefined
}

export interface Link {
  /** `/s/temp` */
  readonly href: string
  readonly attributes: LinkAttributes
}

export interface Resource {
  /**
   * `/.well-known/x`, `/bc/:gid`, `/d/:device/*path`. A static segment wins over `:name`, that over `*rest`
   * (one or more segments). A literal segment is percent-encoded.
   */
  readonly pattern: string
  readonly get?: Handler | undefined
  readonly post?: Handler | undefined
  readonly put?: Handler | undefined
  readonly delete?: Handler | undefined
  readonly fetch?: Handler | undefined
  readonly patch?: Handler | undefined
  readonly ipatch?: Handler | undefined
  /** GET (and FETCH) may be observed; call `notify(path)` when the state changed. */
  readonly observable?: boolean | undefined
  /** The link in `/.well-known/core`; a resource without attributes, or with parameters in its pattern, is not listed. */
  readonly attributes?: LinkAttributes | undefined
  /** Links for the resources behind a pattern with parameters, asked at each discovery. */
  readonly links?: (() => readonly Link[]) | undefined
  /** Largest body of a request in octets; default `limits.bodyOctets`. More draws 4.13. */
  readonly bodyOctets?: number | undefined
  /** Runs before anything of a body is kept (at the first block of an upload): return a reply to refuse. */
  readonly before?: ((request: CoapRequest) => CoapReply | undefined) | undefined
  /** The handlers look at `ifMatch` and `ifNoneMatch` themselves; otherwise the engine asks `get` for the ETag. */
  readonly handlesPreconditions?: boolean | undefined
  /** Answers requests sent to a group too (never by default, but for `/.well-known/core`). */
  readonly multicast?: boolean | undefined
  /** Demand an Echo value not older than this many seconds before the handler runs (RFC 9175 §2.3). */
  readonly freshSeconds?: number | undefined
}

export { Router, type RouterOptions } from './router.ts'
