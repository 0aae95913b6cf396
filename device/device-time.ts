/**
 * The device's time (protocol.md "Clock"): the monotonic clock, anchored in the key server's time at each DTLS
 * contact; before the first contact in the host's clock, once that is known to be right. NTP is not authenticated:
 * where the host's clock steps by more than a minute the anchor is kept, and the key server is to be asked.
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
  /** Wall-clock milliseconds minus monotonic milliseconds. */
  #anchorMs: number | undefined
  #source: 'server' | 'host' | 'none' = 'none'
  /** By how much the host's clock was ahead when the anchor was made. */
  #offMs = 0
  #highestMs: number

  constructor(options: DeviceTimeOptions) {
    this.#options = options
    this.#highestMs = options.latest * 1000
  }

  /** Milliseconds since 1970, never going back; undefined while the time is not known. */
  nowMs(): number | undefined {
    const { log } = this.#options
    if (this.#source === 'host') this.#follow()
    const ms = this.#anchoredMs()
    if (ms === undefined) return undefined
    if (ms < this.#highestMs - SETBACK_MS) {
      log.limited(
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
    return this.#source
  }

  /** Certificates are checked against the host's clock: no contact with the key server before it is right. */
  async hostIsRight(): Promise<boolean> {
    const { clock, hostClockIsRight } = this.#options
    if (!this.#hostIsRight) this.#hostIsRight = await hostClockIsRight(clock.nowMs() / 1000)
    if (this.#hostIsRight && this.#anchorMs === undefined) {
      this.#anchorMs = clock.nowMs() - clock.monotonicMs()
      this.#source = 'host'
    }
    return this.#hostIsRight
  }

  /** The key server's time, from an authenticated answer just received. */
  anchor(serverSeconds: number): void {
    const { clock, log } = this.#options
    // The server cuts off its fraction of a second.
    const serverMs = serverSeconds * 1000 + 500
    this.#anchorMs = serverMs - clock.monotonicMs()
    this.#source = 'server'
    this.#offMs = clock.nowMs() - serverMs
    if (Math.abs(this.#offMs) > TOLERANCE_MS) {
      log.limited(
        'time-differs',
        'warn',
        { offSeconds: Math.round(this.#offMs / 1000) },
        'this host’s clock differs from the key server’s, which is used',
      )
    }
  }

  /** True when the host's clock has moved away from the anchor (a suspended machine, a step): ask the server again. */
  needsAnchor(): boolean {
    return this.#hostIsRight && Math.abs(this.#driftMs()) > TOLERANCE_MS
  }

  /** Without the key server's word the host's clock is followed where it is slewed, not where it jumps. */
  #follow(): void {
    const driftMs = this.#driftMs()
    if (Math.abs(driftMs) <= TOLERANCE_MS) {
      this.#anchorMs = (this.#anchorMs ?? 0) + driftMs
      return
    }
    this.#options.log.limited(
      'time-jumped',
      'warn',
      { bySeconds: Math.round(driftMs / 1000) },
      'this host’s clock jumped: it is not followed, the key server is asked',
    )
  }

  #anchoredMs(): number | undefined {
    return this.#anchorMs === undefined ? undefined : this.#options.clock.monotonicMs() + this.#anchorMs
  }

  /** How far the host's clock went from the anchor since that was made. */
  #driftMs(): number {
    const own = this.#anchoredMs()
    return own === undefined ? 0 : this.#options.clock.nowMs() - own - this.#offMs
  }
}
