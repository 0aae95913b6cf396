/**
 * What goes wrong with a machine that nobody looks after: the disk is full, the disk is read-only, the clock is wrong.
 * The process that ran before runs afterwards, it lost no pulse, and never told a wrong value or a wrong time.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { fetchObject } from '../../client/fetch.ts'
import type { Reading } from '../../client/open.ts'
import { parseHeader } from '../../protocol/objects/parse.ts'
import { setClock } from './amd64-machine.ts'
import { numberOf, readingOf } from './member.ts'
import { eventually } from './report.ts'
import { active, processOf, type Scene, START_MS, sameProcess, show, UNIT, WATCHDOG_MS } from './scene.ts'
import { edges, edgesLimitMs, PULSE_LINE } from './simulated-hardware.ts'

const PULSES = 5
/** An unfed watchdog would bite. */
const LONG_MS = 2 * WATCHDOG_MS
const DAY = 86_400
const TOLERANCE_SECONDS = 60

const counterIs =
  (least: number) =>
  (reading: Reading): boolean =>
    Number(reading.records[0]?.value) >= least

/** A fault of the disk under a device that counts pulses meanwhile. */
async function throughFault(scene: Scene, what: string, begin: string, end: string): Promise<void> {
  const { report, shell, reader } = scene
  const before = await active(shell)
  const counter = await numberOf(reader, 'energy')
  await shell.run(begin)
  const refused = await shell.run('head -c 65536 /dev/zero 2>&1 > /var/probe && echo it takes 64 KiB; true')
  if (!/No space left|Read-only/.test(refused)) throw new Error(`${what} was not brought about: ${refused}`)
  await shell.run(edges(PULSE_LINE, PULSES), edgesLimitMs(PULSES))
  await sleep(LONG_MS)
  const during = await active(shell)
  const bytes = await fetchObject({ ...(await reader.atDevice()), path: ['s', 'energy'] }, { timeoutMs: 20_000 })
  report.check(
    `${what}: the device serves on, and the watchdog lets it`,
    sameProcess(before, during) && bytes !== undefined,
    `${processOf(during)}; ${refused.split('\n').at(-1)}`,
  )
  await shell.run(end)
  await readingOf(reader, 'energy', counterIs(counter + PULSES))
  const after = await active(shell)
  const counted = (await numberOf(reader, 'energy')) - counter
  report.check(
    `${what} no more: it goes on by itself, every pulse counted`,
    sameProcess(before, after) && counted === PULSES,
    `${counted} of ${PULSES}, ${processOf(after)}`,
  )
}

export async function fullDisk(scene: Scene): Promise<void> {
  // Everything that others than root may use, then what is left for root.
  const fill = `fallocate -l $(df --output=avail -B1 / | tail -n 1) /var/filler || true
dd if=/dev/zero of=/var/filler.rest bs=4k 2>/dev/null || true`
  await throughFault(scene, 'a full disk', fill, 'rm -f /var/filler /var/filler.rest /var/probe')
}

export async function readOnlyDisk(scene: Scene): Promise<void> {
  const { report, shell, reader } = scene
  // As the kernel does with a card that fails: every file system read-only, whoever has files open.
  const readOnly = 'echo 1 > /proc/sys/kernel/sysrq; echo u > /proc/sysrq-trigger; sleep 5'
  const writable = 'mount -o remount,rw /'
  await throughFault(scene, 'a read-only disk', readOnly, writable)
  const counter = await numberOf(reader, 'energy')
  await shell.run(`${readOnly}; systemctl kill -s KILL ${UNIT}; sleep 30`)
  const { ActiveState, SubState } = await show(shell, UNIT, 'ActiveState', 'SubState')
  await shell.run(writable)
  const after = await active(shell)
  const again = await numberOf(reader, 'energy')
  report.check(
    'started on a read-only disk it is tried until it can be written',
    ActiveState !== 'failed' && again >= counter,
    `${ActiveState} (${SubState}) meanwhile; then ${processOf(after)}, counter ${counter}, then ${again}`,
  )
}

export async function clockFaults(scene: Scene): Promise<void> {
  const { report, shell, reader } = scene
  for (const [what, days] of [
    ['a day ahead', 1],
    ['a day behind', -1],
  ] as const) {
    const before = await active(shell)
    const seq = (await newest(scene)).seq
    await shell.run(setClock(days * DAY))
    const later = await eventually(START_MS, async () => {
      const object = await newest(scene)
      if (object.seq === seq) throw new Error('no new object')
      return object
    })
    const reading = await readingOf(reader, 'energy')
    const off = Math.round((reading.records[0]?.time ?? 0) - Date.now() / 1000)
    const after = await active(shell)
    report.check(
      `the clock jumps ${what}: readings go on with the right time`,
      Math.abs(later.off) < TOLERANCE_SECONDS && Math.abs(off) < TOLERANCE_SECONDS && sameProcess(before, after),
      `sealed ${later.off} s, measured ${off} s from now`,
    )
    await shell.run(setClock())
  }
  // Not earlier in 1970: the kernel takes no time at which the machine was not running yet by its own count.
  await shell.run(`systemctl stop ${UNIT} && date -u -s @${DAY} > /dev/null && systemctl start ${UNIT}`, START_MS)
  const in1970 = await active(shell)
  const { seq: shown } = await newest(scene)
  await sleep(LONG_MS)
  const still = await active(shell)
  const { seq } = await newest(scene)
  report.check(
    'started in 1970 it seals nothing, and runs',
    seq === shown && sameProcess(in1970, still),
    `number ${shown}, then ${seq}; ${processOf(still)}`,
  )
  await shell.run(setClock())
  await eventually(START_MS, async () => {
    const object = await newest(scene)
    if (object.seq <= shown) throw new Error('no new object')
    if (Math.abs(object.off) >= TOLERANCE_SECONDS) throw new Error(`sealed ${object.off} s from now`)
  })
  const after = await active(shell)
  report.check('the clock set right: it seals by itself', sameProcess(in1970, after), processOf(after))
}

/** The device's newest object: its number, and how far its time is from now. */
async function newest({ reader }: Scene): Promise<{ seq: number; off: number }> {
  return eventually(START_MS, async () => {
    const bytes = await fetchObject({ ...(await reader.atDevice()), path: ['s', 'energy'] }, { timeoutMs: 5000 })
    if (bytes === undefined) throw new Error('no object')
    const { seq, iat } = parseHeader(bytes)
    return { seq, off: Math.round(iat - Date.now() / 1000) }
  })
}
