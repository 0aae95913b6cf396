/**
 * Replies in several blocks, kept per peer so that all blocks come from one representation although the resource
 * changes meanwhile (RFC 7959 §2.4). Bodies are kept by reference.
 */
import type { IncomingRequest } from './incoming-request.ts'
import type { CoapLimits } from './limits.ts'
import type { CoapReply } from './server.ts'
import type { CoapStats } from './stats.ts'

interface Snapshot {
  readonly keys: readonly string[]
  readonly peerKey: string
  readonly reply: CoapReply
  readonly octets: number
  touchedMs: number
}

export class Snapshots {
  readonly #limits: CoapLimits
  readonly #stats: CoapStats
  readonly #onKept: () => void
  readonly #byKey = new Map<string, Snapshot>()
  /** In order of last use. */
  readonly #all = new Set<Snapshot>()
  readonly #perPeer = new Map<string, Set<Snapshot>>()
  #octets = 0

  /** @param onKept called when there is something to expire */
  constructor(limits: CoapLimits, stats: CoapStats, onKept: () => void) {
    this.#limits = limits
    this.#stats = stats
    this.#onKept = onKept
  }

  keep(request: IncomingRequest, reply: CoapReply, nowMs: number): void {
    const octets = reply.payload?.length ?? 0
    if (octets > this.#limits.snapshotOctets) return
    const base = request.transferKey()
    // the later requests of one transfer need not repeat the Request-Tag
    const keys = request.requestTag === undefined ? [base] : [base, `${base}|${request.requestTag}`]
    for (const key of keys) this.#unlink(key)
    const snapshot: Snapshot = { keys, peerKey: request.peer.key, reply, octets, touchedMs: nowMs }
    for (const key of keys) this.#byKey.set(key, snapshot)
    this.#all.add(snapshot)
    let mine = this.#perPeer.get(snapshot.peerKey)
    if (mine === undefined) {
      mine = new Set()
      this.#perPeer.set(snapshot.peerKey, mine)
    }
    mine.add(snapshot)
    this.#octets += octets
    if (mine.size > this.#limits.snapshotsPerPeer) this.#remove(mine.values().next().value)
    while (this.#all.size > this.#limits.snapshots || this.#octets > this.#limits.snapshotOctets) {
      this.#remove(this.#all.values().next().value)
    }
    this.#stats.snapshots = this.#all.size
    this.#onKept()
  }

  find(request: IncomingRequest, nowMs: number): CoapReply | undefined {
    if (this.#all.size === 0) return undefined
    const base = request.transferKey()
    const snapshot = this.#byKey.get(request.requestTag === undefined ? base : `${base}|${request.requestTag}`)
    if (snapshot === undefined || nowMs - snapshot.touchedMs >= this.#limits.snapshotIdleMs) return undefined
    snapshot.touchedMs = nowMs
    this.#all.delete(snapshot)
    this.#all.add(snapshot)
    return snapshot.reply
  }

  expire(nowMs: number): void {
    for (const snapshot of this.#all) {
      if (nowMs - snapshot.touchedMs < this.#limits.snapshotIdleMs) return
      this.#remove(snapshot)
    }
  }

  dropPeer(peerKey: string): void {
    for (const snapshot of [...(this.#perPeer.get(peerKey) ?? [])]) this.#remove(snapshot)
  }

  clear(): void {
    for (const snapshot of [...this.#all]) this.#remove(snapshot)
  }

  get size(): number {
    return this.#all.size
  }

  /** A key that now means another snapshot; the old one stays as long as another key leads to it. */
  #unlink(key: string): void {
    const old = this.#byKey.get(key)
    if (old === undefined) return
    this.#byKey.delete(key)
    if (!old.keys.some((other) => this.#byKey.get(other) === old)) this.#remove(old)
  }

  #remove(snapshot: Snapshot | undefined): void {
    if (snapshot === undefined || !this.#all.delete(snapshot)) return
    for (const key of snapshot.keys) if (this.#byKey.get(key) === snapshot) this.#byKey.delete(key)
    const mine = this.#perPeer.get(snapshot.peerKey)
    mine?.delete(snapshot)
    if (mine?.size === 0) this.#perPeer.delete(snapshot.peerKey)
    this.#octets -= snapshot.octets
    this.#stats.snapshots = this.#all.size
  }
}
