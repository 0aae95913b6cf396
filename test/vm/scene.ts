/** What the checks of the packaged device share: the guest with systemd, its unit, and a client on the host. */
import type { Reader } from '../../demo/reader.ts'
import type { Stage } from '../../demo/stage.ts'
import type { GuestShell } from './guest-shell.ts'
import { eventually, type Report } from './report.ts'

export const UNIT = 'iotchain-device.service'
export const ENROL_UNIT = 'iotchain-device-enroll.service'
export const STATE = '/var/lib/private/iotchain-device'
/** The FAT partition of a Raspberry Pi's card; the guest has it as its second disk. */
export const BOOT = '/boot/firmware'

/** An emulated processor that others use too: dpkg unpacks a hundred megabytes. */
export const APT_MS = 900_000
/** From the start of the service to its readiness. */
export const START_MS = 600_000

/** In place of the unit's 20 s. */
export const WATCHDOG_MS = 40_000

/** The guest, before there is a device in it. */
export interface Guest {
  readonly report: Report
  readonly shell: GuestShell
  readonly stage: Stage
  /** file names below /share/debs, the runtime first */
  readonly first: readonly string[]
  readonly later: readonly string[]
}

/** The enrolled device in it, and who reads it. */
export interface Scene extends Guest {
  readonly reader: Reader
}

/** As a person does it: apt, with nobody there to answer a question. */
export const apt = (words: string): string => `DEBIAN_FRONTEND=noninteractive apt-get -qq -y ${words} < /dev/null 2>&1`

export const installation = (files: readonly string[]): string =>
  apt(`install ${files.map((file) => `/share/debs/${file}`).join(' ')}`)

/** Properties of the unit. */
export async function show(shell: GuestShell, unit: string, ...names: string[]): Promise<Record<string, string>> {
  const text = await shell.run(`systemctl show ${unit} ${names.map((name) => `-p ${name}`).join(' ')}`)
  return Object.fromEntries(text.split('\n').map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]))
}

/** The device's unit once it runs. */
export async function active(shell: GuestShell): Promise<Record<string, string>> {
  return eventually(START_MS, async () => {
    const state = await show(shell, UNIT, 'ActiveState', 'SubState', 'MainPID', 'NRestarts')
    if (state['ActiveState'] !== 'active') throw new Error(`${UNIT} is ${state['ActiveState']} (${state['SubState']})`)
    return state
  })
}

/** True if the same process serves as before. */
export const sameProcess = (before: Record<string, string>, after: Record<string, string>): boolean =>
  before['MainPID'] === after['MainPID'] && before['NRestarts'] === after['NRestarts']

export const processOf = (state: Record<string, string>): string =>
  `process ${state['MainPID']}, ${state['NRestarts']} restarts`
