/** Commands of `iotchain-keyserver` beside run and check: init, spki, code, revoke, recover. */
import { join } from 'node:path'
import type { Command } from 'commander'
import { suite } from '#crypto'
import { type KeyServerConfig, keyServerSchema } from '../../keyserver/config.ts'
import { readPems } from '../../keyserver/endpoints.ts'
import { EnrolmentCodes } from '../../keyserver/enrolment-codes.ts'
import { loadBroadcastKey, namesOf } from '../../keyserver/identity.ts'
import { initKeyServer } from '../../keyserver/init.ts'
import { type Mirror, recover, requireRevocationAnswer } from '../../keyserver/recover.ts'
import { orderRevocation, revokedSerials } from '../../keyserver/revocations.ts'
import { groupPolicyOf } from '../../keyserver/settings.ts'
import { Storage } from '../../keyserver/storage.ts'
import { toHex } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { parseAddress } from '../../protocol/messages/address.ts'
import { readFileIfExists, readFileOrExplain } from '../../runtime/atomic-file.ts'
import { systemClock } from '../../runtime/clock.ts'
import { loadConfig } from '../../runtime/config.ts'
import { resolvePath } from '../../runtime/config-path.ts'
import { parseDuration } from '../../runtime/duration.ts'
import { parseCertificates, spkiSha256 } from '../../runtime/pki/certificate.ts'
import { giveBack, inStateFolder } from '../../runtime/state-folder.ts'
import { openLevelStore } from '../../store/level.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { COAPS_PORT } from '../../transport/coap/uri.ts'
import { dial } from '../../transport/dial.ts'

interface InitOptions {
  readonly config: string
  readonly name?: string[]
  readonly caCertificate?: string
  readonly caKey?: string
  readonly caPasswordFile?: string
  readonly days?: string
}

export function registerKeyServerCommands(program: Command): void {
  program
    .command('init')
    .description('make the broadcast key and the DTLS key, and with the root CA at hand the certificate')
    .requiredOption('--config <file>', 'configuration file that names the files to make')
    .option('--name <host...>', 'DNS names and IP addresses for the certificate')
    .option('--ca-certificate <file>', 'certificate of the root CA, PEM')
    .option('--ca-key <file>', 'its private key, PEM')
    .option('--ca-password-file <file>', 'file with the password of that key')
    .option('--days <n>', 'life of the certificate in days', '398')
    .action(init)
  program
    .command('spki')
    .description('print the SHA-256 of the public key: how the registry names this key server')
    .requiredOption('--config <file>', 'configuration file')
    .action(({ config: file }: { config: string }) => {
      const config = loadConfig(keyServerSchema, file)
      const certificate = readFileOrExplain(resolvePath(file, config.keys.certificate), 'certificate')
      console.log(`0x${toHex(spkiSha256(certificate.toString('latin1')))}`)
    })
  program
    .command('code')
    .description('make an enrolment code for one new device')
    .requiredOption('--config <file>', 'configuration file')
    .requiredOption('--owner <address>', 'resource owner whose device it will be')
    .option('--device <address>', 'the only device that may use it')
    .option('--ttl <duration>', 'how long it lasts', '7d')
    .option('--json', 'print one JSON object')
    .action(code)
  program
    .command('revoke')
    .description('make a device certificate count no more')
    .requiredOption('--config <file>', 'configuration file')
    .option('--device <address>', 'all certificates of this device')
    .option('--serial <hex>', 'one certificate')
    .action(revoke)
  program
    .command('recover')
    .description('make a restored backup safe to run: all counters jump ahead, everybody joins again')
    .requiredOption('--config <file>', 'configuration file')
    .option('--mirror <uri...>', 'coap://HOST of proxies that still hold broadcasts')
    .option('--crl <file...>', 'present revocation lists')
    .option('--none-revoked', 'no certificate was revoked since the backup')
    .action(runRecover)
}

interface RecoverCommand {
  readonly config: string
  readonly mirror?: string[]
  readonly crl?: string[]
  readonly noneRevoked?: boolean
}

async function runRecover(options: RecoverCommand): Promise<void> {
  const config = loadConfig(keyServerSchema, options.config)
  const path = (file: string): string => resolvePath(options.config, file)
  const crls = readPems(options.crl ?? [], 'revocation list')
  requireRevocationAnswer(crls, options.noneRevoked === true)
  const issuers = crls.length === 0 ? [] : readPems(config.issuers.map(path), 'CA certificate')
  const folder = path(config.state)
  const store = await openLevelStore(join(folder, 'store'))
  const clients: CoapClient[] = []
  try {
    const mirrors: Mirror[] = []
    for (const uri of options.mirror ?? []) {
      const client = await dial(uri)
      clients.push(client)
      mirrors.push({ name: uri, newest: (group) => newestOf(client, group) })
    }
    const report = await recover({
      suite,
      storage: new Storage(store),
      folder,
      verifyKey: suite.ed25519.verifying(loadBroadcastKey(suite, path(config.keys.broadcast)).publicKey),
      mirrors,
      revoked: await revokedSerials(crls, issuers, options.crl),
      now: Math.floor(systemClock.nowMs() / 1000),
      minSessionSeconds: groupPolicyOf(config).minSessionSeconds,
      onWarning: (text) => console.error(text),
    })
    for (const { group, storedSession, seenSession, first, members } of report) {
      const seen = seenSession > 0 ? `, ${seenSession} on a mirror` : ''
      console.log(
        `group ${group}: session ${storedSession} stored${seen}; goes on with ${first}; ${members} members out`,
      )
    }
    console.log(
      `${report.length} groups recovered; enrolment codes are void; devices and clients join again by themselves`,
    )
  } finally {
    await Promise.all(clients.map((c) => c.close()))
    await store.close()
    giveBack(folder)
  }
}

