/** Sensors with a hardware-monitoring driver: `/sys/class/hwmon/hwmonN/…_input`, found by the chip's name. */
import { join } from 'node:path'
import { IotchainError } from '../../protocol/errors.ts'
import type { SettingsOf } from '../resource-settings.ts'
import type { Driver, DriverEnvironment } from './driver.ts'
import { notFound } from './iio.ts'
import { findByName, readNumber, readNumberIfThere, tidy } from './sysfs.ts'

/** The kernel's units (Documentation/hwmon/sysfs-interface.rst) → SI units by their SenML names. */
const UNITS: Readonly<Record<string, readonly [string, number]>> = {
  temp: ['Cel', 1e-3],
  humidity: ['%RH', 1e-3],
  in: ['V', 1e-3],
  curr: ['A', 1e-3],
  power: ['W', 1e-6],
  energy: ['J', 1e-6],
  fan: ['1/min', 1],
  freq: ['Hz', 1],
}

export function createDriver(settings: SettingsOf<'hwmon'>, { sysfsRoot }: DriverEnvironment): Driver {
  const root = join(sysfsRoot, 'class/hwmon')
  const { name, channel } = settings
  const [standardUnit, factor] = UNITS[channel.replace(/\d+$/, '')] ?? [undefined, 1]
  const unit = settings.unit ?? standardUnit

  return {
    async start() {},
    async read() {
      const folder = await findByName(root, name)
      if (folder === undefined) throw await notFound(root, name, 'i2c-sensor')
      if ((await readNumberIfThere(join(folder, `${channel}_fault`))) === 1) {
        throw new IotchainError('sensor/fault', `${name} reports that ${channel} is broken or not connected`)
      }
      const value = await readNumber(join(folder, `${channel}_input`))
      return [{ v: tidy(value * factor * settings.scale), u: unit, quality: 'ok' }]
    },
    async stop() {},
    describe: () => ({ rt: `iotchain.${channel.replace(/\d+$/, '')}`, if: 'core.s', unit, title: settings.title }),
  }
}
