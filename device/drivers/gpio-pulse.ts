/** Counts pulses on a line: S0 energy meter, rain gauge, flow meter. Gives the total and the rate per hour. */
import { IotchainError } from '../../protocol/errors.ts'
import type { SettingsOf } from '../resource-settings.ts'
import type { Driver, DriverEnvironment } from './driver.ts'
import { type LineFactory, onoffLine } from './gpio-line.ts'
import { PulseCounter } from './pulse-counter.ts'
import { tidy } from './sysfs.ts'

export function createDriver(
  settings: SettingsOf<'gpio-pulse'>,
  environment: DriverEnvironment,
  lines: LineFactory = onoffLine,
): Driver {
  const { bcm, edge, minPulseMs, pulsesPerUnit, unit } = settings
  const { monotonicMs } = environment
  const line = lines({ bcm, direction: 'in' }, environment)
  const counter = new PulseCounter(environment.stateDirectory, settings.path)
  const activeHigh = edge === 'rising'
  let unwatch: (() => void) | undefined
  let active = false
  let lastPulseMs = Number.NEGATIVE_INFINITY
  let before: { count: number; ms: number } | undefined

  /**
   * Sysfs tells that there were edges, not how many, and the level when we look. Active now: the active edge came.
   * Inactive before and now: a whole pulse came and went.
   */
  function onEdge(high: boolean): void {
    const now = high === activeHigh
    const pulse = now || !active
    active = now
    if (!pulse) return
    const ms = monotonicMs()
    if (ms - lastPulseMs < minPulseMs) return
    lastPulseMs = ms
    counter.add()
  }

  return {
    async start() {
      counter.load()
      await line.open()
      active = line.read() === activeHigh
      unwatch = line.watch(onEdge)
      if (unwatch === undefined) {
        line.close()
        throw new IotchainError('sensor/no-interrupt', `BCM ${bcm} has no interrupts: pulses cannot be counted`, {
          hint: 'use a line of the board’s own GPIO controller, not of an expander without an interrupt line',
        })
      }
      before = { count: counter.count, ms: monotonicMs() }
    },
    async read() {
      counter.save()
      const now = { count: counter.count, ms: monotonicMs() }
      const hours = before === undefined ? 0 : (now.ms - before.ms) / 3_600_000
      const total = { v: tidy(now.count / pulsesPerUnit), u: unit, quality: 'ok' } as const
      if (before === undefined || hours <= 0) return [total]
      const rate = tidy((now.count - before.count) / pulsesPerUnit / hours)
      before = now
      return [total, { name: 'rate', v: rate, u: rateUnit(unit), quality: 'ok' }]
    },
    async stop() {
      unwatch?.()
      line.close()
      counter.save()
    },
    describe: () => ({ rt: 'iotchain.counter', if: 'core.s', unit, title: settings.title }),
  }
}

/** Units per hour; kilowatt-hours per hour are kilowatts. */
function rateUnit(unit: string | undefined): string {
  if (unit === 'kWh') return 'kW'
  if (unit === 'Wh') return 'W'
  return `${unit ?? '1'}/h`
}
