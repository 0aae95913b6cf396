/** `iotchain-device doctor`: what may keep a device from serving for years, looked at from outside the running daemon. */
import { readFileSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { isIotchainError } from '../protocol/errors.ts'
import { parseHeader } from '../protocol/objects/parse.ts'
import type { DaemonContext } from '../runtime/daemon.ts'
import { certificateLife } from '../runtime/pki/certificate.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { dial } from '../transport/dial.ts'
import { findLine } from './drivers/gpio-chip.ts'
import { loadDriver } from './drivers/load-driver.ts'
import { findByName, readNumberIfThere } from './drivers/sysfs.ts'
import { hostClockIsRight } from './host-clock.ts'
import { type DeviceIdentity, daysLeft, loadIdentity } from './identity.ts'
import { listenAddress } from './listen-address.ts'
import { driverEnvironment } from './parts.ts'
import { DEFAULT_PERIOD_MS } from './period.ts'
import { RENEWED_FILE } from './renewal.ts'
import { periodOf } from './resource-host.ts'
import type { ResourceSettings } from './resource-settings.ts'
import type { DeviceSettings } from './settings.ts'

export type Level = 'ok' | 'warn' | 'fail'

export interface Finding {
  readonly about: string
  readonly level: Level
  readonly text: string
}

const LOW_DISK = { warn: 200 * 1024 * 1024, fail: 20 * 1024 * 1024 }
const REQUEST_MS = 5000
/** The daemon on this very host. */
const ALIVE_MS = 2000
/** Readings may be late by so many periods. */
const LATE_PERIODS = 3

/** All findings, in a fixed order. Never throws: a check that fails is a finding. */
export async function examine(settings: DeviceSettings, context: DaemonContext): Promise<Finding[]> {
  const nowSeconds = context.clock.nowMs() / 1000
  const identity = checkIdentity(settings, context, nowSeconds)
  const findings = await Promise.all([
    [identity.finding],
    one('clock', () => checkClock(settings, nowSeconds)),
    one('disk', () => checkDisk(context.resolve(settings.state))),
    one('supply', () => checkSupply(settings.sysfsRoot)),
    one('key server', () => checkKeyServer(settings, identity.identity)),
    one('proxy', () => checkProxy(settings)),
    checkSensors(settings, context),
    checkServing(settings, nowSeconds),
  ])
  return findings.flat()
}

/** Exit code for monitoring: 0 all is well, 1 something to look at, 2 something is broken. */
export function exitCodeOf(findings: readonly Finding[]): 0 | 1 | 2 {
  if (findings.some((f) => f.level === 'fail')) return 2
  return findings.some((f) => f.level === 'warn') ? 1 : 0
}

type Verdict = readonly [Level, string]

async function one(about: string, check: () => Promise<Verdict>): Promise<Finding[]> {
  try {
    const [level, text] = await check()
    return [{ about, level, text }]
  } catch (error) {
    return [{ about, level: 'fail', text: sentence(error) }]
  }
}

function checkIdentity(
  settings: DeviceSettings,
  context: DaemonContext,
  nowSeconds: number,
): { identity: DeviceIdentity | undefined; finding: Finding } {
  const about = 'certificate'
  try {
    const renewed = join(context.resolve(settings.state), RENEWED_FILE)
    const identity = loadIdentity(settings.identity, context.resolve, renewed)
    if ('missing' in identity) {
      const text = `not enrolled: ${identity.missing.join(', ')} missing`
      return { identity: undefined, finding: { about, level: 'fail', text } }
    }
    const left = daysLeft(identity, nowSeconds)
    const overdue = nowSeconds > certificateLife(identity.leaf).renewAtSeconds + 2 * 86_400
    const level = left < 0 ? 'fail' : overdue ? 'warn' : 'ok'
    const text = left < 0 ? `ended ${-left} days ago` : `${left} days left${overdue ? ', renewal is overdue' : ''}`
    return { identity, finding: { about, level, text: `${text} (${identity.address})` } }
  } catch (error) {
    return { identity: undefined, finding: { about, level: 'fail', text: sentence(error) } }
  }
}

async function checkClock(settings: DeviceSettings, nowSeconds: number): Promise<Verdict> {
  const iso = new Date(nowSeconds * 1000).toISOString().slice(0, 19)
  if (await hostClockIsRight(nowSeconds)) return ['ok', `${iso}Z, synchronised`]
  if (settings.time.trust === 'always') return ['warn', `${iso}Z, not synchronised, but time.trust is always`]
  return ['fail', `${iso}Z, not synchronised: nothing is sealed (systemctl status systemd-timesyncd)`]
}

async function checkDisk(state: string): Promise<Verdict> {
  const { bavail, bsize } = await statfs(state).catch(() => statfs('/'))
  const free = bavail * bsize
  const level = free < LOW_DISK.fail ? 'fail' : free < LOW_DISK.warn ? 'warn' : 'ok'
  return [level, `${Math.floor(free / 1024 / 1024)} MiB free for ${state}`]
}

/** The Raspberry Pi's own complaint about its power supply. */
async function checkSupply(sysfsRoot: string): Promise<Verdict> {
  const chip = await findByName(join(sysfsRoot, 'class/hwmon'), 'rpi_volt')
  if (chip !== undefined) {
    const low = (await readNumberIfThere(join(chip, 'in0_lcrit_alarm'))) === 1
    return low ? ['warn', 'under-voltage: use a stronger power supply'] : ['ok', 'no under-voltage']
  }
  try {
    const throttled = Number.parseInt(
      readFileSync(join(sysfsRoot, 'devices/platform/soc/soc:firmware/get_throttled'), 'utf8'),
      16,
    )
    if ((throttled & 1) !== 0) return ['warn', 'under-voltage now: use a stronger power supply']
    return (throttled & 0x10000) === 0
      ? ['ok', 'no under-voltage']
      : ['warn', 'there was under-voltage since the start']
  } catch {
    return ['ok', 'this board does not report it']
  }
}

async function checkKeyServer(settings: DeviceSettings, identity: DeviceIdentity | undefined): Promise<Verdict> {
  if (identity === undefined) return ['warn', `${settings.keyserver} not tried: no certificate`]
  const secure = { cert: identity.certificate, key: identity.key, ca: identity.ca, handshakeTimeout: REQUEST_MS }
  const client = await dial(settings.keyserver, { secure })
  await client.close()
  return ['ok', `${settings.keyserver} accepts this device’s certificate`]
}

async function checkProxy(settings: DeviceSettings): Promise<Verdict> {
  const { proxy } = settings.device
  if (proxy === undefined) return ['ok', 'none configured']
  return using(await dial(proxy), async (client): Promise<Verdict> => {
    const reply = await client.get('/.well-known/core', { timeoutMs: REQUEST_MS })
    return reply.ok ? ['ok', `${proxy} answers`] : ['warn', `${proxy} answers ${reply.codeText}`]
  })
}

/** GPIO lines are the running daemon's; of those only the number is looked up. The others are read once. */
async function checkSensors(settings: DeviceSettings, context: DaemonContext): Promise<Finding[]> {
  const environment = driverEnvironment(settings, context)
  const check = async (resource: ResourceSettings): Promise<Verdict> => {
    if ('bcm' in resource) {
      const { chip, number } = await findLine(resource.bcm, environment)
      return ['ok', `BCM ${resource.bcm} = sysfs ${number} on ${chip.label}`]
    }
    const driver = await loadDriver(resource, environment)
    const values = await driver.read()
    const text = values.map((m) => `${m.name ?? ''} ${m.v ?? m.quality} ${m.u ?? ''}`.trim()).join(', ')
    return [values.every((m) => m.quality === 'ok') ? 'ok' : 'warn', text]
  }
  const found = await Promise.all(settings.resources.map((r) => one(`sensor ${r.path}`, () => check(r))))
  return found.flat()
}

/** Asks the running daemon, as any client would. */
async function checkServing(settings: DeviceSettings, nowSeconds: number): Promise<Finding[]> {
  const { host, port } = listenAddress(settings.device.listen)
  const local =
    host === '::' || host === '0.0.0.0'
      ? host === '::'
        ? '[::1]'
        : '127.0.0.1'
      : host.includes(':')
        ? `[${host}]`
        : host
  const about = 'daemon'
  try {
    return await using(await dial(`coap://${local}:${port}`), async (client) => {
      const core = await client.get('/.well-known/core', { timeoutMs: ALIVE_MS })
      if (!core.ok) return [{ about, level: 'fail', text: `something else answers there (${core.codeText})` }]
      const ages = settings.resources.map((r) => one(`reading ${r.path}`, () => ageOf(client, r, nowSeconds)))
      const serving: Finding = { about, level: 'ok', text: `serves on ${settings.device.listen}` }
      return [serving, ...(await Promise.all(ages)).flat()]
    })
  } catch (error) {
    return [{ about, level: 'fail', text: `does not answer on ${settings.device.listen}: ${sentence(error)}` }]
  }
}

async function ageOf(client: CoapClient, resource: ResourceSettings, nowSeconds: number): Promise<Verdict> {
  const reply = await client.get(resource.path, { timeoutMs: REQUEST_MS })
  if (!reply.ok) return ['fail', `the daemon answers ${reply.codeText}: ${reply.problem?.detail ?? 'no reason given'}`]
  const age = Math.max(0, Math.round(nowSeconds - parseHeader(reply.payload).iat))
  const period = periodOf(resource)
  const late = period !== undefined && age * 1000 > LATE_PERIODS * Math.max(period, DEFAULT_PERIOD_MS / 6)
  return [late ? 'warn' : 'ok', `sealed ${age} s ago`]
}

async function using<T>(client: CoapClient, work: (client: CoapClient) => Promise<T>): Promise<T> {
  try {
    return await work(client)
  } finally {
    await client.close()
  }
}

function sentence(error: unknown): string {
  if (isIotchainError(error)) return error.hint === undefined ? error.message : `${error.message} (${error.hint})`
  return error instanceof Error ? (error.message.split('\n')[0] as string) : String(error)
}
