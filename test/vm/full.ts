/**
 * `npm run test:vm:full`: the device on real kernel drivers in an amd64 virtual machine: started without its hardware, a
 * GPIO chip behind a decoy, lines that cannot be used, an LM75 and a BMP280 to the data sheet's numbers, a sensor unbound
 * and bound again, twenty power cuts.
 * Last line `N passed, N failed` or `skipped: why`.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Reading } from '../../client/open.ts'
import { startChain } from '../../demo/chain.ts'
import { ProcessTree } from '../../demo/processes.ts'
import type { Reader } from '../../demo/reader.ts'
import { READERS, setUpDaemons, setUpOwner } from '../../demo/stage.ts'
import { amd64Parts, bootAmd64, READY_LIMIT_MS, START_DEVICE, shareConfiguration, stateDisk } from './amd64-machine.ts'
import type { GuestShell } from './guest-shell.ts'
import { member, numberOf, readingOf } from './member.ts'
import { powerCuts } from './power-cuts.ts'
import { eventually, Report } from './report.ts'
import {
  BUSY_LINE,
  DATASHEET,
  DOOR_LINE,
  edges,
  edgesLimitMs,
  laidOut,
  level,
  PULSE_LINE,
  plugGpio,
  plugSensors,
} from './simulated-hardware.ts'

const ROOT = resolve(import.meta.dirname, '..', '..', '..')
const PULSES = 50
const CUTS = Number(process.env['IOTCHAIN_POWER_CUTS'] ?? 20)

const report = new Report()

const RESOURCES = [
  {
    path: '/s/energy',
    driver: 'gpio-pulse',
    bcm: PULSE_LINE,
    pulsesPerUnit: 1,
    unit: 'count',
    group: READERS,
    every: '1s',
  },
  { path: '/s/door', driver: 'gpio-digital', bcm: DOOR_LINE, group: READERS, on: 'change' },
  { path: '/s/busy', driver: 'gpio-digital', bcm: BUSY_LINE, group: READERS, every: '1s' },
  { path: '/s/nowhere', driver: 'gpio-digital', bcm: 56, group: READERS, every: '1s' },
  { path: '/s/air', driver: 'iio', name: 'bmp280', channel: 'temp', group: READERS, every: '1s' },
  { path: '/s/pressure', driver: 'iio', name: 'bmp280', channel: 'pressure', group: READERS, every: '1s' },
  { path: '/s/board', driver: 'hwmon', name: 'lm75', channel: 'temp1', group: READERS, every: '1s' },
]

async function suite(tree: ProcessTree, work: string): Promise<void> {
  const cache = join(process.env['IOTCHAIN_PEERS'] ?? join(homedir(), '.cache/iotchain-peers'), 'vm')
  const parts = await amd64Parts(ROOT, cache)
  report.say(`kernel ${parts.kernel.release} with gpio-sim, guest ready`)
  const chain = await startChain(tree)
  const stage = await setUpDaemons(work, chain, await setUpOwner(work, chain), {
    thisHost: '10.0.2.2',
    listen: 'coap://0.0.0.0:5683',
    // `check` refuses lines off the header by itself; here the chip is to be asked for one that it has not.
    settings: {
      state: '/state/device',
      gpio: { allowInternal: true },
      resources: RESOURCES,
      buffer: { durability: 'strict' },
    },
  })
  await tree.daemon('iotchain-keyserver', ['run', '--config', stage.configs.keyserver])
  await tree.daemon('iotchain-proxy', ['run', '--config', stage.configs.proxy])
  await shareConfiguration(parts, stage)
  const disk = await stateDisk(work)
  const reader = await member(stage)
  const { machine, shell } = await bootAmd64(parts, { work, disk, deviceUri: stage.deviceUri })
  tree.add({ name: 'virtual machine', pid: 0, stop: () => machine.kill() })
  try {
    report.say('machine up')
    await shell.run(START_DEVICE)
    await eventually(READY_LIMIT_MS, () => shell.run(`grep '"msg":"ready"' /tmp/device.log`)).catch(async (error) => {
      report.say(`the device's log:\n${await shell.run('cat /tmp/device.log')}`)
      throw error
    })
    report.say('the device serves')
    // From here on this host hears of its credential: to the address that the guest knows the key server by it cannot go.
    await eventually(READY_LIMIT_MS, () => shell.run(`grep '"msg":"joined' /tmp/device.log`))
    await eventually(READY_LIMIT_MS, () => reader.join())
    await reader.listen()
    await nothingThere(reader)
    const chips = await plugGpio(shell, 'decoy-first')
    report.check('the decoy is the first chip', laidOut(chips, 'decoy-first'), JSON.stringify(chips))
    const bus = await plugSensors(shell)
    await sensors(reader, shell, bus)
    await linesThatCannotBeUsed(reader, shell)
    await machine.kill()
    await powerCuts({ report, parts, stage, reader, work, disk, cuts: CUTS })
  } finally {
    await machine.kill()
    await reader.close()
  }
}

/** True for a reading that says that there is none. */
const isError = (reading: Reading): boolean =>
  reading.records.length > 0 &&
  reading.records.every((r) => typeof r.value !== 'number' && typeof r.value !== 'boolean') &&
  reading.records.some((r) => r.name.endsWith('quality') && r.value === 'error')

