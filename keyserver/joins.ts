/**
 * How a device or a client becomes a member (protocol.md "Transport", "Challenge"): checks in the order of their
 * cost, then the membership, durable before anything of it leaves.
 */
import { equalBytes } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { publicKeyOf } from '../protocol/cose/key.ts'
import type { AeadAlgorithm, CryptoSuite } from '../protocol/crypto/suite.ts'
import { type Gid, gname } from '../protocol/groups/gid.ts'
import type { GroupPolicy } from '../protocol/groups/policy.ts'
import type { JoinResult } from '../protocol/groups/scheme.ts'
import { addressBytes } from '../protocol/messages/address.ts'
import { type JoinRequest, joinProofInput } from '../protocol/messages/join.ts'
import type { Logger } from '../runtime/log.ts'
import type { StoreOperation } from '../store/store.ts'
import type { SecureFacts } from '../transport/coap/transport.ts'
import type { Certificates } from './certificates.ts'
import { type ClientLogin, NewChallenge } from './client-login.ts'
import type { Credentials } from './credentials.ts'
import type { Entitlements } from './entitlements.ts'
import { Group, type GroupParts } from './group.ts'
import type { Login } from './logins.ts'
import type { ClientReading, DeviceReading, Readings } from './readings.ts'
import { refusal } from './refusals.ts'
import { type Roster, type ServedDevice, sameGrant } from './roster.ts'
import { type SenderIdsByGroup, withNewKey, withSenderId } from './sender-id-records.ts'
import type { Sessions } from './sessions.ts'
import { type ClientRecord, type DeviceRecord, Key, putRecord } from './storage.ts'

export interface JoinsOptions {
  readonly suite: CryptoSuite
  readonly clock: Clock
  readonly log: Logger
  readonly roster: Roster
  readonly readings: Readings
  readonly entitlements: Entitlements
  readonly clientLogin: ClientLogin
  readonly sessions: Sessions
  readonly credentials: Credentials
  /** How long objects that were sealed under a Sender ID can be verified. */
  readonly retentionSeconds: number
  readonly certificates: Certificates
  readonly parts: GroupParts
  readonly policy: GroupPolicy
  /** of new groups */
  readonly aead: AeadAlgorithm
  readonly mode: 'current' | 'next'
  /** Called for each group that is new: broadcasts and archive hang on it. */
  readonly onGroup: (group: Group) => void
}

export interface Admitted {
  readonly group: Group
  readonly served: ServedDevice
  readonly memberId: Uint8Array
  readonly result: JoinResult
  readonly senderId: Uint8Array | undefined
  /** signed credentials that go out: commanders' too for the device */
  readonly withClients: boolean
  /** the newest credential of a commanding client */
  readonly own: Uint8Array | undefined
}

/** What is left to do once everything about a joiner has been checked. */
export type Entry = () => Promise<Admitted>

export class Joins {
  readonly #o: JoinsOptions

  constructor(options: JoinsOptions) {
    this.#o = options
  }

