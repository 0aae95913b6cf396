/** The clocks of this host. Everything that asks for the time is given a `Clock`, so that tests own it. */
import type { Clock } from '../protocol/clock.ts'

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
}
