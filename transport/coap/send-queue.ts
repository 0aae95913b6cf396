/**
 * NSTART (RFC 7252 §4.7): how many interactions may be outstanding with one peer; the others wait in order.
 * Holding a slot is separate from what is sent in it, because a NON request holds one too until it is answered.
 */
import type { CoapLimits } from './limits.ts'
import type { Peer } from './transport.ts'

interface Line {
  active: number
  readonly waiting: Slot[]
}

export class Slot {
  readonly peerKey: string
  readonly start: () => void
  state: 'waiting' | 'held' | 'free' = 'waiting'

  constructor(peerKey: string, start: () => void) {
    this.peerKey = peerKey
    this.start = start
  }
}

export class SendQueue {
  readonly #lines = new Map<string, Line>()
  readonly #limits: CoapLimits
  #waiting = 0

  constructor(limits: CoapLimits) {
    this.#limits = limits
  }

  /** Calls `start` at once or when it is this message's turn. Undefined: too much waits already. */
  take(peer: Peer, start: () => void): Slot | undefined {
    const line = this.#lines.get(peer.key)
    const slot = new Slot(peer.key, start)
    if (line === undefined) {
      this.#lines.set(peer.key, { active: 1, waiting: [] })
    } else if (line.active < this.#limits.nstart) {
      line.active++
    } else {
      if (line.waiting.length >= this.#limits.queuedPerPeer || this.#waiting >= this.#limits.queued) return undefined
      line.waiting.push(slot)
      this.#waiting++
      return slot
    }
    slot.state = 'held'
    start()
    return slot
  }

  /** Gives the slot back, held or waiting; a second time does nothing. */
  free(slot: Slot): void {
    const { state } = slot
    if (state === 'free') return
    slot.state = 'free'
    const line = this.#lines.get(slot.peerKey)
    if (line === undefined) return
    if (state === 'waiting') {
      const at = line.waiting.indexOf(slot)
      if (at >= 0) line.waiting.splice(at, 1)
      this.#waiting--
      return
    }
    line.active--
    const next = line.waiting.shift()
    if (next !== undefined) {
      this.#waiting--
      line.active++
      next.state = 'held'
      next.start()
    } else if (line.active === 0) {
      this.#lines.delete(slot.peerKey)
    }
  }

  get size(): number {
    return this.#waiting
  }
}
