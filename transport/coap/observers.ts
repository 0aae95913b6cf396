/**
 * The server's side of observe (RFC 7641 §4): who wants to know about which resource, and what was told last.
 * Only the newest state counts: what could not be sent yet is replaced by what came after it.
 */
import { Code, isSuccess } from './codes.ts'
import type { IncomingRequest } from './incoming-request.ts'
import type { CoapLimits } from './limits.ts'
import { assemble, MessageType } from './message.ts'
import type { MessageLayer, Outcome } from './message-layer.ts'
import { Relation, relationKey } from './relation.ts'
import type { EncodedReply } from './reply.ts'
import type { RouteMatch } from './router.ts'
import type { CoapReply } from './server.ts'
import type { SourceGuard } from './source-guard.ts'
import type { CoapEvent, CoapStats } from './stats.ts'
import type { Timers } from './timers.ts'
import type { Peer } from './transport.ts'

/** Message IDs of NON notifications by which an RST finds its relation. */
const RECENT_IDS = 4
/** Between NON notifications to a client whose round-trip time is not known (RFC 7641 §4.5.1). */
const UNKNOWN_RTT_MS = 3000
const MAX_REGISTRATION = 1280
/** A source that is not verified has this long to acknowledge its only confirmable notification. */
const FIRST_ACK_MS = 10_000

export interface ObserversParts {
  readonly layer: MessageLayer
  readonly guard: SourceGuard
  readonly limits: CoapLimits
  readonly stats: CoapStats
  readonly timers: Timers
  readonly onEvent: ((event: CoapEvent) => void) | undefined
}

export class Observers {
  readonly #parts: ObserversParts
  readonly #relations = new Map<string, Relation>()
  readonly #byPath = new Map<string, Set<Relation>>()
  readonly #byPeer = new Map<string, Set<Relation>>()
  readonly #byMessageId = new Map<string, Relation>()
  readonly #unverified = new Set<Relation>()
  #sequence = 0

  constructor(parts: ObserversParts) {
    this.#parts = parts
  }

  /** The relations of a path, in order of registration. */
  of(pathText: string): ReadonlySet<Relation> {
    return this.#byPath.get(pathText) ?? NONE
  }

  get size(): number {
    return this.#relations.size
  }

