/** The key server as a daemon: reads its files, opens store and ports, and puts the service between them. */
import type { X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { suite } from '#crypto'
import { type ChainDescriptor, openDescriptor } from '../chain/descriptor.ts'
import { requestTokenForIntent } from '../chain/intents.ts'
import { ChainReader } from '../chain/reader.ts'
import type { Rpc } from '../chain/rpc.ts'
import { TransactionSender } from '../chain/sender.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { addressBytes } from '../protocol/messages/address.ts'
import { isThere, readFileOrExplain } from '../runtime/atomic-file.ts'
import type { Daemon, DaemonContext } from '../runtime/daemon.ts'
import { makeFolder } from '../runtime/folder.ts'
import { openAuthority } from '../runtime/pki/authority.ts'
import { parseCertificates } from '../runtime/pki/certificate.ts'
import { inFile } from '../runtime/pki/in-file.ts'
import { loadPrivateKey } from '../runtime/pki/keys.ts'
import { openLevelStore } from '../store/level.ts'
import type { Store } from '../store/store.ts'
import { ChainLogs } from './chain-logs.ts'
import type { KeyServerConfig } from './config.ts'
import { type Endpoints, openEndpoints, publicUriOf, readPems } from './endpoints.ts'
import { loadIdentity, type ServerIdentity } from './identity.ts'
import { BroadcastMulticast } from './multicast.ts'
import { type ChainNodes, openNodes } from './nodes.ts'
import { revokedSerials } from './revocations.ts'
import { KeyServer, type ServiceOptions } from './service.ts'
import { groupPolicyOf } from './settings.ts'

export interface KeyServerDaemon extends Daemon<KeyServerConfig> {
  /** Once it runs: the parts, and the ports that are bound. */
  readonly running: { readonly server: KeyServer; readonly endpoints: Endpoints } | undefined
}

/**
 * Reads and checks every file that the configuration names; opens no socket and no store.
 * @throws `runtime/cannot-read`, `pki/…`, `keyserver/bad-identity`, `group/bad-policy`
 */
export async function createKeyServerDaemon(config: KeyServerConfig, context: DaemonContext): Promise<KeyServerDaemon> {
  const { log, resolve, checkOnly } = context
  groupPolicyOf(config)
  const missing = missingFiles(config, resolve)
  if (missing.length > 0 && !checkOnly) throw notReady(missing[0] as string)
  const files = missing.length > 0 ? undefined : await readFiles(config, context)
  const descriptor = missing.length > 0 ? undefined : readDescriptor(config, context)
  const { id: chainId, registry, proofs } = config.chain
  const nodes = openNodes(config.chain, { chainId, registry, descriptor, proofs }, log, context.metrics)
  const chain = chainReader(nodes, config, context)
  const logs = new ChainLogs(nodes.rpc, registry)
  let store: Store | undefined
  let multicast: BroadcastMulticast | undefined
  let running: { server: KeyServer; endpoints: Endpoints } | undefined

  return {
    get running() {
      return running
    },

    async start() {
      if (files === undefined) throw notReady(missing[0] as string)
      const state = resolve(config.state)
      makeFolder(state, 'state folder')
      store = await openLevelStore(join(state, 'store'), { cacheBytes: 16 * 1024 * 1024 })
      let publicUri = ''
      const server = new KeyServer({
        config,
        suite,
        store,
        folder: state,
        enrolment: files.enrolment,
        relay: await openRelay(config, context, nodes.sending),
        onRevoked: (devices) => running?.endpoints.drop(devices),
        chain,
        identity: files.identity,
        clock: context.clock,
        log,
        metrics: context.metrics,
        publicUri: () => publicUri,
        codeHashes: descriptor?.codeHashes.accessToken,
        candidates: (head) => logs.since(head),
        revokedBySelf: (...args) => logs.revokedBySelf(...args),
      })
      server.certificates.revoke(files.revoked)
      await server.load()
      const endpoints = await openEndpoints({
        config,
        identity: files.identity,
        log,
        secure: server.secure,
        plain: server.plain,
        issuers: files.issuers,
        crls: files.crls,
        psk: files.enrolment === undefined ? undefined : (identity) => server.codes.lookup(identity),
        onGone: (association) => server.forget(association),
      })
      publicUri = publicUriOf(config, files.identity, endpoints.coap.address.port)
      running = { server, endpoints }
      if (config.multicast !== undefined) {
        multicast = new BroadcastMulticast(config.multicast.group, config.multicast.interface, log)
        server.onbroadcast = (group, { bytes }) => multicast?.send(group.name, bytes)
      }
      await tellChain(chain, nodes, context)
      server.start()
      const { coaps, coap } = endpoints
      log.info(
        { coaps: coaps.address, coap: coap.address, publicUri, groups: server.roster.groups.size },
        'serving devices and clients',
      )
    },

    async stop() {
      await running?.endpoints.close()
      await running?.server.stop()
      await multicast?.close()
      multicast = undefined
      running = undefined
      await store?.close()
      store = undefined
    },

    async health() {
      await store?.get('health')
      running?.server.sessions.health()
    },

    async reload(next) {
      const fresh = await readFiles(next, context)
      if (files !== undefined && Buffer.compare(fresh.identity.spki, files.identity.spki) !== 0) {
        throw new IotchainError('keyserver/bad-identity', 'the new certificate has another key', {
          hint: 'devices and clients pin this key by the registry: renew the certificate with the same key',
        })
      }
      running?.server.certificates.revoke(fresh.revoked)
      running?.endpoints.renew(fresh.issuers, fresh.crls, fresh.identity)
      log.info('certificates and revocation lists read again; other settings count after a restart')
    },

    advice() {
      return missing.map((file) => `${file} is not there yet: iotchain-keyserver init makes keys, the CA certificates`)
    },
  }
}

interface Files {
  readonly identity: ServerIdentity
  readonly issuers: readonly string[]
  readonly crls: readonly string[]
  /** Serial numbers in those lists, hex. */
  readonly revoked: readonly string[]
  readonly enrolment: ServiceOptions['enrolment']
}

async function readFiles(config: KeyServerConfig, { resolve, clock }: DaemonContext): Promise<Files> {
  const { keys } = config
  const passphrase =
    keys.passphraseFile === undefined ? undefined : readSecret(resolve(keys.passphraseFile), 'passphrase file')
  const identity = loadIdentity(
    suite,
    {
      certificate: resolve(keys.certificate),
      key: resolve(keys.key),
      passphrase,
      broadcast: resolve(keys.broadcast),
    },
    clock.nowMs() / 1000,
  )
  const issuerFiles = config.issuers.map(resolve)
  const issuers = readPems(issuerFiles, 'CA certificate')
  const trusted = issuers.flatMap((pem, i) => inFile(issuerFiles[i] as string, () => parseCertificates(pem)))
  const listFiles = config.crl.map(resolve)
  const crls = readPems(listFiles, 'revocation list')
  const revoked = await revokedSerials(crls, issuers, listFiles)
  return { identity, issuers, crls, revoked, enrolment: readEnrolment(config, resolve, trusted) }
}

/**
 * The issuing CA, where this key server enrols devices.
 * @throws `pki/wrong-key`, `runtime/cannot-read`, `config/invalid` for a CA whose certificates it would not take
 */
function readEnrolment(
  config: KeyServerConfig,
  resolve: (path: string) => string,
  trusted: readonly X509Certificate[],
): Files['enrolment'] {
  const { enrolment, chain } = config
  if (enrolment === undefined) return undefined
  const pem = readFileOrExplain(resolve(enrolment.certificate), 'certificate of the issuing CA').toString('latin1')
  const authorities = inFile(resolve(enrolment.certificate), () => parseCertificates(pem))
  const [issuing] = authorities
  if (issuing === undefined) throw notReady(enrolment.certificate)
  if (!authorities.some((c) => trusted.some((ca) => ca.raw.equals(c.raw) || c.verify(ca.publicKey)))) {
    throw new IotchainError('config/invalid', 'devices that enrol could not join: their CA is not under `issuers:`', {
      hint: `list ${enrolment.certificate} under issuers: too`,
    })
  }
  const password =
    enrolment.passwordFile === undefined ? undefined : readSecret(resolve(enrolment.passwordFile), 'password file')
  const { privateKey } = loadPrivateKey(resolve(enrolment.key), password)
  return {
    authority: openAuthority({ certificate: issuing.toString(), key: privateKey }),
    caChain: pem,
    days: enrolment.days,
    chain: {
      chainId: chain.id,
      registry: addressBytes(chain.registry),
      descriptor:
        chain.descriptor === undefined
          ? undefined
          : Uint8Array.from(readFileOrExplain(resolve(chain.descriptor), 'chain descriptor')),
    },
  }
}

/** The account that pays for relayed requests. @throws `wallet/…`, `runtime/cannot-read` */
async function openRelay(
  config: KeyServerConfig,
  { resolve }: DaemonContext,
  rpc: Rpc,
): Promise<ServiceOptions['relay']> {
  const { relay, chain } = config
  if (relay === undefined) return undefined
  const { loadKeystore } = await import('../chain/wallet.ts')
  const account = await loadKeystore(resolve(relay.keystore), readSecret(resolve(relay.passwordFile), 'password file'))
  return {
    sender: new TransactionSender({ rpc, chainId: chain.id, account }),
    intentOf: requestTokenForIntent,
    offers: relay.offers,
    dailyWei: BigInt(Math.round(relay.dailyEther * 1e9)) * 1_000_000_000n,
    difficulty: relay.difficulty,
  }
}

/** A file with one secret: its line end is no part of it. */
function readSecret(file: string, what: string): string {
  return readFileOrExplain(file, what)
    .toString('utf8')
    .replace(/\r?\n$/, '')
}

function missingFiles(config: KeyServerConfig, resolve: (path: string) => string): string[] {
  const { certificate, key, broadcast } = config.keys
  const { enrolment } = config
  const ca = enrolment === undefined ? [] : [enrolment.certificate, enrolment.key]
  return [certificate, key, broadcast, ...config.issuers, ...ca].map(resolve).filter((file) => !isThere(file))
}

function notReady(file: string): IotchainError {
  return new IotchainError('keyserver/not-ready', `${file} is not there`, {
    hint: 'iotchain-keyserver init makes the keys; `iotchain owner ca server` issues the certificate',
  })
}

function chainReader({ rpc, verify }: ChainNodes, config: KeyServerConfig, { clock }: DaemonContext): ChainReader {
  const { chain } = config
  return new ChainReader({
    rpc,
    chainId: chain.id,
    registry: chain.registry,
    confirmations: chain.confirmations,
    maxHeadAgeSeconds: Math.round(chain.maxHeadAge / 1000),
    expectPeers: chain.expectPeers,
    nowMs: () => clock.nowMs(),
    proofs: chain.proofs,
    ...(verify && { verify }),
  })
}

/** The signed descriptor of the chain. @throws `chain/bad-descriptor`, `keyserver/other-chain` */
function readDescriptor(config: KeyServerConfig, { resolve }: DaemonContext): ChainDescriptor | undefined {
  const { chain, issuers } = config
  if (chain.descriptor === undefined) return undefined
  const keys = readPems(issuers.map(resolve), 'CA certificate').flatMap((pem) =>
    parseCertificates(pem).map((c) => c.publicKey),
  )
  const text = readFileOrExplain(resolve(chain.descriptor), 'chain descriptor').toString('utf8')
  const descriptor = openDescriptor(text, keys)
  if (descriptor.chainId !== chain.id || descriptor.registry !== chain.registry) {
    throw new IotchainError('keyserver/other-chain', 'the chain descriptor is for another chain or registry', {
      hint: 'chain.id and chain.registry have to be those of the descriptor',
    })
  }
  return descriptor
}

/** A node that answers and is the wrong one: an operator has to look, waiting does not help. */
const FATAL: ReadonlySet<string> = new Set([
  'chain/impostor',
  'chain/wrong-chain',
  'chain/no-proofs',
  'chain/never-final',
])

/** Says at once whether the chain can be read; an unreachable node is no reason not to start. */
async function tellChain(chain: ChainReader, nodes: ChainNodes, { log }: DaemonContext): Promise<void> {
  try {
    const head = await chain.head()
    log.info({ chainId: chain.chainId, block: head.number }, 'the chain is there')
  } catch (error) {
    if (isIotchainError(error) && FATAL.has(error.code)) throw error
    log.warn({ err: error }, 'the chain cannot be read yet: nobody new is admitted until it can')
  }
  const wrong = nodes.configurationError()
  if (wrong !== undefined) throw wrong
}
