/**
 * One group on its key server: the manager's state in memory, the same state on disk, and the rule between them:
 * nothing leaves before the batch that holds it is durable. A batch that failed is tried again with the same octets.
 */
import type { AeadAlgorithm, CryptoSuite, SigningKey } from '../protocol/crypto/suite.ts'
import { IotchainError } from '../protocol/errors.ts'
import { randomEpochSecrets } from '../protocol/groups/epoch-secrets.ts'
import type { Gid } from '../protocol/groups/gid.ts'
import { type ManagerHead, type ManagerState, newManagerState } from '../protocol/groups/manager-state.ts'
import type { GroupPolicy } from '../protocol/groups/policy.ts'
import type { GroupManager } from '../protocol/groups/scheme.ts'
import { sdsh } from '../protocol/groups/sdsh.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { StoreOperation } from '../store/store.ts'
import type { EpochVault } from './epoch-vault.ts'
import { Gate } from './gate.ts'
import { type GroupRecord, groupOperations, Key, putRecord, type Storage } from './storage.ts'

export interface PublishedBroadcast {
  readonly session: number
  readonly nbf: number
  readonly exp: number
  /** the signed octets */
  readonly bytes: Uint8Array
}

export interface GroupParts {
  readonly suite: CryptoSuite
  readonly storage: Storage
  readonly vault: EpochVault
  readonly signingKey: SigningKey
}

export interface GroupIdentityRecord {
  readonly gid: Gid
  readonly name: string
  readonly record: GroupRecord
}

export class Group {
  readonly gid: Gid
  /** gid in hex */
  readonly name: string
  readonly device: Address
  readonly bit: number
  readonly aead: AeadAlgorithm
  readonly #parts: GroupParts
  readonly #manager: GroupManager
  readonly #gate = new Gate()
  #head: ManagerHead
  #newest: PublishedBroadcast | undefined
  /** Set by a new group until its record is written. */
  #unwritten: GroupRecord | undefined
  /** The secret of the tree in use is lost (its file is gone): the next broadcast begins a new one. */
  needsEpoch = false
  /** Told of each broadcast, after its commit. */
  onpublished: ((broadcast: PublishedBroadcast) => void) | undefined

  private constructor(
    parts: GroupParts,
    identity: GroupIdentityRecord,
    state: ManagerState,
    secrets: Iterable<[number, Uint8Array]>,
  ) {
    this.#parts = parts
    this.gid = identity.gid
    this.name = identity.name
    this.device = identity.record.device
    this.bit = identity.record.bit
    this.aead = identity.record.aead
    this.#head = state.head
    this.#manager = sdsh(parts.suite).manager({
      state,
      secrets: randomEpochSecrets((n) => parts.suite.randomBytes(n), secrets),
      signingKey: parts.signingKey,
    })
  }

  /** A group without members and sessions; in the store from its first commit on. */
  static create(parts: GroupParts, identity: GroupIdentityRecord, policy: Partial<GroupPolicy>): Group {
    const group = new Group(parts, identity, newManagerState(identity.gid, policy), [])
    group.#unwritten = identity.record
    return group
  }

  /** The group as its last commit left it, under the policy of today. @throws `store/corrupt` */
  static async load(
    parts: GroupParts,
    identity: GroupIdentityRecord,
    stored: ManagerState,
    policy: GroupPolicy,
  ): Promise<Group> {
    const secrets = await parts.vault.load(parts.storage, identity.name)
    const held = new Set(secrets.map(([epoch]) => epoch))
    const lost = stored.head.epochs.filter((e) => !held.has(e.epoch))
    // What was sealed under a lost tree cannot be healed any more: healing begins after it.
    const floor = Math.max(stored.head.floor, ...lost.map((e) => e.last + 1))
    const state = { ...stored, head: { ...stored.head, policy, floor } }
    const group = new Group(parts, identity, state, secrets)
    group.needsEpoch = lost.some((e) => e.epoch === stored.head.active || e.epoch === stored.head.allocated)
    const { session } = state.head
    const recovered = state.sessions.length === 0 && state.head.active === 0
    if (session > 0 && !recovered) {
      const bytes = await parts.storage.broadcast(identity.name, session)
      const times = state.sessions.find((s) => s.session === session)
      if (bytes === undefined || times === undefined) {
        throw new IotchainError('store/corrupt', `the newest broadcast of group ${identity.name} is not in the store`, {
          hint: 'restore the state folder from a backup and run `iotchain-keyserver recover`',
        })
      }
      group.#newest = { session, nbf: times.nbf, exp: times.exp, bytes }
    }
    return group
  }

  /** Newest broadcast that is durable; it may be for a session that has not begun yet. */
  get newest(): PublishedBroadcast | undefined {
    return this.#newest
  }

  get policy(): GroupPolicy {
    return this.#head.policy
  }

  /** The manager's head as last committed. */
  get head(): ManagerHead {
    return this.#head
  }

  /** True if the id has a membership that the next broadcast considers, suspended or not. */
  isMember(memberId: Uint8Array): boolean {
    const membership = this.#manager.membership(memberId)
    return membership !== undefined && membership.out === undefined
  }

  /** True if there is anybody in it. */
  get isInhabited(): boolean {
    for (const _ of this.#manager.members()) return true
    return false
  }

  /** For questions only; whatever changes goes through `change`. */
  get manager(): Pick<GroupManager, 'membership' | 'members' | 'session' | 'epoch' | 'allocatedEpoch' | 'windowStart'> {
    return this.#manager
  }

  /**
   * Runs `work` alone on the manager, then makes all that it changed durable, together with `also`, before its result
   * is handed on.
   * @throws what `work` throws; `store/…` if the disk refuses: then nothing leaves, and the next call tries again
   */
  change<T>(work: (manager: GroupManager) => T | Promise<T>, also: () => StoreOperation[] = () => []): Promise<T> {
    return this.#gate.run(async () => {
      // What an earlier change left behind (a full disk, a fault half-way) goes first, as it is.
      await this.#commit([])
      const result = await work(this.#manager)
      await this.#commit(also())
      return result
    })
  }

  async #commit(also: readonly StoreOperation[]): Promise<void> {
    const { vault, storage } = this.#parts
    const changes = this.#manager.changes()
    if (changes === undefined) {
      if (also.length > 0) await storage.commit(also)
      return
    }
    const operations: StoreOperation[] = [...also]
    if (this.#unwritten !== undefined) operations.push(putRecord(Key.group(this.name), this.#unwritten))
    for (const { epoch, secret } of changes.newSecrets) operations.push(vault.seal(this.name, epoch, secret))
    operations.push(...groupOperations(this.name, changes))
    for (const epoch of changes.erasedSecrets) operations.push({ type: 'del', key: Key.secret(this.name, epoch) })
    await storage.commit(operations)
    this.#manager.committed()
    this.#unwritten = undefined
    this.#head = changes.head
    for (const { epoch } of changes.newSecrets) vault.sealed(this.name, epoch)
    for (const epoch of changes.erasedSecrets) vault.erase(this.name, epoch)
    if (changes.broadcast !== undefined) {
      this.#newest = changes.broadcast
      this.onpublished?.(changes.broadcast)
    }
  }
}