  /**
   * The next Observe value: grows with the clock by 4 a second and by at least 1 each time, so that it goes on
   * growing over a restart.
   */
  nextSequence(): number {
    const clock = Math.floor(this.#parts.timers.nowMs() / 256) & 0xffffff
    const ahead = (clock - this.#sequence) & 0xffffff
    this.#sequence = ahead > 0 && ahead < 0x800000 ? clock : (this.#sequence + 1) & 0xffffff
    return this.#sequence
  }

  /** Adds or renews a relation. Undefined when there is no room: the reply then carries no Observe option. */
  register(request: IncomingRequest, match: RouteMatch, contentFormat: number | undefined): Relation | undefined {
    const { limits, timers } = this.#parts
    const { peer, verified } = request
    // a relation keeps its registration: that of a plain GET or FETCH has some tens of octets
    if (request.message.octets.length > MAX_REGISTRATION || request.payload.length > MAX_REGISTRATION) return undefined
    const renewed = this.#relations.get(relationKey(request))
    this.remove(renewed)
    const mine = this.#byPeer.get(peer.key)
    if ((mine?.size ?? 0) >= limits.observersPerPeer) {
      // a client that restarted and lost its tokens registers anew: its oldest relation to the same path makes room
      const stale = [...(mine ?? [])].find((relation) => relation.request.pathText === request.pathText)
      if (stale === undefined) return undefined
      this.remove(stale)
    }
    if (this.#relations.size >= limits.observers) return undefined
    // of sources that may be spoofed the newest wins: relations that nobody confirms cannot shut out a client
    if (!verified && this.#unverified.size >= limits.observersUnverified) {
      this.remove(this.#unverified.values().next().value)
    }
    const relation = new Relation(request, match, verified, timers.monotonicMs())
    relation.contentFormat = contentFormat
    relation.inherit(renewed)
    this.#relations.set(relation.key, relation)
    addTo(this.#byPath, request.pathText, relation)
    addTo(this.#byPeer, peer.key, relation)
    if (!verified) this.#unverified.add(relation)
    this.#parts.stats.observers = this.#relations.size
    return relation
  }

  /** GET with Observe=1 (RFC 7641 §3.6). */
  deregister(request: IncomingRequest): void {
    this.remove(this.#relations.get(relationKey(request)))
  }

  remove(relation: Relation | undefined): void {
    if (relation === undefined || relation.removed) return
    relation.removed = true
    relation.timer?.cancel()
    if (relation.confirmable !== undefined) this.#parts.layer.cancel(relation.confirmable)
    relation.pending = undefined
    this.#relations.delete(relation.key)
    removeFrom(this.#byPath, relation.request.pathText, relation)
    removeFrom(this.#byPeer, relation.peer.key, relation)
    for (const id of relation.recentIds) this.#byMessageId.delete(`${relation.peer.key}|${id}`)
    this.#unverified.delete(relation)
    this.#parts.stats.observers = this.#relations.size
  }

  removePeer(peer: Peer, reason: string): void {
    const mine = this.#byPeer.get(peer.key)
    if (mine === undefined) return
    for (const relation of [...mine]) this.remove(relation)
    this.#parts.onEvent?.({ kind: 'observer-gone', reason, peer: `${peer.address}:${peer.port}` })
  }

  /** An RST that no CON waits for: is it the answer to a NON notification? */
  onReset(messageId: number, peer: Peer): boolean {
    const relation = this.#byMessageId.get(`${peer.key}|${messageId}`)
    if (relation === undefined) return false
    this.remove(relation)
    return true
  }

  close(): void {
    for (const relation of [...this.#relations.values()]) this.remove(relation)
  }

  /** Sends a notification now, or keeps it until it may be sent. */
  offer(relation: Relation, notification: EncodedReply): void {
    if (relation.removed) return
    const { timers } = this.#parts
    const waitMs = relation.notBeforeMs - timers.monotonicMs()
    if (relation.confirmable === undefined && waitMs <= 0) {
      this.#transmit(relation, notification)
      return
    }
    relation.pending = notification
    if (relation.confirmable !== undefined || relation.timer !== undefined) return
    relation.timer = timers.after(waitMs, () => {
      relation.timer = undefined
      this.#offerPending(relation)
    })
  }

  /** The last word on a relation: an error ends it (RFC 7641 §4.2). */
  finish(relation: Relation, reply: EncodedReply): void {
    const { layer, guard } = this.#parts
    const { peer, token } = relation
    this.remove(relation)
    if (!relation.verified && !guard.spend(peer, 4 + token.length + reply.tail.length)) return
    layer.confirm(peer, assemble(MessageType.con, reply.code, 0, token, reply.tail), {
      maxRetransmit: relation.verified ? undefined : 0,
      suspicious: !relation.verified,
      onSettled: (outcome) => {
        if (outcome === 'acknowledged') guard.verify(peer)
      },
    })
  }

  /** Whether a notification may go on this relation, or what ends it instead (RFC 7641 §4.2, §4.3.1). */
  verdict(relation: Relation, reply: CoapReply): CoapReply | undefined {
    if (!isSuccess(reply.code)) return reply
    const changed = reply.code === Code.content && reply.contentFormat !== relation.contentFormat
    return changed ? { code: Code.notAcceptable } : undefined
  }

  #offerPending(relation: Relation): void {
    const { pending } = relation
    relation.pending = undefined
    if (pending !== undefined) this.offer(relation, pending)
  }

  #transmit(relation: Relation, notification: EncodedReply): void {
    const { guard, limits, layer, stats, timers } = this.#parts
    const { peer, token } = relation
    const now = timers.monotonicMs()
    if (!relation.verified && guard.isVerified(peer)) this.#markVerified(relation)
    if (!relation.verified && !guard.spend(peer, 4 + token.length + notification.tail.length)) {
      stats.dropped.amplification++
      this.remove(relation)
      return
    }
    stats.notifications++
    const due =
      relation.sinceConfirmable >= limits.confirmEvery - 1 || now - relation.confirmedMs >= limits.confirmEveryMs
    // the first is confirmable too: it tells the round-trip time, and whether anybody listens
    if (due || relation.rttMs === undefined || !relation.verified) {
      relation.confirmable = layer.confirm(
        peer,
        assemble(MessageType.con, notification.code, 0, token, notification.tail),
        {
          maxRetransmit: relation.verified ? undefined : 0,
          firstTimeoutMs: relation.verified ? undefined : FIRST_ACK_MS,
          suspicious: !relation.verified,
          refresh: () => this.#refresh(relation),
          onSettled: (outcome, _reply, elapsedMs, transmissions) => {
            this.#onSettled(relation, outcome, transmissions === 1 ? elapsedMs : UNKNOWN_RTT_MS)
          },
        },
      )
      return
    }
    relation.sinceConfirmable++
    relation.notBeforeMs = now + Math.min(relation.rttMs, UNKNOWN_RTT_MS)
    const messageId = layer.nextMessageId(peer)
    this.#rememberId(relation, messageId)
    layer.transmit(assemble(MessageType.non, notification.code, messageId, token, notification.tail), peer)
  }

  // a retransmission carries the newest state (RFC 7641 §4.5.2)
  #refresh(relation: Relation): Uint8Array | undefined {
    const { pending } = relation
    if (pending === undefined) return undefined
    relation.pending = undefined
    return assemble(MessageType.con, pending.code, 0, relation.token, pending.tail)
  }

  #onSettled(relation: Relation, outcome: Outcome, rttMs: number): void {
    relation.confirmable = undefined
    if (relation.removed) return
    switch (outcome) {
      case 'acknowledged':
        this.#parts.guard.verify(relation.peer)
        this.#markVerified(relation)
        relation.rttMs = rttMs
        relation.sinceConfirmable = 0
        relation.confirmedMs = this.#parts.timers.monotonicMs()
        this.#offerPending(relation)
        return
      case 'queue-full':
        return
      case 'reset':
        this.remove(relation)
        return
      default:
        // nobody is there: that goes for all that this peer observes
        this.removePeer(relation.peer, outcome)
    }
  }

  #markVerified(relation: Relation): void {
    relation.verified = true
    this.#unverified.delete(relation)
  }

  #rememberId(relation: Relation, messageId: number): void {
    const { peer, recentIds } = relation
    if (recentIds.length >= RECENT_IDS) this.#byMessageId.delete(`${peer.key}|${recentIds.shift()}`)
    recentIds.push(messageId)
    this.#byMessageId.set(`${peer.key}|${messageId}`, relation)
  }
}

const NONE: ReadonlySet<Relation> = new Set()

function addTo(index: Map<string, Set<Relation>>, key: string, relation: Relation): void {
  const set = index.get(key)
  if (set === undefined) index.set(key, new Set([relation]))
  else set.add(relation)
}

function removeFrom(index: Map<string, Set<Relation>>, key: string, relation: Relation): void {
  const set = index.get(key)
  set?.delete(relation)
  if (set?.size === 0) index.delete(key)
}
