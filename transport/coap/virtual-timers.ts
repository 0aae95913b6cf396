/** Time that moves only when told: for tests and simulations. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Timer, Timers } from './timers.ts'

interface Due {
  readonly at: number
  readonly order: number
  readonly callback: () => void
}

export class VirtualTimers implements Timers {
  #now: number
  readonly #epochMs: number
  #order = 0
  readonly #due = new Set<Due>()

  /** @param epochMs wall clock at the start */
  constructor(epochMs = 1_700_000_000_000) {
    this.#now = 0
    this.#epochMs = epochMs
  }

  nowMs(): number {
    return this.#epochMs + this.#now
  }

  monotonicMs(): number {
    return this.#now
  }

  after(delayMs: number, callback: () => void): Timer {
    const due: Due = { at: this.#now + Math.max(0, delayMs), order: this.#order++, callback }
    this.#due.add(due)
    return { cancel: () => this.#due.delete(due) }
  }

  /** Timers that have not fired: a closed endpoint leaves none. */
  get pending(): number {
    return this.#due.size
  }

  /** Moves time on, firing what falls due in order; promises settle between two moments. */
  async advance(durationMs: number): Promise<void> {
    const target = this.#now + durationMs
    await nextTurn()
    for (let next = this.#next(target); next !== undefined; next = this.#next(target)) {
      this.#now = Math.max(this.#now, next.at)
      // everything of one moment together: a turn of the event loop costs far more than a timer
      for (let same: Due | undefined = next; same !== undefined && same.at <= this.#now; same = this.#next(target)) {
        this.#due.delete(same)
        same.callback()
      }
      await nextTurn()
    }
    this.#now = target
  }

  /** Moves on until `promise` settles. @throws an Error if `limitMs` pass before */
  async until<T>(promise: Promise<T>, limitMs = 3_600_000): Promise<T> {
    let settled = false
    const mark = () => {
      settled = true
    }
    promise.then(mark, mark)
    const end = this.#now + limitMs
    await nextTurn()
    while (!settled) {
      const next = this.#next(end)
      if (next === undefined) {
        await nextTurn()
        if (settled || this.#next(end) !== undefined) continue
        throw new Error(`nothing settled within ${limitMs} ms of virtual time`)
      }
      await this.advance(next.at - this.#now)
    }
    return promise
  }

  #next(target: number): Due | undefined {
    let first: Due | undefined
    for (const due of this.#due) {
      if (due.at > target) continue
      if (first === undefined || due.at < first.at || (due.at === first.at && due.order < first.order)) first = due
    }
    return first
  }
}
