/** Looks now and then after tables whose entries end by being left alone; sleeps while they are empty. */
import type { Timer, Timers } from './timers.ts'

const SWEEP_MS = 10_000

export class IdleSweep {
  readonly #timers: Timers
  readonly #expire: (nowMs: number) => boolean
  #timer: Timer | undefined

  /** @param expire drops what is too old; @returns whether anything is left */
  constructor(timers: Timers, expire: (nowMs: number) => boolean) {
    this.#timers = timers
    this.#expire = expire
  }

  /** Something was added. */
  wake(): void {
    this.#timer ??= this.#timers.after(
      SWEEP_MS,
      () => {
        this.#timer = undefined
        if (this.#expire(this.#timers.monotonicMs())) this.wake()
      },
      true,
    )
  }

  close(): void {
    this.#timer?.cancel()
    this.#timer = undefined
  }
}
