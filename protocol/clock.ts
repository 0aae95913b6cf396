/** Time as the product sees it: always injected, so that tests run on their own time. */
export interface Clock {
  /** Wall clock, milliseconds since the Unix epoch; may jump. */
  nowMs(): number
  /** Monotonic clock, milliseconds since some fixed moment; never jumps. */
  monotonicMs(): number
}
