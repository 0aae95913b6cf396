/**
 * From samples to sealed objects. A reading is sealed under the session that runs when it can be sealed (protocol.md
 * §4.6); while there is none, or the clock or the disk does not allow it, it waits in a bounded ring in memory,
 * never in clear on the disk.
 */

import type { Clock } from '../protocol/clock.ts'
import type { SenmlRecord } from '../protocol/objects/senml.ts'
import type { Logger } from '../runtime/log.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import type { DeviceTime } from './device-time.ts'
import type { Sample } from './drivers/driver.ts'
import type { GroupSession } from './group-session.ts'
import { encodeReading } from './reading.ts'
import { type SealedObject, segmentsOf } from './sealed-object.ts'
import type { Sequence } from './sequence.ts'

export interface SealingOptions {
  readonly sequence: Sequence
  readonly time: Pick<DeviceTime, 'nowMs'>
  readonly clock: Clock
  readonly log: Logger
  /** Readings that may wait. */
  readonly capacity: number
  /** Takes each object in the order of its number. */
  readonly onSealed: (object: SealedObject, reading: WaitingReading, plaintext: Uint8Array) => void
}

export interface WaitingReading {
  readonly path: string
  readonly group: GroupSession
  readonly samples: readonly Sample[]
  readonly simulated: boolean
  /** Records to be sealed with it: the last command of an actuator. */
  readonly extra?: readonly SenmlRecord[] | undefined
}

/** While readings wait, the way is tried this often; news of a session try it at once. */
const RETRY_MS = 1000

export class Sealing {
  readonly #options: SealingOptions
  #waiting: WaitingReading[] = []
  #timer: NodeJS.Timeout | undefined
  #stopped = false
  /** Readings that fell out of the ring. */
  dropped = 0

  constructor(options: SealingOptions) {
    this.#options = options
  }

  get waiting(): number {
    return this.#waiting.length
  }

  submit(reading: WaitingReading): void {
    if (this.#stopped) return
    this.#waiting.push(reading)
    this.drain()
    if (this.#waiting.length > this.#options.capacity) {
      this.dropped += this.#waiting.splice(0, this.#waiting.length - this.#options.capacity).length
      this.#options.log.limited(
        'ring-full',
        'warn',
        { dropped: this.dropped },
        'too many readings wait for a session key: the oldest are dropped',
      )
    }
  }

  /** Seals what can be sealed now, oldest first; a group without a session does not hold up the others. */
  drain(): void {
    clearTimeout(this.#timer)
    if (this.#stopped || this.#waiting.length === 0) return
    const blocked = new Set<GroupSession>()
    const left: WaitingReading[] = []
    let waitMs = RETRY_MS
    let halted = false
    for (const reading of this.#waiting) {
      if (halted || blocked.has(reading.group)) {
        left.push(reading)
        continue
      }
      const result = this.#seal(reading)
      if (result === 'sealed') continue
      left.push(reading)
      if (result === 'no-session') blocked.add(reading.group)
      else {
        halted = true
        waitMs = Math.min(waitMs, result.waitMs)
      }
    }
    this.#waiting = left
    if (left.length > 0) this.#timer = setTimeout(() => this.drain(), Math.max(1, waitMs))
  }

  /**
   * Seals one plaintext of any kind; undefined when it cannot be sealed now.
   * @param session under which session; default the current one
   */
  sealNow(
    group: GroupSession,
    path: string,
    contentFormat: number,
    plaintext: Uint8Array,
    at?: { session: number; iat: number },
  ): SealedObject | undefined {
    const nowMs = this.#options.time.nowMs()
    const session = at?.session ?? group.current()?.session
    if (nowMs === undefined || session === undefined) return undefined
    const sealer = group.sealer(session, segmentsOf(path))
    if (sealer === undefined) return undefined
    const { sequence } = this.#options
    if (at === undefined) sequence.enterSession(group.gname, session)
    const step = sequence.next(nowMs)
    if ('waitMs' in step) return undefined
    const iat = at?.iat ?? Math.floor(nowMs / 1000)
    const { signed, encrypt0 } = sealer.seal({ seq: step.seq, iat, contentFormat, plaintext })
    return { path, seq: step.seq, sid: sealer.scope.sid, session, iat, signed, encrypt0 }
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    if (this.#waiting.length > 0) {
      this.#options.log.warn(
        { readings: this.#waiting.length },
        'readings that waited for a session key are lost by the stop',
      )
    }
  }

  #seal(reading: WaitingReading): 'sealed' | 'no-session' | { waitMs: number } {
    const { time, clock, sequence, log, onSealed } = this.#options
    const nowMs = time.nowMs()
    if (nowMs === undefined) return { waitMs: RETRY_MS }
    const { group, path } = reading
    const current = group.current()
    if (current === undefined) return 'no-session'
    const sealer = group.sealer(current.session, segmentsOf(path))
    if (sealer === undefined) return 'no-session'
    const name = segmentsOf(path).at(-1) as string
    let plaintext: Uint8Array
    try {
      plaintext = encodeReading(
        reading.samples,
        { name, simulated: reading.simulated, nowMs, monotonicMs: clock.monotonicMs() },
        reading.extra,
      )
    } catch (error) {
      log.limited(
        'encode',
        'error',
        { path, err: error },
        'the driver gave a reading that SenML cannot express: left out',
      )
      return 'sealed'
    }
    try {
      sequence.enterSession(group.gname, current.session)
      const step = sequence.next(nowMs)
      if ('waitMs' in step) return { waitMs: step.waitMs }
      const iat = Math.floor(nowMs / 1000)
      const { signed, encrypt0 } = sealer.seal({
        seq: step.seq,
        iat,
        contentFormat: ContentFormat.senmlCbor,
        plaintext,
      })
      onSealed(
        { path, seq: step.seq, sid: sealer.scope.sid, session: current.session, iat, signed, encrypt0 },
        reading,
        plaintext,
      )
      return 'sealed'
    } catch (error) {
      log.limited('seal', 'error', { path, err: error }, 'a reading could not be sealed; it waits')
      return { waitMs: RETRY_MS }
    }
  }
}
