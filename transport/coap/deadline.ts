/** A time limit and a caller's AbortSignal in one signal. */
import type { IotchainError } from '../../protocol/errors.ts'
import type { Timers } from './timers.ts'

export class Deadline {
  readonly signal: AbortSignal | undefined
  readonly end: () => void

  /** @param error why the signal aborts when the time is over */
  constructor(
    timers: Timers,
    timeoutMs: number | undefined,
    caller: AbortSignal | undefined,
    error: () => IotchainError,
  ) {
    if (timeoutMs === undefined) {
      this.signal = caller
      this.end = () => {}
      return
    }
    const controller = new AbortController()
    const onCaller = () => controller.abort(caller?.reason)
    const timer = timers.after(timeoutMs, () => controller.abort(error()))
    caller?.addEventListener('abort', onCaller)
    if (caller?.aborted) onCaller()
    this.signal = controller.signal
    this.end = () => {
      timer.cancel()
      caller?.removeEventListener('abort', onCaller)
    }
  }
}
