/**
 * One group as a client sees it. `GroupView` is what anybody may have: who signs, and whose objects are good. `Membership`
 * adds what a member has: personal keys, and with each broadcast the keys of its sessions.
 */
import { suite } from '#crypto'
import type { Clock } from '../protocol/clock.ts'
import { publicKeyOf } from '../protocol/cose/key.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { openBroadcast } from '../protocol/groups/broadcast.ts'
import { type Gid, toGid } from '../protocol/groups/gid.ts'
import { decodePersonalKey } from '../protocol/groups/personal-key.ts'
import type {
  GroupMember,
  MemberState,
  NotReceived,
  ReceivedBroadcast,
  SessionTimes,
} from '../protocol/groups/scheme.ts'
import { sdsh } from '../protocol/groups/sdsh.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { JoinResponse, SessionKey } from '../protocol/messages/join.ts'
import type { GroupPolicies } from '../protocol/messages/policies.ts'
import { CredentialBook } from '../protocol/objects/credential-book.ts'

/** Where broadcasts and credentials come from: any copy will do, because both are signed. */
export interface GroupSource {
  readonly name: string
  /** The newest broadcast, or undefined when the source has none. */
  broadcast(gid: Gid): Promise<Uint8Array | undefined>
  /** One broadcast of the past. */
  archived?(gid: Gid, session: number): Promise<Uint8Array | undefined>
  /** Device credentials; with `at` (unix seconds) those good at that time. */
  credentials?(gid: Gid, at?: number): Promise<readonly Uint8Array[]>
}

/** Sources are asked again for credentials at most this often. */
const CREDENTIALS_INTERVAL_MS = 5000
/** A source that failed is asked last for so long. */
const FAILED_MS = 60_000

export interface GroupViewOptions {
  readonly gid: Uint8Array
  readonly device: Address
  readonly bit: number
  /** Encoded COSE_Key of the key server, learnt over DTLS. */
  readonly kdcCred: Uint8Array
  readonly clock: Clock
  readonly sources?: readonly GroupSource[]
  readonly policies?: GroupPolicies | undefined
}

export class GroupView {
  readonly gid: Gid
  readonly device: Address
  readonly bit: number
  readonly kdcCred: Uint8Array
  readonly credentials: CredentialBook
  readonly clock: Clock
  readonly policies: GroupPolicies | undefined
  /** Asked in this order. */
  sources: readonly GroupSource[]
  readonly #failedMs = new Map<GroupSource, number>()
  #credentialsAskedMs: number | undefined

  constructor(options: GroupViewOptions) {
    this.gid = toGid(options.gid)
    this.device = options.device
    this.bit = options.bit
    this.kdcCred = options.kdcCred
    this.clock = options.clock
    this.policies = options.policies
    this.sources = options.sources ?? []
    this.credentials = new CredentialBook(suite, suite.ed25519.verifying(publicKeyOf(options.kdcCred)))
  }

  /** Takes what verifies; what does not is left out. @returns how many of them were not held before */
  addCredentials(list: readonly Uint8Array[]): number {
    const held = this.credentials.credentials.length
    for (const bytes of list) {
      try {
        this.credentials.add(bytes)
      } catch (error) {
        if (!isIotchainError(error)) throw error
      }
    }
    return this.credentials.credentials.length - held
  }

