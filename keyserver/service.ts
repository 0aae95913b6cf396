/**
 * The key server without its sockets: parts wired together over a store, a chain and a clock. `daemon.ts` puts it on
 * UDP and DTLS; tests put it on pipes.
 */
import { join } from 'node:path'
import type { ChainView } from '../chain/view.ts'
import { fromHex } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import type { CryptoSuite } from '../protocol/crypto/suite.ts'
import { toGid } from '../protocol/groups/gid.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { Logger } from '../runtime/log.ts'
import type { Metrics } from '../runtime/metrics.ts'
import type { Store } from '../store/store.ts'
import { Router } from '../transport/coap/router.ts'
import { wellKnownCore } from '../transport/coap/well-known-core.ts'
import { Archive } from './archive.ts'
import { Certificates } from './certificates.ts'
import { ClientLogin } from './client-login.ts'
import type { KeyServerConfig } from './config.ts'
import { Credentials } from './credentials.ts'
import { Enforcement, type EnforcementOptions } from './enforcement.ts'
import { Enrolment, type EnrolmentOptions } from './enrolment.ts'
import { EnrolmentCodes } from './enrolment-codes.ts'
import { Entitlements } from './entitlements.ts'
import { EpochVault } from './epoch-vault.ts'
import { Group, type GroupParts, type PublishedBroadcast } from './group.ts'
import { HeadWatch, type HeadWatchOptions } from './head-watch.ts'
import type { ServerIdentity } from './identity.ts'
import { Joins } from './joins.ts'
import { Logins } from './logins.ts'
import { Readings } from './readings.ts'
import { REFUSALS } from './refusals.ts'
import { Relay, type RelayOptions } from './relay.ts'
import { Replies } from './replies.ts'
import { authzInfo } from './resources/authz-info.ts'
import { broadcasts } from './resources/broadcasts.ts'
import { served } from './resources/common.ts'
import { enrolResource, renewResource } from './resources/enroll.ts'
import { credsResource, groupResources } from './resources/group.ts'
import { nodeResource } from './resources/node.ts'
import { relayResource } from './resources/relay.ts'
import { Revocations } from './revocations.ts'
import { Roster } from './roster.ts'
import { SenderIds } from './sender-ids.ts'
import { Sessions } from './sessions.ts'
import { aeadOf, archiveSeconds, groupPolicyOf, policiesOf } from './settings.ts'
import { Key, Storage } from './storage.ts'
import { TrustedContracts } from './trusted-contracts.ts'

export interface ServiceOptions {
  readonly config: KeyServerConfig
  readonly suite: CryptoSuite
  readonly store: Store
  /** holds `epochs/` (key files of epoch secrets), `codes/` and `orders/` (what the commands leave for the daemon) */
  readonly folder: string
  readonly chain: ChainView
  readonly identity: ServerIdentity
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Metrics
  /** `coap://host:port` of the plain endpoint, once it is bound */
  readonly publicUri: () => string
  /** AccessToken code hashes of the chain descriptor; undefined: those of this release */
  readonly codeHashes?: readonly string[] | undefined
  /** Lets devices enrol here; without it they bring their certificates. */
  readonly enrolment?: Pick<EnrolmentOptions, 'authority' | 'caChain' | 'days' | 'chain'> | undefined
  /** Pays for the token requests of fresh addresses. */
  readonly relay?: Pick<RelayOptions, 'sender' | 'intentOf' | 'offers' | 'dailyWei' | 'difficulty'> | undefined
  /** Certificates of these devices were revoked (their associations have to end). */
  readonly onRevoked?: ((devices: ReadonlySet<Address>) => void) | undefined
  readonly revokedBySelf?: EnforcementOptions['revokedBySelf'] | undefined
  readonly candidates?: HeadWatchOptions['candidates']
  /** Up to so many members all are read at each new block. */
  readonly readAllBelow?: number | undefined
}

/** Up to so many members all are read at each new block; above, those that the logs name. */
const READ_ALL_BELOW = 2000
const PRUNE_MS = 3_600_000

export class KeyServer {
  /** everything, over DTLS */
  readonly secure = new Router({ errorCodes: REFUSALS, wellKnownCore: false })
  /** what anybody may read */
  readonly plain = new Router({ errorCodes: REFUSALS })
  readonly roster: Roster
  readonly sessions: Sessions
  readonly headWatch: HeadWatch
  readonly certificates: Certificates
  readonly credentials: Credentials
  readonly storage: Storage
  readonly readings: Readings
  readonly enforcement: Enforcement
  readonly codes: EnrolmentCodes
  readonly revocations: Revocations
  readonly #relay: Relay | undefined
  readonly #o: ServiceOptions
  readonly #logins: Logins
  readonly #parts: GroupParts
  readonly #vault: EpochVault
  readonly #archive: Archive
  #pruning: NodeJS.Timeout | undefined
  /** Told of each broadcast that is durable (multicast). */
  onbroadcast: ((group: Group, broadcast: PublishedBroadcast) => void) | undefined

