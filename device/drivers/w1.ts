/** DS18B20 and its like by the kernel's w1_therm driver. */
import { join } from 'node:path'
import { IotchainError } from '../../protocol/errors.ts'
import type { SettingsOf } from '../resource-settings.ts'
import type { Driver, DriverEnvironment } from './driver.ts'
import { listFolder, readAttribute, readNumber, tidy } from './sysfs.ts'

/** What a DS18B20 answers after power-on without a conversion: 85 °C exactly. */
const POWER_ON_MILLIDEGREES = 85_000
/** Believed only when the reading before was this near. */
const NEAR_MILLIDEGREES = 5_000
/** Families of thermometers: DS18S20, DS1822, DS18B20, DS1825, DS28EA00. */
const FAMILIES = /^(10|22|28|3b|42)-[0-9a-f]{12}$/

export function createDriver(settings: SettingsOf<'w1'>, { sysfsRoot }: DriverEnvironment): Driver {
  const bus = join(sysfsRoot, 'bus/w1/devices')
  let before: number | undefined

  async function sensor(): Promise<string> {
    if (settings.id !== undefined) return settings.id
    const found = (await listFolder(bus)).filter((name) => FAMILIES.test(name))
    if (found.length === 0) {
      throw new IotchainError('sensor/not-found', 'no thermometer on the 1-Wire bus', {
        hint: 'check the wiring, the pull-up resistor and dtoverlay=w1-gpio in config.txt',
      })
    }
    if (found.length > 1) {
      throw new IotchainError(
        'sensor/ambiguous',
        `${found.length} thermometers on the 1-Wire bus: ${found.join(', ')}`,
        {
          hint: 'name one of them with "id"',
        },
      )
    }
    return found[0] as string
  }

  return {
    async start() {
      before = undefined
    },
    async read() {
      const folder = join(bus, await sensor())
      const milli = await readMilli(folder)
      if (milli === POWER_ON_MILLIDEGREES && (before === undefined || Math.abs(before - milli) > NEAR_MILLIDEGREES)) {
        throw new IotchainError(
          'sensor/power-on',
          'the thermometer gives its power-on value: it lost power for a moment',
        )
      }
      before = milli
      return [{ v: tidy(milli / 1000), u: 'Cel', quality: 'ok' }]
    },
    async stop() {},
    describe: () => ({ rt: 'iotchain.temperature', if: 'core.s', unit: 'Cel', title: settings.title }),
  }
}

/** `temperature` (kernel ≥ 5.10), else the two lines of `w1_slave`, whose checksum must hold. */
async function readMilli(folder: string): Promise<number> {
  try {
    return await readNumber(join(folder, 'temperature'))
  } catch (error) {
    if (!(error instanceof IotchainError) || error.code !== 'sensor/vanished') throw error
    const text = await readAttribute(join(folder, 'w1_slave'))
    const match = /crc=[0-9a-f]{2} YES[\s\S]*t=(-?\d+)/.exec(text)
    if (match === null) throw new IotchainError('sensor/bad-value', 'the checksum of the 1-Wire reading is wrong')
    return Number(match[1])
  }
}
