/** Time for the engine: a monotonic clock and timers, injected so that tests run years in milliseconds. */
import { performance } from 'node:perf_hooks'
import type { Clock } from '../../protocol/clock.ts'

export interface Timer {
  cancel(): void
}

export interface Timers extends Clock {
  /** Calls `callback` once after `delayMs`. A background timer does not keep the process alive. */
  after(delayMs: number, callback: () => void, background?: boolean): Timer
}

class SystemTimer implements Timer {
  readonly #handle: NodeJS.Timeout

  constructor(delayMs: number, callback: () => void, background: boolean) {
    this.#handle = setTimeout(callback, Math.min(delayMs, 0x7fffffff))
    if (background) this.#handle.unref()
  }

  cancel(): void {
    clearTimeout(this.#handle)
  }
}

export const systemTimers: Timers = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after: (delayMs, callback, background = false) => new SystemTimer(delayMs, callback, background),
}
