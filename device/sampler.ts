/**
 * Asks the drivers, each at its own pace by the monotonic clock. A failing sensor yields a sample of quality `error`,
 * is tried again after 1 to 60 s, and never disturbs the others. It is asked one thing at a time: a read that hangs in
 * the kernel holds one of the few threads that all share.
 */

import type { Clock } from '../protocol/clock.ts'
import { IotchainError } from '../protocol/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { DeviceTime } from './device-time.ts'
import type { Driver, Measurement, Sample } from './drivers/driver.ts'

export interface SamplerOptions {
  readonly path: string
  readonly driver: Driver
  /** Milliseconds between two readings; undefined: only on change. */
  readonly periodMs: number | undefined
  /** Report only values that changed (the period is then the longest silence). */
  readonly onChange: boolean
  readonly clock: Clock
  readonly time: Pick<DeviceTime, 'nowMs'>
  readonly log: Logger
  /** Takes what was measured; never throws. */
  readonly onSamples: (samples: readonly Sample[]) => void
}

/** Without interrupts a line that reports changes is looked at this often. */
const POLL_MS = 250
const READ_LIMIT_MS = 30_000
const BACK_OFF_MS = { initial: 1000, max: 60_000 }

export class Sampler {
  readonly #options: SamplerOptions
  #timer: NodeJS.Timeout | undefined
  #unwatch: (() => void) | undefined
  #started = false
  #stopped = false
  #failures = 0
  #dueMs = 0
  #lastReportMs = Number.NEGATIVE_INFINITY
  #lastValue = ''
  #turn: Promise<void> | undefined
  /** What the driver has been asked and has not answered yet. */
  #asked: Promise<readonly Measurement[]> | undefined
  /** It has not answered in time. */
  #overdue = false
  /** Monotonic milliseconds of the last turn that ended, well or not. */
  lastTurnMs: number | undefined
  /** The last good samples. */
  last: readonly Sample[] = []

  constructor(options: SamplerOptions) {
    this.#options = options
  }

  /** Begins; resolves after the first attempt, whatever came of it. */
  async start(): Promise<void> {
    this.#dueMs = this.#options.clock.monotonicMs()
    await this.#run()
  }

