/** Sensors with an industrial I/O driver: `/sys/bus/iio/devices/iio:deviceN/in_*`, found by the chip's name. */
import { join } from 'node:path'
import { IotchainError } from '../../protocol/errors.ts'
import type { SettingsOf } from '../resource-settings.ts'
import type { Driver, DriverEnvironment } from './driver.ts'
import { findByName, namesBelow, readNumber, readNumberIfThere, tidy } from './sysfs.ts'

/** The kernel's units (Documentation/ABI/testing/sysfs-bus-iio) → SI units by their SenML names. */
const UNITS: readonly (readonly [RegExp, string, number])[] = [
  [/^temp/, 'Cel', 1e-3],
  [/^humidityrelative/, '%RH', 1e-3],
  [/^pressure/, 'Pa', 1e3],
  [/^voltage/, 'V', 1e-3],
  [/^altvoltage/, 'V', 1e-3],
  [/^current/, 'A', 1e-3],
  [/^power/, 'W', 1e-3],
  [/^resistance/, 'Ohm', 1],
  [/^illuminance/, 'lx', 1],
  [/^distance/, 'm', 1],
  [/^accel/, 'm/s2', 1],
  [/^anglvel/, 'rad/s', 1],
  [/^magn/, 'T', 1e-4],
  [/^concentration/, '%', 1],
  [/^ph/, 'pH', 1],
]

export function createDriver(settings: SettingsOf<'iio'>, { sysfsRoot }: DriverEnvironment): Driver {
  const root = join(sysfsRoot, 'bus/iio/devices')
  const { name, channel } = settings
  const [, standardUnit, factor] = UNITS.find(([pattern]) => pattern.test(channel)) ?? [/./, undefined, 1]
  const unit = settings.unit ?? standardUnit

  return {
    async start() {},
    async read() {
      const folder = await findByName(root, name)
      if (folder === undefined) throw await notFound(root, name, 'i2c-sensor')
      const value = await readChannel(folder, channel)
      return [{ v: tidy(value * factor * settings.scale), u: unit, quality: 'ok' }]
    },
    async stop() {},
    describe: () => ({
      rt: `iotchain.${channel.replace(/\d+$/, '').toLowerCase()}`,
      if: 'core.s',
      unit,
      title: settings.title,
    }),
  }
}

/** The processed value where the driver has one, else (raw + offset) · scale; both may be shared by channels of a kind. */
async function readChannel(folder: string, channel: string): Promise<number> {
  const input = await readNumberIfThere(join(folder, `in_${channel}_input`))
  if (input !== undefined) return input
  const kind = channel.replace(/\d+$/, '')
  const shared = async (what: string): Promise<number | undefined> =>
    (await readNumberIfThere(join(folder, `in_${channel}_${what}`))) ??
    readNumberIfThere(join(folder, `in_${kind}_${what}`))
  const raw = await readNumber(join(folder, `in_${channel}_raw`))
  return (raw + ((await shared('offset')) ?? 0)) * ((await shared('scale')) ?? 1)
}

/** Also for hwmon: the sensor is not there, and what is. */
export async function notFound(root: string, name: string, overlay: string): Promise<IotchainError> {
  const others = await namesBelow(root)
  const there = others.length === 0 ? 'the kernel knows no sensor of this kind' : `there are: ${others.join(', ')}`
  return new IotchainError('sensor/not-found', `no sensor "${name}": ${there}`, {
    hint: `check the wiring, the address (i2cdetect) and dtoverlay=${overlay},${name} in config.txt`,
  })
}
