/**
 * Which messages were seen, and what they were answered with (RFC 7252 §4.2, §4.5). Kept as octets, bounded by
 * octets and time. Only where it matters: an idempotent GET or FETCH has no entry, its handler may run again.
 */
import type { CoapLimits } from './limits.ts'
import { type Message, MessageType } from './message.ts'
import type { CoapStats } from './stats.ts'
import type { Peer } from './transport.ts'

export interface Seen {
  readonly peerKey: string
  readonly messageId: number
  readonly expiresMs: number
  /** Of the whole datagram: a peer that uses a message ID for something else has come round, it is no duplicate. */
  readonly fingerprint: number
  /** The datagram that answered; undefined while nothing did. */
  answer: Uint8Array | undefined
}

/** Keys, map entries and object: what an entry costs besides its octets, measured on Node 20. */
const ENTRY_OVERHEAD = 240
/** And what the first entry of a peer adds: its map. A flood comes from as many peers as it has datagrams. */
const PEER_OVERHEAD = 480

export class Deduplication {
  readonly #limits: CoapLimits
  readonly #stats: CoapStats
  /** In order of arrival, which is nearly the order of expiry. */
  readonly #order = new Set<Seen>()
  readonly #peers = new Map<string, Map<number, Seen>>()
  readonly #onKept: () => void
  #octets = 0

  /** @param onKept called when there is something to expire */
  constructor(limits: CoapLimits, stats: CoapStats, onKept: () => void = () => {}) {
    this.#limits = limits
    this.#stats = stats
    this.#onKept = onKept
  }

  find(message: Message, peer: Peer, nowMs: number): Seen | undefined {
    if (this.#order.size === 0) return undefined
    const seen = this.#peers.get(peer.key)?.get(message.messageId)
    if (seen === undefined || seen.expiresMs <= nowMs) return undefined
    return seen.fingerprint === fingerprint(message.octets) ? seen : undefined
  }

  remember(message: Message, peer: Peer, nowMs: number): Seen {
    let mine = this.#peers.get(peer.key)
    const old = mine?.get(message.messageId)
    if (old !== undefined) this.#forget(old)
    this.expire(nowMs)
    mine = this.#peers.get(peer.key)
    if (mine !== undefined && mine.size >= this.#limits.deduplicationPerPeer) {
      this.#forget(mine.values().next().value as Seen)
      mine = this.#peers.get(peer.key)
    }
    if (mine === undefined) {
      mine = new Map()
      this.#peers.set(peer.key, mine)
      this.#grow(PEER_OVERHEAD)
    }
    const lifetime = message.type === MessageType.con ? this.#limits.exchangeLifetimeMs : this.#limits.nonLifetimeMs
    const seen: Seen = {
      peerKey: peer.key,
      messageId: message.messageId,
      expiresMs: nowMs + lifetime,
      fingerprint: fingerprint(message.octets),
      answer: undefined,
    }
    mine.set(message.messageId, seen)
    this.#order.add(seen)
    this.#grow(ENTRY_OVERHEAD)
    this.#onKept()
    return seen
  }

  /** The octets are copied: a datagram may be a slice of something larger. */
  answer(seen: Seen, datagram: Uint8Array): void {
    if (!this.#order.has(seen)) return
    const before = seen.answer?.length ?? 0
    seen.answer = Uint8Array.prototype.slice.call(datagram)
    this.#grow(datagram.length - before)
    this.#shrink()
  }

  /** Takes a message for unseen again: nothing came of it. */
  forget(seen: Seen): void {
    if (this.#order.has(seen)) this.#forget(seen)
  }

  dropPeer(peerKey: string): void {
    for (const seen of [...(this.#peers.get(peerKey)?.values() ?? [])]) this.#forget(seen)
  }

  clear(): void {
    this.#order.clear()
    this.#peers.clear()
    this.#grow(-this.#octets)
  }

  get size(): number {
    return this.#order.size
  }

  /** Drops what is too old. */
  expire(nowMs: number): void {
    for (const seen of this.#order) {
      if (seen.expiresMs > nowMs) break
      this.#forget(seen)
    }
    this.#shrink()
  }

  #shrink(): void {
    for (const seen of this.#order) {
      if (this.#octets <= this.#limits.deduplicationOctets) return
      this.#forget(seen)
    }
  }

  #forget(seen: Seen): void {
    this.#order.delete(seen)
    const mine = this.#peers.get(seen.peerKey)
    mine?.delete(seen.messageId)
    if (mine?.size === 0) {
      this.#peers.delete(seen.peerKey)
      this.#grow(-PEER_OVERHEAD)
    }
    this.#grow(-ENTRY_OVERHEAD - (seen.answer?.length ?? 0))
  }

  #grow(octets: number): void {
    this.#octets += octets
    this.#stats.deduplicationOctets = this.#octets
  }
}

/** FNV-1a, 32 bits. */
function fingerprint(octets: Uint8Array): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < octets.length; i++) hash = Math.imul(hash ^ (octets[i] as number), 0x01000193)
  return hash >>> 0
}