  /** A reading out of turn, e.g. after a command. */
  async readNow(): Promise<void> {
    await this.#turn
    await this.#measure(true)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#unwatch?.()
    await this.#turn
    await this.#options.driver.stop().catch((error: unknown) => {
      this.#options.log.warn({ path: this.#options.path, err: error }, 'the driver did not stop cleanly')
    })
  }

  get periodMs(): number | undefined {
    return this.#options.periodMs
  }

  /** False when a turn is overdue by far: the loop hangs. */
  isAlive(): boolean {
    const { clock } = this.#options
    return this.#stopped || clock.monotonicMs() < this.#dueMs + READ_LIMIT_MS + BACK_OFF_MS.max
  }

  async #run(): Promise<void> {
    this.#turn = this.#measure(false)
    await this.#turn
    this.#turn = undefined
    if (this.#stopped) return
    const { clock } = this.#options
    const nowMs = clock.monotonicMs()
    this.lastTurnMs = nowMs
    if (this.#failures > 0) {
      this.#dueMs = nowMs + Math.min(BACK_OFF_MS.max, BACK_OFF_MS.initial * 2 ** Math.min(this.#failures - 1, 10))
    } else {
      const stepMs = this.#stepMs()
      if (stepMs === undefined) {
        this.#dueMs = Number.POSITIVE_INFINITY
        return
      }
      this.#dueMs += stepMs
      // A suspended machine or a slow sensor: skip the readings that are lost, keep the rhythm.
      if (this.#dueMs < nowMs) this.#dueMs += Math.ceil((nowMs - this.#dueMs) / stepMs) * stepMs
    }
    this.#timer = setTimeout(() => void this.#run(), Math.min(this.#dueMs - nowMs, 2 ** 31 - 1))
  }

  /** Time between two looks at the sensor; undefined when it reports by itself and no period is set. */
  #stepMs(): number | undefined {
    const { periodMs, onChange } = this.#options
    if (onChange && this.#unwatch === undefined) return Math.min(POLL_MS, periodMs ?? POLL_MS)
    return periodMs
  }

  async #measure(outOfTurn: boolean): Promise<void> {
    const { log, path } = this.#options
    try {
      const measurements = await this.#ask()
      if (this.#failures > 0) log.info({ path, failures: this.#failures }, 'the sensor answers again')
      this.#failures = 0
      this.#report(measurements, outOfTurn)
    } catch (error) {
      if (this.#stopped) return
      this.#failures++
      if (!this.#overdue) {
        log.limited(`sensor ${path}`, 'warn', { path, err: error, failures: this.#failures }, 'the sensor failed')
      }
      const { clock, periodMs } = this.#options
      const silenceMs = clock.monotonicMs() - this.#lastReportMs
      if (this.#failures === 1 || silenceMs >= (periodMs ?? BACK_OFF_MS.max)) {
        const names = this.last.length > 0 ? this.last.map((s) => s.name) : [undefined]
        this.#report(
          names.map((name) => ({ name, v: undefined, quality: 'error' as const })),
          true,
        )
      }
    }
  }

  async #ask(): Promise<readonly Measurement[]> {
    const { log, path } = this.#options
    // somebody may be asking out of turn
    while (this.#asked !== undefined && !this.#overdue) await limited(this.#asked, path).catch(() => undefined)
    if (this.#overdue) throw unanswered(path)
    const asked = this.#startAndRead().finally(() => {
      this.#asked = undefined
      this.#overdue = false
    })
    this.#asked = asked
    return limited(asked, path, () => {
      this.#overdue = true
      log.warn({ path }, 'the sensor does not answer: it is not asked again before it does')
    })
  }

  async #startAndRead(): Promise<readonly Measurement[]> {
    const { driver, onChange } = this.#options
    if (!this.#started) {
      await driver.start()
      this.#started = true
      if (onChange && driver.watch !== undefined && !this.#stopped) {
        this.#unwatch = driver.watch((measurements) => this.#report(measurements, true))
      }
    }
    return driver.read()
  }

  #report(measurements: readonly Measurement[], always: boolean): void {
    const { clock, time, onChange, periodMs, onSamples } = this.#options
    const monotonicMs = clock.monotonicMs()
    const value = JSON.stringify(measurements.map((m) => [m.name, m.v, m.quality]))
    const silentFor = monotonicMs - this.#lastReportMs
    const heartbeat = periodMs !== undefined && silentFor >= periodMs - POLL_MS / 2
    if (onChange && !always && value === this.#lastValue && !heartbeat) return
    this.#lastValue = value
    this.#lastReportMs = monotonicMs
    const nowMs = time.nowMs()
    const samples = measurements.map(
      (m): Sample => ({
        ...normal(m),
        t: (nowMs ?? 0) / 1000,
        timeQuality: nowMs === undefined ? 'boot' : 'synchronised',
        monotonicMs,
      }),
    )
    if (samples.length === 0) return
    if (samples.some((s) => s.quality !== 'error')) this.last = samples
    onSamples(samples)
  }
}

/** No number that is none may pass for a reading. */
function normal(m: Measurement): Measurement {
  const sound = m.v !== undefined && (typeof m.v !== 'number' || Number.isFinite(m.v))
  return sound ? m : { ...m, v: undefined, quality: 'error' }
}

function unanswered(path: string): IotchainError {
  return new IotchainError('sensor/timeout', `${path}: the sensor does not answer`)
}

async function limited<T>(work: Promise<T>, path: string, onLate?: () => void): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      onLate?.()
      reject(unanswered(path))
    }, READ_LIMIT_MS)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