/** The device began without a GPIO controller and without a sensor. */
async function nothingThere(reader: Reader): Promise<void> {
  for (const name of ['energy', 'air', 'board']) {
    const reading = await readingOf(reader, name)
    report.check(`without its hardware /s/${name} says so`, isError(reading), said(reading))
  }
}

const said = (reading: Reading): string => reading.records.map((r) => `${r.name} ${r.value}`).join(', ')

async function linesThatCannotBeUsed(reader: Reader, shell: GuestShell): Promise<void> {
  const log = await shell.run('cat /tmp/device.log')
  for (const [name, what, words] of [
    ['busy', 'a line in the hands of the kernel', 'is in use by a kernel driver'],
    ['nowhere', 'a line that does not exist', 'BCM 56 does not exist'],
  ] as const) {
    const reading = await readingOf(reader, name)
    report.check(`${what} is an error and a sentence`, isError(reading) && log.includes(words), said(reading))
  }
}

async function sensors(reader: Reader, shell: GuestShell, bus: number): Promise<void> {
  const value = (name: string): Promise<number> => numberOf(reader, name)
  const becomes = (name: string, wanted: (reading: Reading) => boolean): Promise<Reading> =>
    readingOf(reader, name, wanted)

  await becomes('energy', (r) => typeof r.records[0]?.value === 'number')
  await becomes('door', (r) => typeof r.records[0]?.value === 'boolean')
  report.check('GPIO that comes later is taken into use', true, 'counter and door')
  const before = await value('energy')
  await shell.run(edges(PULSE_LINE, PULSES), edgesLimitMs(PULSES))
  await becomes('energy', (r) => Number(r.records[0]?.value) >= before + PULSES)
  const counted = (await value('energy')) - before
  report.check('the chip is found by its label, every edge counts', counted === PULSES, `${counted} of ${PULSES}`)
  for (const high of [true, false]) {
    await shell.run(level(DOOR_LINE, high))
    const door = await becomes('door', (r) => Boolean(r.records[0]?.value) === high)
    report.check(`the door line goes ${high ? 'up' : 'down'}`, true, `${door.records[0]?.value}`)
  }
  for (const name of ['air', 'pressure', 'board']) await becomes(name, (r) => typeof r.records[0]?.value === 'number')
  const celsius = await value('air')
  report.check('BMP280 temperature to the data sheet', Math.abs(celsius - DATASHEET.celsius) < 0.011, `${celsius} °C`)
  const pascal = await value('pressure')
  report.check('BMP280 pressure to the data sheet', Math.abs(pascal - DATASHEET.pascal) < 2, `${pascal} Pa`)
  const board = await value('board')
  report.check('LM75 by hwmon', board === 21.5, `${board} °C`)
  await shell.run(`echo ${bus}-0048 > /sys/bus/i2c/drivers/lm75/unbind`)
  const broken = await becomes('board', (r) => r.records.some((x) => x.name.endsWith('quality')))
  report.check('an unbound sensor reports an error, not a value', isError(broken), said(broken))
  await shell.run(`echo ${bus}-0048 > /sys/bus/i2c/drivers/lm75/bind`)
  const back = await becomes('board', (r) => r.records[0]?.value === 21.5)
  report.check('bound again it comes back by itself', true, `${back.records[0]?.value} °C`)
}

const work = await mkdtemp(join(tmpdir(), 'iotchain-vm-'))
const tree = new ProcessTree()
const status = await report.run(['qemu-system-x86_64', 'cpio', 'xz', 'make', 'gcc', 'mke2fs', 'apt-get', 'dpkg'], () =>
  suite(tree, work),
)
await tree.stop()
await rm(work, { recursive: true, force: true })
process.exit(status)
