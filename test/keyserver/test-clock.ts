import type { Clock } from '../../protocol/clock.ts'

/** Time that passes only when told. */
export class TestClock implements Clock {
  #ms: number
  #monotonic = 0

  constructor(seconds = 1_763_800_000) {
    this.#ms = seconds * 1000
  }

  nowMs(): number {
    return this.#ms
  }

  monotonicMs(): number {
    return this.#monotonic
  }

  get seconds(): number {
    return Math.floor(this.#ms / 1000)
  }

  pass(seconds: number): void {
    this.#ms += seconds * 1000
    this.#monotonic += seconds * 1000
  }

  /** Sets the wall clock; the monotonic clock does not notice. */
  jump(seconds: number): void {
    this.#ms += seconds * 1000
  }
}