async function newestOf(client: CoapClient, group: string): Promise<Uint8Array | undefined> {
  const response = await client.get(`/bc/${group}`, { timeoutMs: 20_000 })
  return response.ok ? response.payload : undefined
}

interface CodeOptions {
  readonly config: string
  readonly owner: string
  readonly device?: string
  readonly ttl: string
  readonly json?: boolean
}

function code(options: CodeOptions): void {
  const config = loadConfig(keyServerSchema, options.config)
  if (config.enrolment === undefined) {
    throw new IotchainError('config/invalid', 'this key server enrols no devices', {
      hint: 'add a section `enrolment:` with the issuing CA to its configuration',
    })
  }
  const ttlSeconds = Math.round(parseDuration(options.ttl) / 1000)
  if (ttlSeconds < 1) {
    throw new IotchainError('config/bad-duration', `a code that lasts ${options.ttl} could not be used`, {
      hint: 'write for example 2h or 7d',
    })
  }
  const owner = parseAddress(options.owner)
  const device = options.device === undefined ? undefined : parseAddress(options.device)
  const expiresAt = Math.floor(systemClock.nowMs() / 1000) + ttlSeconds
  const { text } = inStateFolder(resolvePath(options.config, config.state), (state) =>
    new EnrolmentCodes(join(state, 'codes'), systemClock).create({
      randomBytes: (n) => suite.randomBytes(n),
      owner,
      device,
      expiresAt,
    }),
  )
  const end = new Date(expiresAt * 1000).toISOString()
  if (options.json === true) {
    console.log(JSON.stringify({ code: text, owner, ...(device === undefined ? {} : { device }), expiresAt }))
    return
  }
  console.log(text)
  console.log(`for ${device === undefined ? 'one device' : `device ${device}`} of owner ${owner}, until ${end}`)
  console.log(
    `on the device: iotchain-device enroll --keyserver ${enrolUri(options.config, config)}, then type the code`,
  )
}

/** Where a device reaches this key server, as far as its certificate tells. */
function enrolUri(file: string, { keys, listen }: KeyServerConfig): string {
  const { port } = listen.coaps
  const pem = readFileIfExists(resolvePath(file, keys.certificate))
  const [certificate] = pem === undefined ? [] : parseCertificates(pem)
  const host = namesOf(certificate?.subjectAltName ?? '').find((name) => !name.startsWith('*')) ?? 'HOST'
  return `coaps://${host}${port === COAPS_PORT ? '' : `:${port === 0 ? 'PORT' : port}`}`
}

interface RevokeOptions {
  readonly config: string
  readonly device?: string
  readonly serial?: string
}

function revoke(options: RevokeOptions): void {
  const { device, serial } = options
  if ((device === undefined) === (serial === undefined)) {
    throw new IotchainError('config/invalid', 'name either --device or --serial', {
      hint: '--serial takes back one certificate, --device all that were seen of a device',
    })
  }
  if (serial !== undefined && !/^[0-9a-fA-F]{1,40}$/.test(serial)) {
    throw new IotchainError('config/invalid', `"${serial}" is no serial number`, {
      hint: 'openssl x509 -serial -noout -in FILE prints it',
    })
  }
  const config = loadConfig(keyServerSchema, options.config)
  const order = serial === undefined ? { device: parseAddress(device as string) } : { serial }
  inStateFolder(resolvePath(options.config, config.state), (state) => orderRevocation(join(state, 'orders'), order))
  console.log(
    'the running key server acts on it within seconds, one that is stopped when it starts; its log names what was revoked',
  )
}

async function init(options: InitOptions): Promise<void> {
  const config = loadConfig(keyServerSchema, options.config)
  const path = (file: string): string => resolvePath(options.config, file)
  const { certificate, key, passphraseFile, broadcast } = config.keys
  const { caCertificate, caKey } = options
  if ((caCertificate === undefined) !== (caKey === undefined)) {
    throw new IotchainError('config/invalid', '--ca-certificate and --ca-key go together', {
      hint: 'without both, `iotchain owner ca server` makes the certificate where the CA is kept',
    })
  }
  if (caCertificate !== undefined && (options.name ?? []).length === 0) {
    throw new IotchainError('config/invalid', 'the certificate needs --name with the host name or IP address', {
      hint: 'as devices and clients write it after coaps://; it may be given several times',
    })
  }
  const ca =
    caCertificate === undefined || caKey === undefined
      ? undefined
      : {
          certificate: caCertificate,
          key: caKey,
          passphrase: options.caPasswordFile && readPassword(options.caPasswordFile),
          names: options.name ?? [],
          days: Number(options.days),
        }
  const files = {
    certificate: path(certificate),
    key: path(key),
    passphrase: passphraseFile === undefined ? undefined : readPassword(path(passphraseFile), 'passphrase file'),
    broadcast: path(broadcast),
  }
  const { made, kept, spki } = await initKeyServer(suite, files, ca)
  for (const file of made) console.log(`made  ${file}`)
  for (const file of kept) console.log(`kept  ${file}`)
  console.log(`keyServer for the registry: 0x${toHex(spki)}`)
  if (ca === undefined && !made.concat(kept).includes(files.certificate)) {
    console.log(`next: have the root CA sign ${files.key} into ${files.certificate}, or repeat with --ca-certificate`)
  }
}

function readPassword(file: string, what = 'password file'): string {
  return readFileOrExplain(file, what)
    .toString('utf8')
    .replace(/\r?\n$/, '')
}
