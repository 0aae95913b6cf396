/**
 * Who is a member, since when, with which leaf in which tree (protocol.md §3.9, §3.10). The half of the group manager
 * that touches no key.
 */
import { copyOf } from '../bytes.ts'
import { IotchainError } from '../errors.ts'
import { leafOrder, treeDepth } from './allocation.ts'
import type { EpochSecrets } from './epoch-secrets.ts'
import type { Ledger } from './ledger.ts'
import type { EpochRecord, ManagerHead, Membership, SessionRecord } from './manager-state.ts'
import { GREATEST_GROUP } from './policy.ts'
import type { JoinOptions, MemberId } from './scheme.ts'
import { windowStart } from './window.ts'

const HOUR = 3600

export class Roster {
  private readonly ledger: Ledger
  private readonly secrets: EpochSecrets
  private readonly head: ManagerHead
  private standingCount = 0

  constructor(ledger: Ledger, secrets: EpochSecrets) {
    this.ledger = ledger
    this.secrets = secrets
    this.head = ledger.head
    for (const m of ledger.all()) if (m.out === undefined) this.standingCount++
  }

  /** @throws `group/full`, `group/quota`, `group/no-epoch` */
  join(id: MemberId, options: JoinOptions): { membership: Membership; repeated: boolean } {
    this.record(this.head.active)
    const standing = this.ledger.standing(id)
    if (standing !== undefined) {
      if (standing.expiresAt !== options.expiresAt || standing.suspendedFrom !== undefined) {
        standing.expiresAt = options.expiresAt
        standing.suspendedFrom = undefined
        this.ledger.touch(standing)
      }
      this.provide(standing, options.now)
      return { membership: standing, repeated: true }
    }
    if (this.standingCount >= GREATEST_GROUP) {
      throw new IotchainError('group/full', 'the group has reached 131 071 members')
    }
    this.checkQuota(id, options.now)
    const rejoin = this.ledger.of(id).length > 0
    const m: Membership = {
      number: this.head.nextMembership,
      id: copyOf(id),
      start: options.mode === 'next' ? this.head.session + 1 : this.running(options.now),
      expiresAt: options.expiresAt,
      leaves: [],
    }
    this.provide(m, options.now)
    this.head.nextMembership++
    if (rejoin) this.head.rejoins.push(options.now ?? this.newestNbf())
    this.ledger.add(m)
    this.standingCount++
    return { membership: m, repeated: false }
  }

  leave(id: MemberId): void {
    const m = this.ledger.standing(id)
    if (m !== undefined) this.end(m, this.head.session + 1)
  }

  suspend(id: MemberId): void {
    const m = this.ledger.standing(id)
    if (m === undefined || m.suspendedFrom !== undefined) return
    m.suspendedFrom = this.head.session + 1
    this.ledger.touch(m)
  }

  resume(id: MemberId): void {
    const m = this.ledger.standing(id)
    if (m?.suspendedFrom === undefined) return
    m.suspendedFrom = undefined
    this.ledger.touch(m)
  }

  /** @throws `group/no-member` */
  renew(id: MemberId, expiresAt: number | undefined): void {
    const m = this.ledger.standing(id)
    if (m === undefined) throw noMember()
    if (m.expiresAt !== expiresAt) {
      m.expiresAt = expiresAt
      this.ledger.touch(m)
    }
    this.provide(m, undefined)
  }

  /** Ends the memberships that do not reach a session beginning at `nbf`. */
  expire(session: number, nbf: number): void {
    for (const m of this.ledger.all()) if (m.out === undefined && expired(m, nbf)) this.end(m, session)
  }

  /** Memberships of a session that begins at `nbf`, suspended ones too. */
  *liveAt(nbf: number): Iterable<Membership> {
    for (const m of this.ledger.all()) if (m.out === undefined && !expired(m, nbf)) yield m
  }

  /** The session in use at `now`: the newest begun and not ended, else the next one to begin. */
  running(now: number | undefined): number {
    const { sessions } = this.ledger
    if (now === undefined) return sessions.at(-1)?.session ?? this.head.session + 1
    let running = this.head.session + 1
    for (let i = sessions.length - 1; i >= 0; i--) {
      const s = sessions[i] as SessionRecord
      if (s.nbf <= now) return s.exp > now ? s.session : running
      running = s.session
    }
    return running
  }

  /** @throws `group/full` */
  allocate(nbf: number): void {
    const from = windowStart(this.head.policy.window, this.ledger.sessions, this.head.session + 1, nbf)
    const live = leafOrder([...this.liveAt(nbf)], from)
    const depth = treeDepth(live.length, this.head.policy.dMin)
    if (this.head.allocated !== 0) this.discard(this.head.allocated)
    const epoch = this.head.lastEpoch + 1
    this.ledger.newSecret(epoch, this.secrets.create(epoch))
    const record: EpochRecord = { epoch, depth, nextLeaf: 0, nbf, first: 0, last: 0 }
    for (const m of live) this.giveLeaf(record, m)
    this.head.lastEpoch = epoch
    this.head.allocated = epoch
    this.head.epochs.push(record)
    this.ledger.touchHead()
  }