  constructor(options: ServiceOptions) {
    const { config, suite, store, chain, identity, clock, log, metrics } = options
    this.#o = options
    const policy = groupPolicyOf(config)
    this.storage = new Storage(store)
    this.#vault = new EpochVault(suite, join(options.folder, 'epochs'))
    this.#parts = { suite, storage: this.storage, vault: this.#vault, signingKey: identity.signingKey }
    this.#archive = new Archive(this.storage, config.limits.archiveMiB * 1024 * 1024)
    this.roster = new Roster(config.limits.groups)
    this.certificates = new Certificates(clock)
    const trusted = new TrustedContracts(chain, config.chain.allowContracts, options.codeHashes, log)
    this.readings = new Readings({
      chain,
      confirmations: config.chain.confirmations,
      clock,
      keyServer: identity.spki,
      owners: new Set<Address>(config.owners),
      trusted: (contract, head) => trusted.isTrusted(contract, head),
    })
    this.credentials = new Credentials({
      suite,
      signingKey: identity.signingKey,
      storage: this.storage,
      clock,
      issuer: identity.issuer,
      retentionSeconds: archiveSeconds(policy),
    })
    this.enforcement = new Enforcement({
      roster: this.roster,
      readings: this.readings,
      storage: this.storage,
      clock,
      log,
      chainGraceMs: config.chain.grace,
      certificateStands: (device) => this.certificates.stands(device.record),
      revokedBySelf: options.revokedBySelf ?? (() => Promise.resolve(false)),
    })
    this.sessions = new Sessions({
      roster: this.roster,
      enforcement: this.enforcement,
      readings: this.readings,
      credentials: this.credentials,
      clock,
      log,
      readLimitMs: Math.min(10_000, Math.max(1000, policy.leadSeconds * 500)),
    })
    this.headWatch = new HeadWatch({
      chain,
      roster: this.roster,
      enforcement: this.enforcement,
      sessions: this.sessions,
      log,
      pollMs: config.chain.poll,
      candidates: options.candidates,
      readAllBelow: options.readAllBelow ?? READ_ALL_BELOW,
    })
    this.codes = new EnrolmentCodes(join(options.folder, 'codes'), clock)
    this.revocations = new Revocations({
      storage: this.storage,
      roster: this.roster,
      certificates: this.certificates,
      log,
      folder: join(options.folder, 'orders'),
      nowSeconds: () => Math.floor(clock.nowMs() / 1000),
      onRevoked: (devices) => this.#revoked(devices),
    })
    this.#logins = new Logins(clock, (n) => suite.randomBytes(n))
    if (options.relay !== undefined) {
      const { storage } = this
      this.#relay = new Relay({ ...options.relay, suite, clock, log, storage, challenges: this.#logins })
    }
    this.#addResources(policy)
    this.#addMetrics(metrics)
  }

