/**
 * One group as the device knows it: its membership, the broadcasts received, the session to seal under. Kept in the
 * store, so that a restart goes on where it was; never below a session that was sealed under.
 */
import { suite } from '#crypto'
import { equalBytes } from '../protocol/bytes.ts'
import { publicKeyOf } from '../protocol/cose/key.ts'
import type { SigningKey } from '../protocol/crypto/suite.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { claimBroadcast, verifyBroadcast } from '../protocol/groups/broadcast.ts'
import { type Gid, gname } from '../protocol/groups/gid.ts'
import { decodePersonalKey } from '../protocol/groups/personal-key.ts'
import type { GroupMember, MemberState, NotReceived, ReceivedBroadcast } from '../protocol/groups/scheme.ts'
import { sdsh } from '../protocol/groups/sdsh.ts'
import type { JoinResponse } from '../protocol/messages/join.ts'
import type { NodeKeys } from '../protocol/messages/node.ts'
import type { GroupPolicies } from '../protocol/messages/policies.ts'
import { createSealer, type Sealer } from '../protocol/objects/seal.ts'
import type { Logger } from '../runtime/log.ts'
import { decodeRecord, encodeRecord } from '../store/records.ts'
import type { Store } from '../store/store.ts'
import type { DeviceTime } from './device-time.ts'
import type { FalseBroadcasts } from './false-broadcasts.ts'
import type { Sequence } from './sequence.ts'

export interface GroupSessionOptions {
  readonly gid: Gid
  /** Bit of the claims. */
  readonly bit: number
  /** 20 octets. */
  readonly device: Uint8Array
  readonly signingKey: SigningKey
  readonly store: Store
  readonly sequence: Sequence
  readonly time: Pick<DeviceTime, 'nowMs'>
  /** One for all groups of the device. */
  readonly falseBroadcasts: FalseBroadcasts
  readonly log: Logger
}

/** What the store holds under `group/<gname>`. Secret: it has the personal keys. */
interface GroupRecord {
  readonly kdcCred: Uint8Array
  readonly member: MemberState
  readonly policies: GroupPolicies
  readonly controlGroupUri: string
  /** The newest broadcast, passed on to neighbours. */
  readonly broadcast: Uint8Array | undefined
  /** Session whose key came with the join, not by its broadcast. */
  readonly given: CurrentSession | undefined
}

export interface CurrentSession {
  readonly session: number
  readonly nbf: number
  readonly exp: number
}

export class GroupSession {
  readonly gid: Gid
  readonly gname: string
  readonly bit: number
  readonly #options: GroupSessionOptions
  #member: GroupMember | undefined
  #record: Omit<GroupRecord, 'member'> | undefined
  readonly #sealers = new Map<string, Sealer>()
  #epochEnds: number | undefined
  #saved: Promise<void> = Promise.resolve()
  /** Told when a broadcast opened a newer session. */
  onSession: ((session: number) => void) | undefined
  /** A verified broadcast does not cover this device, or is of an epoch whose personal key it lacks. */
  onGap: ((reason: 'not-for-me' | 'unknown-epoch') => void) | undefined

  private constructor(options: GroupSessionOptions) {
    this.#options = options
    this.gid = options.gid
    this.bit = options.bit
    this.gname = gname(options.gid)
  }

  static async load(options: GroupSessionOptions): Promise<GroupSession> {
    const group = new GroupSession(options)
    const bytes = await options.store.get(`group/${group.gname}`)
    if (bytes === undefined) return group
    try {
      const { member, ...record } = decodeRecord<GroupRecord>(bytes)
      group.#member = group.#newMember(record.kdcCred, member)
      group.#record = record
      for (const personal of member.personals) group.#noteEpoch(personal.exp)
    } catch (error) {
      options.log.warn({ group: group.gname, err: error }, 'the stored group keys cannot be used: joining again')
    }
    return group
  }

