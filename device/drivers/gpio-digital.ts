/** A level on a line: door contact, motion detector, button. */
import type { SettingsOf } from '../resource-settings.ts'
import type { Driver, DriverEnvironment, Measurement } from './driver.ts'
import { type LineFactory, onoffLine } from './gpio-line.ts'

export function createDriver(
  settings: SettingsOf<'gpio-digital'>,
  environment: DriverEnvironment,
  lines: LineFactory = onoffLine,
): Driver {
  const line = lines({ bcm: settings.bcm, direction: 'in' }, environment)
  /** The level that has stood for debounceMs; undefined before the first reading. */
  let settled: boolean | undefined
  let timer: NodeJS.Timeout | undefined

  const level = (): boolean => line.read() !== settings.activeLow
  const measurement = (v: boolean): Measurement[] => [{ v, quality: 'ok' }]

  return {
    async start() {
      await line.open()
    },
    async read() {
      // While a change is settling the old level still counts.
      if (timer === undefined || settled === undefined) settled = level()
      return measurement(settled)
    },
    watch(onChange) {
      const settle = (): void => {
        timer = undefined
        try {
          const now = level()
          if (now === settled) return
          settled = now
          onChange(measurement(now))
        } catch (error) {
          environment.log.limited(
            `gpio ${settings.bcm}`,
            'warn',
            { path: settings.path, err: error },
            'the line cannot be read',
          )
        }
      }
      const end = line.watch(() => {
        clearTimeout(timer)
        timer = undefined
        if (settings.debounceMs === 0) settle()
        else timer = setTimeout(settle, settings.debounceMs)
      })
      if (end !== undefined) return end
      environment.log.warn(
        { path: settings.path, bcm: settings.bcm },
        'the line has no interrupts: it is polled, short pulses are missed',
      )
      const poll = setInterval(settle, Math.max(20, settings.debounceMs))
      return () => clearInterval(poll)
    },
    async stop() {
      clearTimeout(timer)
      line.close()
    },
    describe: () => ({ rt: 'iotchain.level', if: 'core.s', title: settings.title }),
  }
}