  /** Takes up what the store holds. @throws `store/…` */
  async load(): Promise<void> {
    this.#vault.open()
    await this.roster.load(this.storage)
    await this.credentials.load()
    await this.revocations.load()
    await this.#relay?.load()
    const chain = await this.storage.get<{ lastGoodMs?: number }>(Key.chain)
    this.readings.lastGoodMs = chain?.lastGoodMs
    const policy = groupPolicyOf(this.#o.config)
    const known = new Set<string>()
    for await (const { name, record, state } of this.storage.groups()) {
      const identity = { gid: toGid(fromHex(name)), name, record }
      const group = await Group.load(this.#parts, identity, state, policy)
      for (const { epoch } of state.head.epochs) known.add(`${name}/${epoch}`)
      this.#adopt(group)
      this.roster.addGroup(group)
    }
    this.#vault.sweep(known)
  }

  /** Begins to make sessions. */
  start(): void {
    this.sessions.start()
    this.headWatch.start()
    this.revocations.start()
    const prune = (): void => {
      Promise.all([this.credentials.prune(), this.revocations.prune(), this.#relay?.prune()]).catch((error: unknown) =>
        this.#o.log.warn({ err: error }, 'old records stay'),
      )
    }
    this.#pruning = setInterval(prune, PRUNE_MS)
    this.#pruning.unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#pruning)
    await Promise.all([this.sessions.stop(), this.headWatch.stop(), this.revocations.stop()])
  }

  /** An association ended: its challenges and logins end with it. */
  forget(association: string): void {
    this.#logins.forget(association)
  }

  /** Out as early as the minimum session allows, and off the line. */
  #revoked(devices: ReadonlySet<Address>): void {
    this.#o.onRevoked?.(devices)
    for (const address of devices) {
      const served = this.roster.devices.get(address)
      if (served === undefined) continue
      this.sessions.hurry(served.groups.values())
    }
  }

  #adopt(group: Group): void {
    const { log, metrics } = this.#o
    const count = metrics.counter('iotchain_keyserver_broadcasts_total', 'Broadcasts made.')
    const octets = metrics.counter('iotchain_keyserver_broadcast_octets_total', 'Octets of the broadcasts made.')
    group.onpublished = (broadcast) => {
      count.inc()
      octets.inc({}, broadcast.bytes.length)
      log.debug({ group: group.name, session: broadcast.session, octets: broadcast.bytes.length }, 'broadcast out')
      for (const router of [this.secure, this.plain]) {
        router.notify(`/bc/${group.name}`)
        router.notify(`/ace-group/${group.name}/num`)
      }
      this.onbroadcast?.(group, broadcast)
      this.#archive
        .trim(group)
        .catch((error: unknown) => log.limited('archive', 'warn', { err: error }, 'the archive was not trimmed'))
    }
  }

  #addResources(policy: ReturnType<typeof groupPolicyOf>): void {
    const { config, suite, chain, clock, log, identity, publicUri } = this.#o
    const { roster, readings, sessions, credentials, certificates, storage } = this
    const logins = this.#logins
    const entitlements = new Entitlements({ suite, chain, roster, readings })
    const clientLogin = new ClientLogin({
      suite,
      chain,
      clock,
      log,
      readings,
      entitlements,
      logins,
      keyServer: identity.spki,
      clockSkewSeconds: Math.round(config.objects.acceptClockSkew / 1000),
      verifications: config.limits.verifications,
    })
    const joins = new Joins({
      suite,
      clock,
      log,
      roster,
      readings,
      entitlements,
      clientLogin,
      sessions,
      credentials,
      retentionSeconds: archiveSeconds(policy),
      certificates,
      parts: this.#parts,
      policy,
      aead: aeadOf(config),
      mode: config.sessions.joins,
      onGroup: (group) => this.#adopt(group),
    })
    const senderIds = new SenderIds({ clock, credentials, retentionSeconds: archiveSeconds(policy) })
    const replies = new Replies({
      roster,
      credentials,
      clock,
      policies: (group) => policiesOf(config, policy, group.aead),
      kdcCred: identity.kdcCred,
      publicUri,
    })
    if (this.#o.enrolment !== undefined) {
      const enrolment = new Enrolment({
        ...this.#o.enrolment,
        suite,
        clock,
        log,
        storage,
        roster,
        entitlements,
        certificates,
        codes: this.codes,
        kdcCred: identity.kdcCred,
        keyServer: identity.spki,
      })
      this.secure.add(served(enrolResource(enrolment), true))
      this.secure.add(served(renewResource(enrolment)))
    }
    if (this.#relay !== undefined) this.secure.add(served(relayResource(this.#relay)))
    const everywhere = broadcasts(roster, storage, clock)
    const overDtls = [
      authzInfo(entitlements, logins),
      ...groupResources({ suite, roster, joins, certificates, credentials, replies }),
      nodeResource({ roster, entitlements, senderIds, logins, certificates, sessions, clock, log }),
    ]
    for (const resource of [...everywhere, ...overDtls, wellKnownCore(this.secure)]) this.secure.add(served(resource))
    for (const resource of [...everywhere, credsResource({ roster, certificates, credentials })]) {
      this.plain.add(served(resource))
    }
  }

  #addMetrics(metrics: Metrics): void {
    const { roster } = this
    metrics.gauge('iotchain_keyserver_groups', 'Groups that this key server runs.', () => roster.groups.size)
    metrics.gauge('iotchain_keyserver_devices', 'Devices known.', () => roster.devices.size)
    metrics.gauge('iotchain_keyserver_members', 'Memberships that stand, in all groups.', () => {
      let count = 0
      for (const group of roster.groups.values()) for (const _ of group.manager.members()) count++
      return count
    })
    metrics.gauge('iotchain_keyserver_chain_age_seconds', 'Since the chain was read last.', () => {
      const last = this.readings.lastGoodMs
      return last === undefined ? -1 : Math.round((this.#o.clock.nowMs() - last) / 1000)
    })
  }
}
