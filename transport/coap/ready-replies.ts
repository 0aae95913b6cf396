/**
 * The fast path: the option octets of a GET lead straight to the octets of its reply. Filled by handlers that return
 * a `ready` reply; emptied for a path when `notify` is called for it, and by Max-Age.
 */
import type { CoapLimits } from './limits.ts'

export interface ReadyReply {
  readonly code: number
  readonly tail: Uint8Array
  readonly pathText: string
  readonly expiresMs: number
}

/** Longer option lists are no plain GET of a reading. */
export const MAX_READY_KEY = 192

interface Entry {
  /** The option octets. */
  readonly key: Uint8Array
  readonly reply: ReadyReply
}

export class ReadyReplies {
  readonly #limits: CoapLimits
  /** By `hashOf` the key; of two keys with one hash the later stays. */
  readonly #entries = new Map<number, Entry>()
  readonly #hashesOfPath = new Map<string, Set<number>>()

  constructor(limits: CoapLimits) {
    this.#limits = limits
  }

  get size(): number {
    return this.#entries.size
  }

  /** @param start where the options begin in the octets of a message */
  find(octets: Uint8Array, start: number): ReadyReply | undefined {
    const entry = this.#entries.get(hashOf(octets, start))
    if (entry === undefined) return undefined
    const { key } = entry
    if (key.length !== octets.length - start) return undefined
    for (let i = 0; i < key.length; i++) if (key[i] !== octets[start + i]) return undefined
    return entry.reply
  }

  /** @param key the option octets; kept as they are */
  keep(key: Uint8Array, reply: ReadyReply): void {
    if (key.length > MAX_READY_KEY || this.#limits.readyReplies === 0) return
    if (this.#entries.size >= this.#limits.readyReplies) this.clear()
    const hash = hashOf(key, 0)
    const before = this.#entries.get(hash)?.reply.pathText
    if (before !== undefined && before !== reply.pathText) {
      const others = this.#hashesOfPath.get(before)
      others?.delete(hash)
      if (others?.size === 0) this.#hashesOfPath.delete(before)
    }
    this.#entries.set(hash, { key, reply })
    let hashes = this.#hashesOfPath.get(reply.pathText)
    if (hashes === undefined) {
      hashes = new Set()
      this.#hashesOfPath.set(reply.pathText, hashes)
    }
    hashes.add(hash)
  }

  forget(pathText: string): void {
    const hashes = this.#hashesOfPath.get(pathText)
    if (hashes === undefined) return
    for (const hash of hashes) this.#entries.delete(hash)
    this.#hashesOfPath.delete(pathText)
  }

  clear(): void {
    this.#entries.clear()
    this.#hashesOfPath.clear()
  }
}

/** FNV-1a. Whoever makes two keys meet puts one of them back on the long way, and nothing else. */
function hashOf(octets: Uint8Array, start: number): number {
  let hash = 0x811c9dc5
  for (let i = start; i < octets.length; i++) hash = Math.imul(hash ^ (octets[i] as number), 0x01000193)
  return hash >>> 0
}
