/**
 * From a BCM number to the number that sysfs wants. The base of a controller differs by board and kernel (512 on a
 * Pi 0–4 since 6.6; 399, 569 or 571 on a Pi 5), and a Pi has several controllers: only the label tells which.
 */
import { join } from 'node:path'
import { IotchainError } from '../../protocol/errors.ts'
import type { DriverEnvironment } from './driver.ts'
import { HEADER_HIGHEST } from './gpio-header.ts'
import { listFolder, readAttribute, readNumber } from './sysfs.ts'

export interface GpioChip {
  readonly label: string
  readonly base: number
  readonly lines: number
}

const PI_LABELS = ['pinctrl-bcm2835', 'pinctrl-bcm2711', 'pinctrl-rp1']

/** The controllers of this host; one that cannot be read is left out. */
export async function listChips(sysfsRoot: string): Promise<GpioChip[]> {
  const root = join(sysfsRoot, 'class/gpio')
  const names = (await listFolder(root)).filter((name) => /^gpiochip\d+$/.test(name))
  const chips = await Promise.all(
    names.map(async (name): Promise<GpioChip | undefined> => {
      try {
        const label = await readAttribute(join(root, name, 'label'))
        return {
          label,
          base: await readNumber(join(root, name, 'base')),
          lines: await readNumber(join(root, name, 'ngpio')),
        }
      } catch {
        return undefined
      }
    }),
  )
  return chips.filter((c) => c !== undefined)
}

/**
 * The controller that the configuration means, and the sysfs number of a line.
 * @throws `sensor/no-gpio`, `sensor/no-such-line`
 */
export async function findLine(
  bcm: number,
  { sysfsRoot, gpio }: Pick<DriverEnvironment, 'sysfsRoot' | 'gpio'>,
): Promise<{ readonly chip: GpioChip; readonly number: number }> {
  const chips = await listChips(sysfsRoot)
  const labels = gpio.chip === 'auto' ? PI_LABELS : [gpio.chip]
  const chip = labels.map((label) => chips.find((c) => c.label === label)).find((c) => c !== undefined)
  if (chip === undefined) {
    if (chips.length === 0 && (await hidesItsLines(sysfsRoot))) {
      throw new IotchainError(
        'sensor/no-gpio',
        'this kernel has GPIO controllers, but shows no lines in /sys/class/gpio',
        {
          hint: 'it was built without CONFIG_GPIO_SYSFS (kernels from 6.17 on: CONFIG_GPIO_SYSFS_LEGACY): use one that has it',
        },
      )
    }
    const others = chips.map((c) => c.label).join(', ')
    throw new IotchainError(
      'sensor/no-gpio',
      chips.length === 0
        ? 'no GPIO controller on this host'
        : `no GPIO controller ${labels.join(' or ')} here, but ${others}`,
      { hint: 'use driver simulated, run on a Raspberry Pi, or set gpio.chip to the label of your controller' },
    )
  }
  if (bcm >= chip.lines) {
    throw new IotchainError('sensor/no-such-line', `BCM ${bcm} does not exist: ${chip.label} has ${chip.lines} lines`)
  }
  if (bcm > HEADER_HIGHEST && !gpio.allowInternal) {
    throw new IotchainError('sensor/no-such-line', `BCM ${bcm} is not on the header`, {
      hint: 'lines above 27 serve the board itself; gpio.allowInternal: true if you know what you do',
    })
  }
  return { chip, number: chip.base + bcm }
}

/** Newer kernels may leave the numbered lines out, and with them everything that onoff can use. */
async function hidesItsLines(sysfsRoot: string): Promise<boolean> {
  return (await listFolder(join(sysfsRoot, 'bus/gpio/devices'))).some((name) => name.startsWith('gpiochip'))
}
