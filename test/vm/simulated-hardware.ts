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
/** In the hands of the kernel from the first moment on. */
export const BUSY_LINE = 5

const PI_LINES = 54
export const PI_LABEL = 'pinctrl-bcm2711'
const DECOY_LABEL = 'raspberrypi-exp-gpio'

/**
 * Registers a decoy controller and then one with a Raspberry Pi 4's label.
 *
 * `decoy-first`: the decoy gets 512, the first number there is, the Pi's controller another; who takes the first
 * controller or a number by heart fails. `as-on-a-pi`: the Pi's controller is at 512 and the decoy behind it, though
 * registered earlier: the place was kept by a third one, which is gone.
 */
export async function plugGpio(shell: GuestShell, layout: 'decoy-first' | 'as-on-a-pi'): Promise<GpioChips> {
  const chip = (name: string, lines: number, label: string): string => `mkdir ${name} ${name}/bank0
echo ${lines} > ${name}/bank0/num_lines
echo ${label} > ${name}/bank0/label
# A line that the kernel itself holds, as an overlay's driver would.
if [ ${name} = pi ]; then mkdir ${name}/bank0/line${BUSY_LINE} ${name}/bank0/line${BUSY_LINE}/hog; echo input > ${name}/bank0/line${BUSY_LINE}/hog/direction; fi
echo 1 > ${name}/live`
  const [before, after] = [chip('keeper', PI_LINES, 'keeper'), 'echo 0 > keeper/live\nrmdir keeper/bank0 keeper']
  const told = await shell.run(`set -e
[ -d /sys/module/gpio_sim ] || { insmod /modules/irq_sim.ko; insmod /modules/gpio-sim.ko; }
[ -d /sys/kernel/config/gpio-sim ] || mount -t configfs configfs /sys/kernel/config
cd /sys/kernel/config/gpio-sim
${layout === 'as-on-a-pi' ? before : ''}
${chip('decoy', 8, DECOY_LABEL)}
${layout === 'as-on-a-pi' ? after : ''}
${chip('pi', PI_LINES, PI_LABEL)}
cd /
for c in /sys/class/gpio/gpiochip*; do echo $(cat $c/label) $(cat $c/base) $(cat $c/ngpio); done`)
  return Object.fromEntries(
    told.split('\n').map((line) => {
      const [label, base, lines] = line.split(' ') as [string, string, string]
      return [label, { base: Number(base), lines: Number(lines) }] as const
    }),
  )
}

/** By label. */
export type GpioChips = Readonly<Record<string, { readonly base: number; readonly lines: number }>>

/** Are the controllers where the layout says? */
export function laidOut(chips: GpioChips, layout: 'decoy-first' | 'as-on-a-pi'): boolean {
  const { [PI_LABEL]: pi, [DECOY_LABEL]: decoy } = chips
  if (Object.keys(chips).length !== 2 || pi?.lines !== PI_LINES) return false
  return layout === 'decoy-first'
    ? decoy?.base === 512 && pi.base === 520
    : pi.base === 512 && decoy?.base === 512 + PI_LINES
}

/** Shell text that sets the level of a line from outside, as a wire would. */
export function level(line: number, high: boolean): string {
  return `${pullOf(line)}\necho pull-${high ? 'up' : 'down'} > $f`
}

/**
 * `count` rising edges, slow enough for a guest whose processor is emulated: sysfs tells of an edge, not of how many
 * there were. A host that has other work gives the guest the less time, so the edges come the slower.
 */
export function edges(line: number, count: number): string {
  const gap = edgeGapSeconds().toFixed(2)
  return `${pullOf(line)}
for i in $(seq ${count}); do echo pull-up > $f; sleep ${gap}; echo pull-down > $f; sleep ${gap}; done`
}

/** Shell text: $f is the file that moves a line of the Pi's controller. */
function pullOf(line: number): string {
  return `p=/sys/kernel/config/gpio-sim/pi
f=/sys/devices/platform/$(cat $p/dev_name)/$(cat $p/bank0/chip_name)/sim_gpio${line}/pull
[ -f $f ] || exit 1`
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
  // Hexadecimal throughout: i2c-tools would take other numbers, busybox takes no other address.
  const hex = (n: number): string => `0x${n.toString(16)}`
  const set = (chip: number, register: number, value: number): string =>
    `i2cset -y ${bus} ${hex(chip)} ${hex(register)} ${hex(value & 0xff)} b`
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
      'set -e',
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