  /** A device, by its certificate and the proof of its object-signing key. */
  async device(secure: SecureFacts, name: string, join: JoinRequest): Promise<Entry> {
    const certificate = this.#o.certificates.deviceOf(secure)
    const device = addressBytes(certificate.device)
    const gid = this.#o.entitlements.gid(device, join.scope)
    if (gname(gid) !== name) throw refusal('keyserver/not-yours', 'the certificate is for another device')
    const { clientCred, clientCredVerify } = join
    if (clientCred === undefined || !(clientCredVerify instanceof Uint8Array)) {
      throw refusal('keyserver/bad-request', 'a device sends client_cred and client_cred_verify')
    }
    const verifyKey = this.#o.suite.ed25519.verifying(publicKeyOf(clientCred))
    if (!verifyKey.verify(joinProofInput(gid, secure.channelBinding()), clientCredVerify)) {
      throw refusal('keyserver/bad-proof', 'client_cred_verify is not signed by client_cred for this association')
    }
    const served = this.#o.entitlements.peek(certificate.device)
    const reading = await this.#o.readings.at((head) => this.#o.readings.device(served, head))
    this.#o.entitlements.checkDeviceKey(reading, clientCred)
    return async () => {
      const { group, owner } = this.#group(served, gid, join.scope)
      await this.#o.sessions.ensureRunning(group)
      return owner.gate.run(() => this.#admitDevice(group, owner, reading, clientCred, certificate))
    }
  }

  /** A client: by a signed key request, or as one that is logged in on the association already. */
  async client(
    association: string,
    secure: SecureFacts,
    name: string,
    join: JoinRequest,
  ): Promise<Entry | NewChallenge> {
    const login = await this.#o.clientLogin.login(association, secure, name, join)
    if (login instanceof NewChallenge) return login
    const served = this.#o.entitlements.peek(login.device)
    const { device, client } = await this.#o.entitlements.readClient(served, login.client)
    const expiresAt = this.#o.entitlements.entitlement(served, device, client, join.scope)
    return async () => {
      const { group, owner } = this.#group(served, this.#o.entitlements.gid(served.octets, join.scope), join.scope)
      await this.#o.sessions.ensureRunning(group)
      return owner.gate.run(() => this.#admitClient(group, owner, device, client, login, expiresAt))
    }
  }

  /** The group, made if it is new, and the roster's one entry of its device. */
  #group(served: ServedDevice, gid: Gid, bit: number): { group: Group; owner: ServedDevice } {
    const { roster, parts, policy, aead, clock, onGroup } = this.#o
    const name = gname(gid)
    roster.checkRoom(name, served.address, bit)
    let group = roster.groups.get(name)
    if (group === undefined) {
      const record = { device: served.address, bit, createdAt: Math.floor(clock.nowMs() / 1000), aead }
      group = Group.create(parts, { gid, name, record }, policy)
      roster.addGroup(group)
      onGroup(group)
    }
    return { group, owner: roster.device(served.address) }
  }

  async #admitDevice(
    group: Group,
    served: ServedDevice,
    reading: DeviceReading,
    coseKey: Uint8Array,
    certificate: NonNullable<DeviceRecord['certificate']>,
  ): Promise<Admitted> {
    const { credentials } = this.#o
    let record: DeviceRecord = served.record
    let credential: ReturnType<Credentials['prepare']>
    const result = await this.#enter(
      group,
      served.memberId,
      certificate.notAfter,
      false,
      (issueSid, now, repeated) => {
        // A new membership is a new incarnation for all that is known: what it sealed before may be lost to it.
        const known = record.senderIds
        const keep = repeated && (known[group.name]?.length ?? 0) > 0
        const senderIds = keep
          ? known
          : withSenderId(known, group.name, { sid: issueSid(), from: now }, this.#o.retentionSeconds)
        const { sha256, serial, notAfter } = certificate
        record = {
          ...record,
          entry: reading.decision.record,
          coseKey,
          certificate: { sha256, serial, notAfter },
          senderIds,
        }
        credential = credentials.prepare({ device: served.address, subject: served.address, coseKey, senderIds })
      },
      () => [
        putRecord(Key.device(served.address), record),
        ...(credential === undefined ? [] : [credential.operation]),
      ],
    )
    served.record = record
    served.registeredKey = reading.decision.signingKey
    served.judgedAt = Math.max(served.judgedAt, reading.head.number)
    credential?.adopt()
    this.#o.log.info(
      { device: served.address, bit: group.bit, group: group.name, repeated: result.repeated },
      'device joined',
    )
    const senderId = record.senderIds[group.name]?.at(-1)?.sid
    return { group, served, memberId: served.memberId, result, senderId, withClients: true, own: undefined }
  }

  async #admitClient(
    group: Group,
    served: ServedDevice,
    reading: DeviceReading,
    verdict: ClientReading,
    login: Login,
    expiresAt: number,
  ): Promise<Admitted> {
    const { credentials } = this.#o
    const client = served.client(login.client)
    let record: ClientRecord = { ...client.record, admissions: Object.fromEntries(verdict.admissions) }
    const sameKey =
      record.commandKey !== undefined &&
      login.commandKey !== undefined &&
      equalBytes(record.commandKey, login.commandKey)
    if (login.commandKey !== undefined && !sameKey) {
      client.newKeysAt = withNewKey(client.newKeysAt, Math.floor(this.#o.clock.nowMs() / 1000))
    }
    let credential: ReturnType<Credentials['prepare']>
    const result = await this.#enter(
      group,
      client.memberId,
      expiresAt,
      !sameGrant(client.record, verdict, group.bit),
      (issueSid, now, repeated) => {
        if (login.commandKey === undefined) return
        const known: SenderIdsByGroup = sameKey ? (record.senderIds ?? {}) : {}
        const keep = repeated && (known[group.name]?.length ?? 0) > 0
        const senderIds = keep
          ? known
          : withSenderId(known, group.name, { sid: issueSid(), from: now }, this.#o.retentionSeconds)
        record = { ...record, commandKey: login.commandKey, senderIds }
        credential = credentials.prepare({
          device: served.address,
          subject: login.client,
          role: 'w',
          coseKey: login.commandKey,
          senderIds,
          until: expiresAt,
        })
      },
      (): StoreOperation[] => [
        putRecord(Key.client(served.address, login.client), record),
        ...(credential === undefined ? [] : [credential.operation]),
      ],
    )
    client.record = record
    client.judgedAt = reading.head.number
    credential?.adopt()
    this.#o.log.info(
      { client: login.client, device: served.address, bit: group.bit, group: group.name, repeated: result.repeated },
      'client admitted',
    )
    const commands = login.commandKey !== undefined
    return {
      group,
      served,
      memberId: client.memberId,
      result,
      senderId: commands ? record.senderIds?.[group.name]?.at(-1)?.sid : undefined,
      withClients: false,
      own: commands ? credentials.newest(served.address, login.client, group.name) : undefined,
    }
  }

  /**
   * The join itself.
   * @param anew a suspended membership is not resumed, but followed by a new one
   */
  async #enter(
    group: Group,
    memberId: Uint8Array,
    expiresAt: number,
    anew: boolean,
    within: (issueSid: () => Uint8Array, now: number, repeated: boolean) => void,
    also: () => StoreOperation[],
  ): Promise<JoinResult> {
    const { clock, mode, sessions } = this.#o
    const result = await group.change((m) => {
      const now = Math.floor(clock.nowMs() / 1000)
      if (anew && m.membership(memberId)?.suspendedFrom !== undefined) m.leave(memberId)
      const joined = m.join(memberId, { expiresAt, mode, now })
      within(() => m.issueSid(), now, joined.repeated)
      return joined
    }, also)
    // No leaf was free in the tree in use: the next one is put to use at once.
    if (result.personal.epoch !== group.manager.epoch) sessions.hurry([group])
    else sessions.wake()
    return result
  }
}
