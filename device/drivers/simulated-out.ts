/** An actuator that exists in memory only: for the demo and for tests of commands. */
import type { SettingsOf } from '../resource-settings.ts'
import type { Description, Driver } from './driver.ts'

export function createDriver(settings: SettingsOf<'simulated-out'>): Driver {
  const safe = settings.safe === 'on'
  let state = safe
  return {
    async start() {
      state = safe
    },
    async read() {
      return [{ v: state, quality: 'ok' }]
    },
    async write(value) {
      state = value === true || value === 1
    },
    async stop() {
      state = safe
    },
    describe(): Description {
      return { rt: 'iotchain.simulated', if: 'core.a', title: settings.title ?? 'simulated switch', simulated: true }
    },
  }
}
