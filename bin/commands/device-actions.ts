/** What the commands of `iotchain-device` beside run and check do. Loaded only when one of them is called. */
import { join } from 'node:path'
import { examine, exitCodeOf } from '../../device/doctor.ts'
import { enrol, requireKeyServerUri } from '../../device/enrol.ts'
import { writeEnrolledConfig } from '../../device/enrol-config.ts'
import { deleteEnrolFile, readEnrolFile } from '../../device/enrol-file.ts'
import { orderForget } from '../../device/forget.ts'
import { createRegistration, IDENTITY_FILES, initIdentity } from '../../device/provision.ts'
import { deviceSettings } from '../../device/settings.ts'
import { fromHex, toHex } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { parseAddress } from '../../protocol/messages/address.ts'
import { encodeRegistrationTicket } from '../../protocol/messages/registration.ts'
import { readFileOrExplain, writeFileAtomic } from '../../runtime/atomic-file.ts'
import { systemClock } from '../../runtime/clock.ts'
import { loadConfig } from '../../runtime/config.ts'
import { resolvePath } from '../../runtime/config-path.ts'
import { parseDuration } from '../../runtime/duration.ts'
import { silentLogger } from '../../runtime/log.ts'
import { createMetrics } from '../../runtime/metrics.ts'
import { inStateFolder } from '../../runtime/state-folder.ts'
import { readPassword } from '../terminal/password.ts'

export async function init(options: { dir: string; json?: boolean }): Promise<void> {
  const made = await initIdentity(options.dir)
  const signingKey = `0x${toHex(made.signingKey)}`
  if (options.json === true) {
    const request = join(options.dir, IDENTITY_FILES.request)
    console.log(JSON.stringify({ address: made.address, signingKey, request }))
    return
  }
  console.log(`device address  ${made.address}`)
  console.log(`signing key     ${signingKey}`)
  console.log(`keys            ${Object.values(IDENTITY_FILES).join(', ')} in ${options.dir} (readable by you alone)`)
  console.log('')
  console.log('next: have the CA issue the certificate, and register the device:')
  console.log(
    `  iotchain owner ca device ${join(options.dir, IDENTITY_FILES.request)} --out ${join(options.dir, 'device.crt')}`,
  )
  console.log(
    `  iotchain-device registration --dir ${options.dir} --owner 0x… --keyserver-spki … --chain-id … --registry 0x…`,
  )
}

export async function doctor(options: { config: string; json?: boolean }): Promise<void> {
  const settings = loadConfig(deviceSettings, options.config)
  const findings = await examine(settings, {
    name: 'iotchain-device',
    log: silentLogger,
    metrics: createMetrics(),
    clock: systemClock,
    configFile: options.config,
    resolve: (path) => resolvePath(options.config, path),
    checkOnly: true,
  })
  if (options.json === true) console.log(JSON.stringify(findings))
  else for (const { level, about, text } of findings) console.log(`${level.padEnd(4)}  ${about}: ${text}`)
  process.exitCode = exitCodeOf(findings)
}

export function forget(path: string, options: { config: string }): void {
  const settings = loadConfig(deviceSettings, options.config)
  if (!settings.resources.some((r) => r.path === path)) {
    throw new IotchainError('device/usage', `the configuration has no resource ${path}`, {
      hint: `there are: ${settings.resources.map((r) => r.path).join(', ')}`,
    })
  }
  inStateFolder(resolvePath(options.config, settings.state), (state) => orderForget(state, path))
  console.log(`${path} will be forgotten at the next start or reload of the daemon (systemctl reload iotchain-device)`)
}

export interface EnrollOptions {
  readonly keyserver?: string
  readonly codeFile?: string
  readonly file?: string
  readonly dir: string
  readonly uri: string
  readonly registration?: string
  readonly config?: string
}

