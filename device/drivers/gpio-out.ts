/** An actuator on a line. It goes to its safe state at start and at every kind of stop that a program can see. */
import type { SettingsOf } from '../resource-settings.ts'
import type { Driver, DriverEnvironment } from './driver.ts'
import { type LineFactory, onoffLine } from './gpio-line.ts'

export function createDriver(
  settings: SettingsOf<'gpio-out'>,
  environment: DriverEnvironment,
  lines: LineFactory = onoffLine,
): Driver {
  const { bcm, activeLow } = settings
  const high = (on: boolean): boolean => on !== activeLow
  const safeHigh = high(settings.safe === 'on')
  const line = lines({ bcm, direction: 'out', initialHigh: safeHigh }, environment)
  let opened = false

  return {
    async start() {
      await line.open()
      opened = true
    },
    async read() {
      return [{ v: line.read() !== activeLow, quality: 'ok' }]
    },
    async write(value) {
      line.write(high(value === true || value === 1))
    },
    async stop() {
      if (!opened) return
      opened = false
      try {
        line.write(safeHigh)
      } finally {
        line.close()
      }
    },
    describe: () => ({ rt: 'iotchain.switch', if: 'core.a', title: settings.title }),
  }
}