  /** Member with a Sender ID: nothing but a running session is missing for sealing. */
  get joined(): boolean {
    return this.#member !== undefined && this.#options.sequence.group(this.gname) !== undefined
  }

  get policies(): GroupPolicies | undefined {
    return this.#record?.policies
  }

  get kdcCred(): Uint8Array | undefined {
    return this.#record?.kdcCred
  }

  /** Where the key server publishes broadcasts on plain CoAP. */
  get controlGroupUri(): string | undefined {
    return this.#record?.controlGroupUri
  }

  /** The newest broadcast, for whoever asks. */
  get broadcast(): Uint8Array | undefined {
    return this.#record?.broadcast
  }

  /** The newest session that could be opened; 0 before the first. */
  get newestSession(): number {
    return this.#member?.session ?? 0
  }

  /** Unix seconds at which the last epoch ends of which a personal key is held. */
  get epochEnds(): number | undefined {
    return this.#epochEnds
  }

  /** Takes what a join brought. The Sender ID is set apart, in the sequence file. */
  async adopt(response: JoinResponse): Promise<void> {
    const old = this.#record
    const same = old !== undefined && equalBytes(old.kdcCred, response.kdcCred)
    const member = this.#member === undefined || !same ? this.#newMember(response.kdcCred, undefined) : this.#member
    this.#addKeys(member, response)
    // only now: of an answer that is not good nothing stays
    this.#member = member
    this.#record = {
      kdcCred: response.kdcCred,
      policies: response.policies,
      controlGroupUri: response.controlGroupUri,
      broadcast: same ? old.broadcast : undefined,
      given: same ? old.given : undefined,
    }
    this.#sealers.clear()
    await this.#save()
    this.onSession?.(this.newestSession)
  }

  /** Takes personal keys that were fetched later. */
  async addPersonalKeys(keys: NodeKeys): Promise<void> {
    this.#addKeys(this.#required(), keys)
    await this.#save()
  }

  /**
   * Takes a broadcast from whatever source: only its signature counts.
   * @param asked it was asked for there; a stranger brought it otherwise
   * @throws `group/…` for octets that are not a broadcast of this key server for this group; `device/false-broadcasts`
   */
  async receive(message: Uint8Array, source: string, asked: boolean): Promise<ReceivedBroadcast | NotReceived> {
    const member = this.#required()
    const before = member.session
    const received = this.#checked(member, message, source, asked)
    if (received === 'not-for-me' && (await this.#takeGiven(message))) return received
    if (typeof received === 'string') {
      if (received !== 'old') this.onGap?.(received)
      return received
    }
    if (member.session > before) {
      this.#record = { ...(this.#record as GroupRecord), broadcast: message.slice() }
      this.#options.log.debug({ group: this.gname, session: received.session, source }, 'session opened')
      await this.#save()
      this.onSession?.(member.session)
    }
    return received
  }

  #checked(member: GroupMember, message: Uint8Array, source: string, asked: boolean): ReceivedBroadcast | NotReceived {
    const { falseBroadcasts } = this.#options
    if (!falseBroadcasts.mayBring(source, asked)) {
      throw new IotchainError('device/false-broadcasts', 'too many false broadcasts came from there')
    }
    try {
      return member.receive(message)
    } catch (error) {
      if (isIotchainError(error) && error.code === 'group/bad-signature') falseBroadcasts.wasFalse(source, asked)
      throw error
    }
  }

  /** The session to seal under now, or undefined: then readings wait. */
  current(): CurrentSession | undefined {
    const nowMs = this.#options.time.nowMs()
    if (nowMs === undefined || this.#member === undefined) return undefined
    const now = Math.floor(nowMs / 1000)
    const given = this.#record?.given
    const current =
      this.#member.current(now) ?? (given !== undefined && given.nbf <= now && now < given.exp ? given : undefined)
    const used = this.#options.sequence.group(this.gname)
    if (current === undefined || used === undefined || current.session < used.session) return undefined
    return this.#member.key(current.session) === undefined ? undefined : current
  }

  /** The least nbf of the sessions after this one, if one is known. */
  supersededAt(session: number): number | undefined {
    return this.#member?.supersededAt(session)
  }

  /** Seals for one path under one session; keys are derived once. Undefined when the key of the session is not held. */
  sealer(session: number, path: readonly string[]): Sealer | undefined {
    const sid = this.#options.sequence.group(this.gname)?.sid
    const K = this.#member?.key(session)
    if (sid === undefined || K === undefined) return undefined
    const name = path.join('/')
    const held = this.#sealers.get(name)
    if (held !== undefined && held.scope.session === session && equalBytes(held.scope.sid, sid)) return held
    const { device, signingKey } = this.#options
    const algorithm = this.#record?.policies.aead ?? 24
    const sealer = createSealer(suite, { K, gid: this.gid, session, device, sid, path, algorithm, signingKey })
    this.#sealers.set(name, sealer)
    return sealer
  }

  /** K_j, to open commands. */
  key(session: number): Uint8Array | undefined {
    return this.#member?.key(session)
  }

  /** nbf and exp of a session whose broadcast was received. */
  times(session: number): CurrentSession | undefined {
    const given = this.#record?.given
    return this.#member?.times(session) ?? (given?.session === session ? given : undefined)
  }

  #newMember(kdcCred: Uint8Array, state: MemberState | undefined): GroupMember {
    const kdc = suite.ed25519.verifying(publicKeyOf(kdcCred))
    return sdsh(suite).member({ gid: this.gid, kdc, state })
  }

  /**
   * The broadcast of the session in which the device joined does not cover it; its key came with the join, and only
   * its times are missing. True when the key is held.
   */
  async #takeGiven(message: Uint8Array): Promise<boolean> {
    const record = this.#record as GroupRecord
    const kdc = suite.ed25519.verifying(publicKeyOf(record.kdcCred))
    const { session, nbf, exp } = verifyBroadcast(suite, claimBroadcast(message, {}), kdc)
    if (this.#required().key(session) === undefined) return false
    if (record.given?.session === session) return true
    this.#record = { ...record, given: { session, nbf, exp } }
    await this.#save()
    this.onSession?.(session)
    return true
  }

  /** All of them, or none. @throws `group/bad-personal-key`, `group/bad-key` */
  #addKeys(member: GroupMember, keys: Pick<NodeKeys, 'personalKey' | 'nextPersonalKey' | 'keys'>): void {
    const { personalKey, nextPersonalKey } = keys
    const personals = [personalKey, ...(nextPersonalKey === undefined ? [] : [nextPersonalKey])].map(decodePersonalKey)
    const trial = sdsh(suite).member({ gid: this.gid, kdc: suite.ed25519.verifying(new Uint8Array(32)) })
    for (const to of [trial, member]) {
      for (const personal of personals) to.addPersonal(personal)
      for (const { session, key } of keys.keys) to.addKey({ session, K: key })
    }
    for (const { exp } of personals) this.#noteEpoch(exp)
  }

  #noteEpoch(exp: number): void {
    this.#epochEnds = Math.max(this.#epochEnds ?? 0, exp)
  }

  #required(): GroupMember {
    if (this.#member === undefined)
      throw new IotchainError('device/not-joined', `not a member of group ${this.gname} yet`)
    return this.#member
  }

  async #save(): Promise<void> {
    // One after the other, so that an older state never lands on a newer one.
    this.#saved = this.#saved
      .catch(() => undefined)
      .then(() => {
        const record: GroupRecord = { ...(this.#record as GroupRecord), member: this.#required().state() }
        return this.#options.store.batch([{ type: 'put', key: `group/${this.gname}`, value: encodeRecord(record) }])
      })
    try {
      await this.#saved
    } catch (error) {
      // The keys are in memory and can be fetched again after a restart: go on.
      this.#options.log.limited(
        'group-save',
        'warn',
        { group: this.gname, err: error },
        'group keys could not be stored',
      )
    }
  }
}
