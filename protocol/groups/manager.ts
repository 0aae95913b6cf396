/**
 * The group manager of SD-SH: personal keys, session keys, the next broadcast (protocol.md §3.7, §3.10). Who is a
 * member is in roster.ts, what is durable in ledger.ts. Pure: state in, changes out.
 */
import type { CryptoSuite, SigningKey } from '../crypto/suite.ts'
import { IotchainError } from '../errors.ts'
import { leafOrder, treeDepth } from './allocation.ts'
import { assembleBroadcast, type BroadcastPlan, coverOctets, planCohorts, plannedOctets } from './assemble.ts'
import { signBroadcast } from './broadcast.ts'
import type { EpochSecrets } from './epoch-secrets.ts'
import { type Gid, toGid } from './gid.ts'
import { Ledger } from './ledger.ts'
import type { EpochRecord, ManagerChanges, ManagerHead, ManagerState, Membership } from './manager-state.ts'
import { makePersonalKey } from './personal-key.ts'
import { BROADCAST_LIMIT, groupPolicy } from './policy.ts'
import { noMember, Roster } from './roster.ts'
import type {
  CompactionAdvice,
  GroupManager,
  JoinOptions,
  JoinResult,
  ManagerOptions,
  MemberId,
  PersonalKey,
  SessionKey,
} from './scheme.ts'
import { groupKey, TimeTree } from './time-tree.ts'
import { cutWindow, leastWindowStart, windowStart } from './window.ts'

const GREATEST_SESSION = 0xffffffff

export class SdshManager implements GroupManager {
  readonly gid: Gid
  private readonly suite: CryptoSuite
  private readonly secrets: EpochSecrets
  private readonly signingKey: SigningKey
  private readonly ledger: Ledger
  private readonly roster: Roster
  private readonly head: ManagerHead
  private readonly trees = new Map<number, TimeTree>()

  constructor(suite: CryptoSuite, options: ManagerOptions) {
    this.suite = suite
    this.secrets = options.secrets
    this.signingKey = options.signingKey
    this.ledger = new Ledger(options.state)
    this.roster = new Roster(this.ledger, options.secrets)
    this.head = this.ledger.head
    this.gid = toGid(this.head.gid)
    if (options.policy !== undefined) this.head.policy = groupPolicy(options.policy)
  }

  get session(): number {
    return this.head.session
  }

  get epoch(): number {
    return this.head.active
  }

  get allocatedEpoch(): number | undefined {
    return this.head.allocated === 0 ? undefined : this.head.allocated
  }

  get windowStart(): number {
    const newest = this.ledger.sessions.at(-1)
    if (newest === undefined) return this.head.session + 1
    return windowStart(this.head.policy.window, this.ledger.sessions, newest.session, newest.nbf)
  }

  join(id: MemberId, options: JoinOptions): JoinResult {
    const { membership: m, repeated } = this.roster.join(id, options)
    const personal = this.personal(id)
    const { allocated } = this.head
    const upcoming =
      allocated === 0 || personal.epoch === allocated ? undefined : this.personalKey(m, this.roster.record(allocated))
    return { personal, upcoming, start: m.start, keys: this.keys(id, { now: options.now }), repeated }
  }

  leave(id: MemberId): void {
    this.roster.leave(id)
  }

  suspend(id: MemberId): void {
    this.roster.suspend(id)
  }

  resume(id: MemberId): void {
    this.roster.resume(id)
  }

  renew(id: MemberId, expiresAt: number | undefined): void {
    this.roster.renew(id, expiresAt)
  }

  membership(id: MemberId): Readonly<Membership> | undefined {
    return this.ledger.of(id).at(-1)
  }

  *members(): Iterable<Readonly<Membership>> {
    for (const m of this.ledger.all()) if (m.out === undefined) yield m
  }

  allocateEpoch(t: { nbf: number }): void {
    this.roster.allocate(t.nbf)
  }

  activateEpoch(): void {
    this.roster.activate()
  }

