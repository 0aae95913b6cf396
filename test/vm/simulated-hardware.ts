/** The hardware of the amd64 guest: two GPIO chips, the decoy first; an LM75 and a BMP280 behind i2c-stub. */
import { availableParallelism, loadavg } from 'node:os'
import type { GuestShell } from './guest-shell.ts'

/** The BMP280 of Bosch's data sheet (BST-BMP280-DS001, §3.12): calibration, raw values and what they must give. */
const CALIBRATION = [27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000]
const RAW_TEMPERATURE = 519_888
const RAW_PRESSURE = 415_148
export const DATASHEET = { celsius: 25.08, pascal: 100_653 }

export const PULSE_LINE = 27
export const DOOR_LINE = 17

/** Registers a decoy controller and then one with the Raspberry Pi's label, as `n=58` lines. */
export async function plugGpio(shell: GuestShell): Promise<string> {
  return shell.run(`insmod /modules/irq_sim.ko
insmod /modules/gpio-sim.ko
mount -t configfs configfs /sys/kernel/config
cd /sys/kernel/config/gpio-sim
mkdir decoy decoy/bank0 && echo 8 > decoy/bank0/num_lines && echo raspberrypi-exp-gpio > decoy/bank0/label && echo 1 > decoy/live
mkdir pi pi/bank0 && echo 58 > pi/bank0/num_lines && echo pinctrl-bcm2711 > pi/bank0/label && echo 1 > pi/live
cat /sys/class/gpio/gpiochip*/label /sys/class/gpio/gpiochip*/base`)
}

/** Shell text that sets the level of a line from outside, as a wire would. */
export function level(line: number, high: boolean): string {
  return `for f in /sys/devices/platform/gpio-sim.1/gpiochip*/sim_gpio${line}/pull; do echo pull-${high ? 'up' : 'down'} > $f; done`
}

/**
 * `count` rising edges, slow enough for a guest whose processor is emulated: sysfs tells of an edge, not of how many
 * there were. A host that has other work gives the guest the less time, so the edges come the slower.
 */
export function edges(line: number, count: number): string {
  const gap = edgeGapSeconds().toFixed(2)
  return `for f in /sys/devices/platform/gpio-sim.1/gpiochip*/sim_gpio${line}/pull; do
  for i in $(seq ${count}); do echo pull-up > $f; sleep ${gap}; echo pull-down > $f; sleep ${gap}; done
done`
}

/** From one change of a line to the next: 0.1 s on an idle host, up to 1 s on a busy one. */
function edgeGapSeconds(): number {
  const waiting = (loadavg()[0] as number) / availableParallelism()
  return Math.min(1, Math.max(0.1, 0.1 * waiting))
}

/** How long `edges` may take, in milliseconds. */
export function edgesLimitMs(count: number): number {
  return 60_000 + count * 2 * 2000
}

/** Fills the registers of both chips and lets the kernel's drivers find them. @returns the bus */
export async function plugSensors(shell: GuestShell): Promise<number> {
  const bus = Number(
    await shell.run(
      `for d in /sys/bus/i2c/devices/i2c-*; do case "$(cat $d/name)" in SMBus*stub*) echo \${d##*-};; esac; done`,
    ),
  )
  if (!Number.isInteger(bus)) throw new Error('the guest has no stub I2C bus')
  const set = (chip: number, register: number, value: number): string =>
    `i2cset -y ${bus} ${chip} ${register} ${value & 0xff} b`
  const calibration = CALIBRATION.flatMap((word, i) => [
    set(0x76, 0x88 + 2 * i, word & 0xff),
    set(0x76, 0x89 + 2 * i, (word >> 8) & 0xff),
  ])
  const raw = (register: number, value: number): string[] => [
    set(0x76, register, value >> 12),
    set(0x76, register + 1, value >> 4),
    set(0x76, register + 2, (value & 0xf) << 4),
  ]
  await shell.run(
    [
      ...calibration,
      set(0x76, 0xd0, 0x58),
      ...raw(0xf7, RAW_PRESSURE),
      ...raw(0xfa, RAW_TEMPERATURE),
      // LM75: 21.5 °C, most significant octet first; SMBus words come least significant first.
      `i2cset -y ${bus} 0x48 0 0x8015 w`,
      `echo lm75 0x48 > /sys/bus/i2c/devices/i2c-${bus}/new_device`,
      `echo bmp280 0x76 > /sys/bus/i2c/devices/i2c-${bus}/new_device`,
    ].join('\n'),
    60_000,
  )
  return bus
}