  /**
   * Asks the sources for credentials. Without `at` at most every few seconds.
   * @returns false when it was too early to ask again or no source had a new one
   */
  async fetchCredentials(at?: number): Promise<boolean> {
    const nowMs = this.clock.monotonicMs()
    if (at === undefined) {
      if (this.#credentialsAskedMs !== undefined && nowMs - this.#credentialsAskedMs < CREDENTIALS_INTERVAL_MS)
        return false
      this.#credentialsAskedMs = nowMs
    }
    for (const source of this.usableSources()) {
      const list = await source.credentials?.(this.gid, at).catch(() => this.failed(source))
      if (list !== undefined && this.addCredentials(list) > 0) return true
    }
    return false
  }

  /** Those that answered last time come first; the others are tried when these do not help. */
  protected usableSources(): readonly GroupSource[] {
    const nowMs = this.clock.monotonicMs()
    const failing = (s: GroupSource): boolean => nowMs - (this.#failedMs.get(s) ?? -FAILED_MS) < FAILED_MS
    return [...this.sources.filter((s) => !failing(s)), ...this.sources.filter(failing)]
  }

  protected failed(source: GroupSource): undefined {
    this.#failedMs.set(source, this.clock.monotonicMs())
  }

  key(_session: number): Uint8Array | undefined {
    return undefined
  }

  times(_session: number): SessionTimes | undefined {
    return undefined
  }

  supersededAt(_session: number): number | undefined {
    return undefined
  }

  /** Unix seconds of the last time that the newest broadcast was asked for or told. */
  get broadcastSeenAt(): number | undefined {
    return undefined
  }

  /** Whether a membership is behind this view. */
  get member(): boolean {
    return false
  }

  /** @param wanted a session whose key is looked for: sources are asked until one gives it */
  async fetchBroadcast(_wanted?: number): Promise<void> {}
}

export interface MembershipOptions extends GroupViewOptions {
  readonly client: Address
  readonly state?: MemberState | undefined
  /** A personal key of a later epoch is needed: fetch it (over DTLS) and hand it to `addPersonal`. */
  readonly onUnknownEpoch?: ((membership: Membership) => Promise<void>) | undefined
  /** Something worth keeping was learnt. */
  readonly onChange?: ((membership: Membership) => void) | undefined
}

export class Membership extends GroupView {
  readonly client: Address
  onUnknownEpoch: ((membership: Membership) => Promise<void>) | undefined
  onChange: ((membership: Membership) => void) | undefined
  readonly #member: GroupMember
  #seenAt: number | undefined

  constructor(options: MembershipOptions) {
    super(options)
    this.client = options.client
    this.onUnknownEpoch = options.onUnknownEpoch
    this.onChange = options.onChange
    this.#member = sdsh(suite).member({ gid: options.gid, kdc: this.credentials.key, state: options.state })
  }

  /** A membership from the key server's answer to a join. */
  static fromJoin(
    options: Omit<MembershipOptions, 'kdcCred' | 'policies' | 'state'> & { readonly state?: MemberState | undefined },
    response: JoinResponse,
  ): Membership {
    const membership = new Membership({ ...options, kdcCred: response.kdcCred, policies: response.policies })
    membership.addCredentials(response.creds)
    membership.addPersonal(response.personalKey)
    membership.addKeys(response.keys)
    return membership
  }

  override get member(): boolean {
    return true
  }

  /** The newest session whose broadcast this member opened; 0 before the first. */
  get session(): number {
    return this.#member.session
  }

  get epochs(): readonly number[] {
    return this.#member.epochs
  }

  /** Unix seconds at which the last epoch is expected to end of which a personal key is held. */
  get epochEnds(): number | undefined {
    const ends = this.#member.state().personals.map((p) => p.exp)
    return ends.length === 0 ? undefined : Math.max(...ends)
  }

  /** @param encoded the content of mgt_key_material @throws `group/bad-personal-key` */
  addPersonal(encoded: Uint8Array): void {
    this.#member.addPersonal(decodePersonalKey(encoded))
  }

  addKeys(keys: readonly SessionKey[]): void {
    for (const { session, key } of keys) this.#member.addKey({ session, K: key })
  }

  /**
   * Takes a broadcast, wherever it came from.
   * @throws `group/…` for one that is not the key server's or not well made; nothing has changed then
   */
  receive(bytes: Uint8Array, options: { asked?: boolean } = {}): ReceivedBroadcast | NotReceived {
    const result = this.#member.receive(bytes, options)
    if (result !== 'old' && options.asked !== true) this.#seenAt = this.clock.nowMs() / 1000
    if (typeof result === 'object') this.onChange?.(this)
    return result
  }

  /**
   * Like `receive`, and fetches the personal key of a later epoch when that is what is missing.
   * @throws as `receive`, and what the fetch throws
   */
  async take(bytes: Uint8Array): Promise<ReceivedBroadcast | NotReceived> {
    const result = this.receive(bytes)
    if (result !== 'unknown-epoch' || this.onUnknownEpoch === undefined) return result
    await this.onUnknownEpoch(this)
    return this.receive(bytes)
  }

  /**
   * Asks the sources for the newest broadcast. One that answers is enough, unless the key of `wanted` is still missing:
   * a proxy may be behind, or hold a broadcast back.
   * @throws the last source's error when none answered
   */
  override async fetchBroadcast(wanted?: number): Promise<void> {
    let failure: unknown
    let answered = false
    for (const source of this.usableSources()) {
      try {
        const bytes = await source.broadcast(this.gid)
        if (bytes === undefined) continue
        if ((await this.take(bytes)) === 'old') this.#confirmNewest(bytes)
        answered = true
        if (wanted === undefined || this.key(wanted) !== undefined) return
      } catch (error) {
        if (!isIotchainError(error)) throw error
        this.failed(source)
        failure = error
      }
    }
    if (answered || this.sources.length === 0) return
    if (failure !== undefined) throw failure
    throw new IotchainError('client/no-broadcast', 'none of the sources has a broadcast of this group', {
      hint: 'the key server may be away; try again in a while',
    })
  }

  /** The source has nothing newer: what is held counts as newest, if this is it. */
  #confirmNewest(bytes: Uint8Array): void {
    const { session } = openBroadcast(suite, bytes, { kdc: this.credentials.key })
    if (session === this.#member.session) this.#seenAt = this.clock.nowMs() / 1000
  }

  /** Fetches B_j of the archive, to reach sessions that the newest does not heal any more. */
  async fetchArchived(session: number): Promise<boolean> {
    for (const source of this.usableSources()) {
      const bytes = await source.archived?.(this.gid, session).catch(() => this.failed(source))
      if (bytes === undefined) continue
      try {
        if (typeof this.receive(bytes, { asked: true }) === 'object') return true
      } catch (error) {
        if (!isIotchainError(error)) throw error
      }
    }
    return false
  }

  /** The broadcast that an observation told is the newest one. */
  observed(): void {
    this.#seenAt = this.clock.nowMs() / 1000
  }

  override key(session: number): Uint8Array | undefined {
    return this.#member.key(session)
  }

  override times(session: number): SessionTimes | undefined {
    return this.#member.times(session)
  }

  /** The session to seal under now, if its key is held. */
  current(): SessionTimes | undefined {
    return this.#member.current(Math.floor(this.clock.nowMs() / 1000))
  }

  override supersededAt(session: number): number | undefined {
    return this.#member.supersededAt(session)
  }

  override get broadcastSeenAt(): number | undefined {
    return this.#seenAt
  }

  /** Plain data, secret: `state` of a later Membership. */
  state(): MemberState {
    return this.#member.state()
  }
}
