/** One client that observes one resource, and what is on its way to it (RFC 7641 §4.1). */
import { IncomingRequest } from './incoming-request.ts'
import type { Confirmable } from './message-layer.ts'
import type { EncodedReply } from './reply.ts'
import type { RouteMatch } from './router.ts'
import type { Timer } from './timers.ts'
import type { Peer } from './transport.ts'

export class Relation {
  readonly key: string
  readonly peer: Peer
  readonly token: Uint8Array
  /** The registration: GET runs again with it. */
  readonly request: IncomingRequest
  readonly match: RouteMatch
  contentFormat: number | undefined
  verified: boolean
  removed = false
  /** A handler is at work; `dirty`: the state changed meanwhile. */
  running = false
  dirty = false
  confirmable: Confirmable | undefined
  pending: EncodedReply | undefined
  timer: Timer | undefined
  rttMs: number | undefined
  notBeforeMs = 0
  sinceConfirmable = 0
  confirmedMs: number
  readonly recentIds: number[] = []

  constructor(request: IncomingRequest, match: RouteMatch, verified: boolean, nowMs: number) {
    this.peer = request.peer
    this.token = Uint8Array.prototype.slice.call(request.message.token)
    this.key = relationKey(request)
    this.request = new IncomingRequest(request.message, request.peer, false)
    this.request.params = match.params
    this.request.payload = request.payload
    this.request.notification = true
    this.match = match
    this.verified = verified
    this.confirmedMs = nowMs
  }

  /** A renewed registration knows what the old one had learned about the way to the client. */
  inherit(old: Relation | undefined): void {
    if (old === undefined) return
    this.rttMs = old.rttMs
    this.notBeforeMs = old.notBeforeMs
    this.sinceConfirmable = old.sinceConfirmable
    this.confirmedMs = old.confirmedMs
  }
}

/** Peer and token name a relation (RFC 7641 §4.1). */
export function relationKey(request: IncomingRequest): string {
  return `${request.peer.key}|${request.message.tokenKey}`
}
