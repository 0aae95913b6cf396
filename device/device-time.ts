/**
 * The device's time (protocol.md "Clock"): the monotonic clock, anchored in the key server's time at each DTLS
 * contact; before the first contact the host's clock, once that is known to be right. NTP is not authenticated:
 * where it disagrees by more than a minute the anchor is kept.
 */
import type { Clock } from '../protocol/clock.ts'
import type { Logger } from '../runtime/log.ts'

const TOLERANCE_MS = 60_000
/** A clock this little behind the latest known time is waited for, not distrusted. */
const SETBACK_MS = 5_000

export interface DeviceTimeOptions {
  readonly clock: Clock
  readonly log: Logger
  /** Unix seconds: the latest time known from before. */
  readonly latest: number
  /** Asked until it says yes. */
  readonly hostClockIsRight: (nowSeconds: number) => Promise<boolean>
}

export class DeviceTime {
  readonly #options: DeviceTimeOptions
  #hostIsRight = false
  /** Wall-clock milliseconds minus monotonic milliseconds, from the key server. */
  #anchorMs: number | undefined
  #highestMs: number

  constructor(options: DeviceTimeOptions) {
    this.#options = options
    this.#highestMs = options.latest * 1000
  }

  /** Milliseconds since 1970, never going back; undefined while the time is not known. */
  nowMs(): number | undefined {
    const { clock } = this.#options
    if (this.#anchorMs === undefined && !this.#hostIsRight) return undefined
    const ms = this.#anchorMs === undefined ? clock.nowMs() : clock.monotonicMs() + this.#anchorMs
    if (ms < this.#highestMs - SETBACK_MS) {
      this.#options.log.limited(
        'time-behind',
        'warn',
        { behindSeconds: Math.round((this.#highestMs - ms) / 1000) },
        'the clock shows a time that has passed already: nothing is sealed until it has caught up',
      )
      return undefined
    }
    this.#highestMs = Math.max(this.#highestMs, ms)
    return this.#highestMs
  }

  nowSeconds(): number | undefined {
    const ms = this.nowMs()
    return ms === undefined ? undefined : Math.floor(ms / 1000)
  }

  get source(): 'server' | 'host' | 'none' {
    if (this.#anchorMs !== undefined) return 'server'
    return this.#hostIsRight ? 'host' : 'none'
  }

  /** Certificates are checked against the host's clock: no contact with the key server before it is right. */
  async hostIsRight(): Promise<boolean> {
    const { clock, hostClockIsRight } = this.#options
    if (!this.#hostIsRight) this.#hostIsRight = await hostClockIsRight(clock.nowMs() / 1000)
    return this.#hostIsRight
  }

  /** The key server's time, from an authenticated answer just received. */
  anchor(serverSeconds: number): void {
    const { clock, log } = this.#options
    // The server cuts off its fraction of a second.
    const serverMs = serverSeconds * 1000 + 500
    this.#anchorMs = serverMs - clock.monotonicMs()
    const offMs = clock.nowMs() - serverMs
    if (Math.abs(offMs) > TOLERANCE_MS) {
      log.limited(
        'time-differs',
        'warn',
        { offSeconds: Math.round(offMs / 1000) },
        'this host’s clock differs from the key server’s, which is used',
      )
    }
  }

  /** True when the host's clock has moved away from the anchor (a suspended machine, a step): ask the server again. */
  needsAnchor(): boolean {
    if (this.#anchorMs === undefined) return false
    const { clock } = this.#options
    return Math.abs(clock.nowMs() - (clock.monotonicMs() + this.#anchorMs)) > TOLERANCE_MS && this.#hostIsRight
  }
}