export async function enroll(options: EnrollOptions): Promise<void> {
  const given = options.file === undefined ? undefined : readEnrolFile(options.file)
  const keyserver = options.keyserver ?? given?.keyserver
  if (keyserver === undefined) throw usage('--keyserver or --file is needed')
  const uri = [options.uri, given?.uri ?? ''].find((text) => text !== '') ?? keyserver
  for (const text of [keyserver, uri]) requireKeyServerUri(text)
  const code = given?.code ?? (await readCode(options.codeFile))
  const enrolled = await enrol({ keyserver, code, directory: options.dir })
  const text = encodeRegistrationTicket(
    createRegistration({
      accountKey: join(options.dir, IDENTITY_FILES.accountKey),
      signingKey: join(options.dir, IDENTITY_FILES.signingKey),
      chainId: enrolled.chainId,
      registry: enrolled.registry,
      owner: enrolled.owner,
      keyServer: enrolled.keyServer,
      uri,
      nonce: 0,
      deadline: deadlineOf('30d'),
    }),
  )
  if (options.registration !== undefined) writeFileAtomic(options.registration, `${text}\n`, { mode: 0o644 })
  if (options.config !== undefined) writeEnrolledConfig(options.config, keyserver, enrolled)
  if (options.file !== undefined) deleteEnrolFile(options.file)
  console.error(`enrolled as ${enrolled.address}; certificate and root are in ${options.dir}`)
  if (options.config === undefined) {
    const { chainId, registry } = enrolled
    console.error(`in the configuration: keyserver: "${keyserver}", chain: { id: ${chainId}, registry: "${registry}" }`)
  }
  console.error(`the owner ${enrolled.owner} submits this registration (iotchain owner register), within 30 days:`)
  console.log(text)
  if (process.stdout.isTTY) console.log(await qrCode(text))
}

/** Never an argument: arguments are seen by every user of the machine. */
async function readCode(file: string | undefined): Promise<string> {
  if (file !== undefined) return readFileOrExplain(file, 'enrolment code').toString().trim()
  if (process.stdin.isTTY) return readPassword(undefined, 'Enrolment code')
  let text = ''
  for await (const chunk of process.stdin) {
    text += String(chunk)
    if (text.length > 1024) throw usage('the code has 26 characters')
  }
  if (text.trim() === '') throw usage('no code came on standard input')
  return text.trim()
}

async function qrCode(text: string): Promise<string> {
  const { encodeQR } = await import('qr')
  return encodeQR(text, 'term')
}

export interface RegistrationOptions {
  readonly owner: string
  readonly keyserverSpki: string
  readonly config?: string
  readonly dir: string
  readonly chainId?: string
  readonly registry?: string
  readonly nonce: string
  readonly deadline: string
  readonly uri: string
  readonly qr?: boolean
}

export async function registration(options: RegistrationOptions): Promise<void> {
  const { accountKey, signingKey, chainId, registry, uri } = keysAndChain(options)
  const keyServer = fromHex(options.keyserverSpki)
  if (keyServer.length !== 32) throw usage('--keyserver-spki has 64 hex digits')
  const text = encodeRegistrationTicket(
    createRegistration({
      accountKey,
      signingKey,
      chainId,
      registry,
      owner: parseAddress(options.owner),
      keyServer,
      uri: options.uri === '' ? uri : options.uri,
      nonce: wholeNumber('--nonce', options.nonce),
      deadline: deadlineOf(options.deadline),
    }),
  )
  console.log(text)
  if (options.qr === true) console.log(await qrCode(text))
}

function keysAndChain(options: RegistrationOptions): {
  accountKey: string
  signingKey: string
  chainId: number
  registry: string
  uri: string
} {
  if (options.config !== undefined) {
    const { identity, chain, keyserver } = loadConfig(deviceSettings, options.config)
    const resolve = (path: string): string => resolvePath(options.config as string, path)
    return {
      accountKey: resolve(identity.accountKey),
      signingKey: resolve(identity.signingKey),
      chainId: chain.id,
      registry: chain.registry,
      uri: keyserver,
    }
  }
  if (options.chainId === undefined || options.registry === undefined) {
    throw usage('without --config, --chain-id and --registry are needed')
  }
  return {
    accountKey: join(options.dir, IDENTITY_FILES.accountKey),
    signingKey: join(options.dir, IDENTITY_FILES.signingKey),
    chainId: wholeNumber('--chain-id', options.chainId),
    registry: parseAddress(options.registry),
    uri: '',
  }
}

function deadlineOf(text: string): number {
  if (/^\d+$/.test(text)) return Number(text)
  return Math.floor((Date.now() + parseDuration(text)) / 1000)
}

function wholeNumber(option: string, text: string): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw usage(`${option} is a whole number`)
  return value
}

function usage(message: string): IotchainError {
  return new IotchainError('device/usage', message, { hint: '--help tells the options' })
}