  personal(id: MemberId, epoch?: number): PersonalKey {
    if (this.ledger.standing(id) === undefined) throw noMember()
    const held = this.ledger.of(id)
    const wanted = epoch ?? this.head.active
    const record = this.roster.record(wanted)
    const m = held.findLast((one) => one.leaves.some((l) => l.epoch === wanted))
    if (m !== undefined) return this.personalKey(m, record)
    if (epoch === undefined && this.head.allocated !== 0) return this.personal(id, this.head.allocated)
    throw new IotchainError('group/not-covered', `the membership does not cover epoch ${wanted}`)
  }

  keys(id: MemberId, options: { now?: number | undefined } = {}): readonly SessionKey[] {
    const m = this.ledger.standing(id)
    if (m === undefined) throw noMember()
    const end = m.suspendedFrom ?? GREATEST_SESSION + 1
    const keys: SessionKey[] = []
    for (let j = Math.max(m.start, this.roster.running(options.now)); j <= this.head.session && j < end; j++) {
      keys.push({ session: j, K: groupKey(this.suite, this.treeOf(j).leaf(j)) })
    }
    return keys
  }

  compaction(t: { nbf: number }): CompactionAdvice {
    const active = this.roster.record(this.head.active)
    if (active.nextLeaf >= 2 ** active.depth) return { when: 'now', reason: 'no-leaf' }
    const { plan, octets } = this.plan(t.nbf, t.nbf + 1)
    if (octets > this.head.policy.broadcastOctets) return { when: 'now', reason: 'broadcast-too-long' }
    const now = coverOctets(plan.cohorts)
    if (now <= this.head.policy.compactionOctets) return { when: 'no', reason: undefined }
    const from = plan.cohorts[0]?.start ?? plan.session
    const live = leafOrder([...this.roster.liveAt(t.nbf)], from)
    const leaves = live.map((m, leaf) => ({
      leaf,
      from: Math.max(m.start, from),
      covered: m.suspendedFrom === undefined,
    }))
    const repacked = planCohorts(
      plan.session,
      treeDepth(live.length, this.head.policy.dMin),
      leaves.filter((l) => l.covered),
      [],
    )
    const halved = 2 * coverOctets(repacked) <= now
    return halved ? { when: 'allocate', reason: 'cover-too-long' } : { when: 'no', reason: undefined }
  }

  next(t: { nbf: number; exp: number }): Uint8Array {
    if (this.ledger.broadcastPending) {
      throw new IotchainError('group/uncommitted', 'the broadcast before is not committed')
    }
    const epoch = this.roster.record(this.head.active)
    this.checkTimes(t)
    this.roster.provideAll(t.nbf)
    const { plan, octets } = this.plan(t.nbf, t.exp)
    if (octets > BROADCAST_LIMIT) {
      throw new IotchainError('group/too-long', 'the broadcast would exceed 65 536 octets', {
        hint: 'allocate and activate a new epoch first',
      })
    }
    const { session } = plan
    const payload = assembleBroadcast(this.suite, plan, {
      epochSecret: this.secrets.get(epoch.epoch),
      treeOf: (j) => (j === session ? this.tree(epoch.epoch) : this.treeOf(j)),
    })
    const bytes = signBroadcast(this.suite, payload, this.signingKey)

    this.roster.expire(session, t.nbf)
    if (epoch.first === 0) {
      epoch.first = session
      epoch.nbf = t.nbf
    }
    epoch.last = session
    this.head.session = session
    this.ledger.addSession({ session, epoch: epoch.epoch, nbf: t.nbf, exp: t.exp }, bytes)
    this.roster.retain(t.nbf)
    return bytes
  }

  issueSid(): Uint8Array {
    this.head.sids++
    this.ledger.touchHead()
    return sidOf(this.head.sids)
  }

  changes(): ManagerChanges | undefined {
    return this.ledger.take()
  }