  /** @throws `group/no-epoch` */
  activate(): void {
    if (this.head.allocated === 0) throw new IotchainError('group/no-epoch', 'no epoch was allocated')
    const before = this.head.active
    this.head.active = this.head.allocated
    this.head.allocated = 0
    if (before !== 0 && this.record(before).first === 0) this.discard(before)
    this.ledger.touchHead()
  }

  /** Sees to it that whoever is live at `nbf` has a leaf in the tree in use, as far as there are any left. */
  provideAll(nbf: number): void {
    const active = this.record(this.head.active)
    for (const m of this.liveAt(nbf)) if (hasRoom(active) && !hasLeaf(active, m)) this.giveLeaf(active, m)
  }

  /** Lets go of epochs, sessions and memberships that neither the window nor an offline member can ask for. */
  retain(nbf: number): void {
    const { head, ledger } = this
    const from = windowStart(head.policy.window, ledger.sessions, head.session, nbf)
    const ended = head.epochs.filter((e) => e.first > 0 && e.epoch < head.active)
    const spare = new Set(ended.slice(Math.max(0, ended.length - head.policy.retainEpochs)))
    for (const e of ended) if (e.last < from && !spare.has(e)) this.discard(e.epoch)
    const least = Math.min(from, this.oldestSession())
    ledger.dropSessions(least)
    for (const m of [...ledger.all()])
      if (m.out !== undefined && m.out <= least && m.leaves.length === 0) ledger.drop(m)
  }

  /** The oldest session whose epoch secret is kept; the next one when none is. */
  oldestSession(): number {
    return this.head.epochs.find((e) => e.first > 0)?.first ?? this.head.session + 1
  }

  /** @throws `group/no-epoch` */
  record(epoch: number): EpochRecord {
    const record = this.head.epochs.find((e) => e.epoch === epoch)
    if (record === undefined) {
      throw new IotchainError('group/no-epoch', epoch === 0 ? 'no epoch was activated' : `epoch ${epoch} is not kept`)
    }
    return record
  }

  /** Leaves in the tree in use and the one allocated; makes a new one when neither has room. */
  private provide(m: Membership, now: number | undefined): void {
    const active = this.record(this.head.active)
    if (!hasLeaf(active, m) && hasRoom(active)) this.giveLeaf(active, m)
    if (!hasLeaf(active, m) && this.head.allocated === 0) {
      this.allocate(this.ledger.sessions.at(-1)?.exp ?? now ?? 0)
    }
    if (this.head.allocated === 0) return
    if (hasLeaf(this.record(this.head.allocated), m)) return
    if (!hasRoom(this.record(this.head.allocated))) this.allocate(this.record(this.head.allocated).nbf)
    const allocated = this.record(this.head.allocated)
    if (!hasLeaf(allocated, m)) this.giveLeaf(allocated, m)
  }

  private giveLeaf(record: EpochRecord, m: Membership): void {
    m.leaves.push({ epoch: record.epoch, leaf: record.nextLeaf })
    record.nextLeaf++
    this.ledger.touch(m)
  }

  private end(m: Membership, session: number): void {
    m.out = Math.max(m.start, m.suspendedFrom ?? session)
    m.suspendedFrom = undefined
    this.standingCount--
    this.ledger.touch(m)
  }

  private checkQuota(id: MemberId, now: number | undefined): void {
    const { head } = this
    const time = now ?? this.newestNbf()
    const earlier = this.ledger.of(id)
    if (earlier.length === 0) return
    for (const epoch of [head.active, head.allocated]) {
      const leaves = earlier.filter((m) => m.leaves.some((l) => l.epoch === epoch)).length
      if (leaves >= head.policy.leavesPerMemberAndEpoch) {
        const end = this.record(epoch).nbf + head.policy.epochSeconds
        throw quota('this address has joined too often in this epoch', end - time)
      }
    }
    head.rejoins = head.rejoins.filter((at) => at > time - HOUR)
    if (head.rejoins.length >= head.policy.rejoinsPerHour) {
      throw quota('the group has seen too many rejoins in an hour', Math.min(...head.rejoins) + HOUR - time)
    }
  }

  /** Forgets an epoch and its leaves; its number is never used again. */
  private discard(epoch: number): void {
    const { head, ledger } = this
    head.epochs = head.epochs.filter((e) => e.epoch !== epoch)
    if (head.allocated === epoch) head.allocated = 0
    for (const m of ledger.all()) {
      if (!m.leaves.some((l) => l.epoch === epoch)) continue
      m.leaves = m.leaves.filter((l) => l.epoch !== epoch)
      ledger.touch(m)
    }
    ledger.eraseSecret(epoch)
  }

  private newestNbf(): number {
    return this.ledger.sessions.at(-1)?.nbf ?? 0
  }
}

function hasRoom(record: EpochRecord): boolean {
  return record.nextLeaf < 2 ** record.depth
}

function hasLeaf(record: EpochRecord, m: Membership): boolean {
  return m.leaves.some((l) => l.epoch === record.epoch)
}

function expired(m: Membership, nbf: number): boolean {
  return m.expiresAt !== undefined && m.expiresAt <= nbf
}

export function noMember(): IotchainError {
  return new IotchainError('group/no-member', 'not a member of this group')
}

function quota(what: string, seconds: number): IotchainError {
  return new IotchainError('group/quota', what, { retryAfterSeconds: Math.max(1, seconds) })
}
