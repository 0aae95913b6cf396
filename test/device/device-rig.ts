/** A whole device in this process, with keys of its own, against doubles of key server and proxy. */
import { generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { suite } from '#crypto'
import { createDevice, type DeviceDaemon } from '../../device/daemon.ts'
import { initIdentity } from '../../device/provision.ts'
import { deviceSettings } from '../../device/settings.ts'
import type { Clock } from '../../protocol/clock.ts'
import type { GroupMember } from '../../protocol/groups/scheme.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { CredentialBook } from '../../protocol/objects/credential-book.ts'
import { ObjectOpener } from '../../protocol/objects/open.ts'
import { decodeSenml, type SenmlRecord } from '../../protocol/objects/senml.ts'
import { type VerifiedObject, verifySigned } from '../../protocol/objects/verify.ts'
import { writeFileAtomic } from '../../runtime/atomic-file.ts'
import type { DaemonContext } from '../../runtime/daemon.ts'
import { createLogger } from '../../runtime/log.ts'
import { createMetrics } from '../../runtime/metrics.ts'
import { type Authority, createCa, issueDeviceCertificate } from '../../runtime/pki/authority.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { dial } from '../../transport/dial.ts'
import { temporaryFolder } from './fixtures.ts'
import { CHAIN, KeyServerDouble } from './key-server-double.ts'

export interface Rig {
  readonly folder: string
  readonly address: Address
  readonly keyServer: KeyServerDouble
  readonly clock: RigClock
  readonly lines: Record<string, unknown>[]
  device: DeviceDaemon
  readonly ca: { root: Authority; issuing: Authority }
  /** From the next restart on the key server is dialled as configured, by DTLS. */
  useDtls(): void
  /** Starts a new incarnation with the same state folder; `settings` are merged over those of before. */
  restart(settings?: Record<string, unknown>): Promise<void>
  client(): Promise<CoapClient>
  /** Verifies and opens what a client fetched. */
  open(bytes: Uint8Array, path: string, member: GroupMember): { verified: VerifiedObject; records: SenmlRecord[] }
}

/** Time passes eight times as fast, so that "a later second than at start" is soon there. */
const SPEED = 8
const startedMs = performance.now()
const monotonicMs = (): number => (performance.now() - startedMs) * SPEED
const epochMs = Date.now()
export const fastClock: Clock = { nowMs: () => epochMs + monotonicMs(), monotonicMs }

/** The clock of one rig: `shiftMs` sets its wall clock forward; with `time.trust: auto` it is believed while `right`. */
export interface RigClock extends Clock {
  shiftMs: number
  right: boolean
}
function rigClock(): RigClock {
  const clock: RigClock = { shiftMs: 0, right: true, monotonicMs, nowMs: () => fastClock.nowMs() + clock.shiftMs }
  return clock
}

export const SIMULATED = { path: '/s/demo', driver: 'simulated', group: 1, every: '100ms', unit: 'Cel', seed: 3 }

export async function makeRig(more: Record<string, unknown> = {}, machine = 'rig'): Promise<Rig> {
  const folder = temporaryFolder()
  const { address, ca } = await makeIdentity(folder)
  const clock = rigClock()
  const keyServer = new KeyServerDouble({ device: address, nowSeconds: () => Math.floor(clock.nowMs() / 1000) })
  await keyServer.start()
  onTestFinished(() => keyServer.stop())
  const lines: Record<string, unknown>[] = []
  let settings: Record<string, unknown> = {
    device: { listen: 'coap://127.0.0.1:0' },
    keyserver: `coaps://127.0.0.1:${keyServer.port}`,
    chain: { id: CHAIN.id, registry: CHAIN.registry },
    state: 'state',
    time: { trust: 'always' },
    retry: { initial: '100ms', max: '1s' },
    resources: [SIMULATED],
    ...more,
  }
  let direct = false
  const create = (): Promise<DeviceDaemon> =>
    createDevice(deviceSettings.parse(settings), context(folder, lines, clock), {
      machine,
      hostClockIsRight: async () => clock.right,
      dialKeyServer: direct ? undefined : keyServer.dial,
    })
  const rig: Rig = {
    folder,
    address,
    keyServer,
    clock,
    lines,
    device: await create(),
    ca,
    useDtls() {
      direct = true
    },
    async restart(changes = {}) {
      settings = { ...settings, ...changes }
      await rig.device.stop()
      rig.device = await create()
      await rig.device.start()
    },
    async client() {
      const client = await dial(`coap://127.0.0.1:${rig.device.address?.port}`)
      onTestFinished(() => client.close())
      return client
    },
    open(bytes, path, member) {
      const device = addressBytes(address)
      const segments = path.split('/').slice(1)
      const book = new CredentialBook(suite, suite.ed25519.verifying(keyServer.kdc.publicKey))
      book.add(keyServer.credential())
      const verified = verifySigned(bytes, { device, path: segments, credentials: book.credentials })
      const opener = new ObjectOpener(suite, (header) => member.key(header.session))
      return { verified, records: decodeSenml(opener.open(verified.parsed, device, segments)) }
    },
  }
  onTestFinished(() => rig.device.stop())
  return rig
}

/** Keys, and a certificate from a CA of this test. */
async function makeIdentity(
  folder: string,
): Promise<{ address: Address; ca: { root: Authority; issuing: Authority } }> {
  const made = await initIdentity(folder)
  const ca = await createCa({ name: 'test' })
  const issued = await issueDeviceCertificate(ca.issuing, made.request)
  writeFileAtomic(join(folder, 'device.crt'), issued.chain)
  writeFileAtomic(join(folder, 'ca.crt'), ca.root.certificate)
  return { address: made.address, ca }
}

export function context(
  folder: string,
  lines: Record<string, unknown>[] = [],
  clock: Clock = fastClock,
): DaemonContext {
  return {
    name: 'iotchain-device',
    log: createLogger({
      name: 'test',
      level: 'debug',
      write: (line) => void lines.push(JSON.parse(line)),
      intervalMs: 0,
    }),
    metrics: createMetrics(),
    clock,
    configFile: join(folder, 'device.yaml'),
    resolve: (path) => join(folder, path),
    checkOnly: false,
  }
}

/** A key that belongs to nobody. */
export function strangerKey(): string {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString()
}