  committed(): void {
    for (const epoch of this.ledger.settle()) {
      this.trees.delete(epoch)
      this.secrets.erase(epoch)
    }
  }

  state(): ManagerState {
    return this.ledger.snapshot()
  }

  /** What the broadcast of the next session will hold, with the window cut as far as it has to be. */
  private plan(nbf: number, exp: number): { plan: BroadcastPlan; octets: number } {
    const { head, roster } = this
    const session = head.session + 1
    const { depth, epoch, first } = roster.record(head.active)
    const floor = Math.max(head.floor, roster.oldestSession())
    const live: { leaf: number; start: number }[] = []
    for (const m of roster.liveAt(nbf)) {
      const own = m.leaves.find((l) => l.epoch === epoch)
      if (own !== undefined && m.suspendedFrom === undefined) {
        live.push({ leaf: own.leaf, start: Math.max(m.start, floor) })
      }
    }
    const epochStarts = head.epochs.filter((e) => e.first > 0).map((e) => e.first)
    if (first === 0) epochStarts.push(session)
    const planFrom = (from: number): BroadcastPlan => {
      const leaves = live.map((m) => ({ leaf: m.leaf, from: Math.max(m.start, from) }))
      const cohorts = planCohorts(session, depth, leaves, epochStarts)
      return { gid: head.gid, epoch, session, nbf, exp, depth, cohorts }
    }
    const from = cutWindow(
      windowStart(head.policy.window, this.ledger.sessions, session, nbf),
      leastWindowStart(head.policy.window, session),
      [...new Set(live.map((m) => m.start))].sort((a, b) => a - b),
      (start) => plannedOctets(planFrom(start)) <= head.policy.broadcastOctets,
    )
    const plan = planFrom(from)
    return { plan, octets: plannedOctets(plan) }
  }

  private checkTimes({ nbf, exp }: { nbf: number; exp: number }): void {
    const { head } = this
    if (head.session >= GREATEST_SESSION) throw new IotchainError('group/exhausted', 'all session numbers are used')
    if (!Number.isSafeInteger(nbf) || !Number.isSafeInteger(exp) || nbf < 0 || exp <= nbf) {
      throw new IotchainError('group/bad-time', 'a session ends after it begins')
    }
    const before = this.ledger.sessions.at(-1)
    if (before !== undefined && nbf < before.nbf + head.policy.minSessionSeconds) {
      throw new IotchainError('group/bad-time', 'a session begins too soon after the one before', {
        retryAfterSeconds: before.nbf + head.policy.minSessionSeconds - nbf,
      })
    }
  }

  private personalKey(m: Membership, record: EpochRecord): PersonalKey {
    const { epoch, depth, nbf } = record
    const leaf = m.leaves.find((l) => l.epoch === epoch)?.leaf
    if (leaf === undefined) throw new IotchainError('group/not-covered', 'the membership has no leaf in this epoch')
    const fields = { gid: this.gid, epoch, depth, leaf, start: m.start, nbf, exp: nbf + this.head.policy.epochSeconds }
    return makePersonalKey(this.suite, this.secrets.get(epoch), fields)
  }

  private tree(epoch: number): TimeTree {
    let tree = this.trees.get(epoch)
    if (tree === undefined) {
      tree = new TimeTree(this.suite, this.secrets.get(epoch))
      this.trees.set(epoch, tree)
    }
    return tree
  }

  /** Time tree of the epoch that a session made belongs to. */
  private treeOf(session: number): TimeTree {
    const record = this.head.epochs.find((e) => e.first > 0 && e.first <= session && session <= e.last)
    if (record === undefined) throw new IotchainError('group/no-secret', `the epoch of session ${session} is not kept`)
    return this.tree(record.epoch)
  }
}

/** The n-th Sender ID: n in its shortest big-endian form. */
function sidOf(n: number): Uint8Array {
  const octets: number[] = []
  for (let rest = n; rest > 0; rest = Math.floor(rest / 256)) octets.unshift(rest % 256)
  return Uint8Array.from(octets)
}
