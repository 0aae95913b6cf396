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

export class ReadyReplies {
  readonly #limits: CoapLimits
  readonly #replies = new Map<string, ReadyReply>()
  readonly #keysOfPath = new Map<string, Set<string>>()

  constructor(limits: CoapLimits) {
    this.#limits = limits
  }

  get size(): number {
    return this.#replies.size
  }

  /** @param key the option octets as a binary string */
  find(key: string): ReadyReply | undefined {
    return this.#replies.get(key)
  }

  keep(key: string, reply: ReadyReply): void {
    if (key.length > MAX_READY_KEY || this.#limits.readyReplies === 0) return
    if (this.#replies.size >= this.#limits.readyReplies) this.clear()
    this.#replies.set(key, reply)
    let keys = this.#keysOfPath.get(reply.pathText)
    if (keys === undefined) {
      keys = new Set()
      this.#keysOfPath.set(reply.pathText, keys)
    }
    keys.add(key)
  }

  forget(pathText: string): void {
    const keys = this.#keysOfPath.get(pathText)
    if (keys === undefined) return
    for (const key of keys) this.#replies.delete(key)
    this.#keysOfPath.delete(pathText)
  }

  clear(): void {
    this.#replies.clear()
    this.#keysOfPath.clear()
  }
}
