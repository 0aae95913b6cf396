/**
 * A member of a group: takes broadcasts, keeps little, derives keys when asked (protocol.md §3.7, §3.11). From each
 * broadcast it keeps its cohort's chain value and the masked time nodes behind it; nothing is derived before a key is
 * wanted, but for the check value.
 */
import { concat, copyOf, equalBytes, u32 } from '../bytes.ts'
import type { CryptoSuite, VerifyKey } from '../crypto/suite.ts'
import { IotchainError } from '../errors.ts'
import { maskHeal } from './assemble.ts'
import { type Broadcast, claimBroadcast, verifyBroadcast } from './broadcast.ts'
import { type Gid, toGid } from './gid.ts'
import { checkMemberState, MEMBER_LIMITS } from './member-state.ts'
import { checkPersonalKey } from './personal-key.ts'
import { LABEL, prfOf, SECRET_LENGTH, xor } from './prf.ts'
import type {
  GroupKey,
  GroupMember,
  MemberOptions,
  MemberState,
  MemberStretch,
  NotReceived,
  PersonalKey,
  ReceivedBroadcast,
  ReceiveOptions,
  SessionTimes,
} from './scheme.ts'
import { descend, dyadic, groupKey, keyCheck, sessionsOf, TIME_DEPTH } from './time-tree.ts'
import { inSubset, labelFrom } from './tree.ts'

/** A broadcast that opened: what it gives, and its N_r. */
interface Opened {
  readonly stretch: MemberStretch
  readonly leafSecret: Uint8Array
}

export class SdshMember implements GroupMember {
  readonly gid: Gid
  private readonly suite: CryptoSuite
  private readonly kdc: VerifyKey
  private readonly acceptEd25519: boolean
  private newest = 0
  private used = 0
  private personals: PersonalKey[] = []
  /** Keys handed over at joins. */
  private readonly given = new Map<number, Uint8Array>()
  /** Keys derived lately. */
  private readonly derived = new Map<number, GroupKey>()
  private readonly seen = new Map<number, SessionTimes>()
  /** Of genuine broadcasts that do not open; no part of the state: a mac-object wants a fresh look anyway. */
  private readonly closed = new Map<number, SessionTimes>()
  /** Newest last; between them they open everything that ever could be opened and is not forgotten. */
  private stretches: MemberStretch[] = []

  constructor(suite: CryptoSuite, options: MemberOptions) {
    this.suite = suite
    this.kdc = options.kdc
    this.acceptEd25519 = options.acceptEd25519 === true
    this.gid = toGid(copyOf(options.gid))
    if (options.state !== undefined) this.restore(options.state)
  }

  get session(): number {
    return this.newest
  }

  get epochs(): readonly number[] {
    return [...new Set(this.personals.map((p) => p.epoch))]
  }

  addPersonal(personal: PersonalKey): void {
    checkPersonalKey(personal)
    if (!equalBytes(personal.gid, this.gid)) {
      throw new IotchainError('group/bad-personal-key', 'a personal key of another group')
    }
    const others = this.personals.filter((p) => p.epoch !== personal.epoch || p.leaf !== personal.leaf)
    this.personals = [...others, personal]
    // those fetched for an archive go first, never the epoch in use or the one after it
    const recent = [...new Set(this.personals.map((p) => p.epoch))].sort((x, y) => y - x).slice(0, 2)
    while (this.personals.length > MEMBER_LIMITS.personals) {
      const at = this.personals.findIndex((p) => !recent.includes(p.epoch))
      this.personals.splice(Math.max(0, at), 1)
    }
  }

  addKey({ session, K }: { session: number; K: Uint8Array }): void {
    if (!Number.isInteger(session) || session < 1 || session > 0xffffffff || K.length !== 16) {
      throw new IotchainError('group/bad-key', 'not a key of a session')
    }
    this.given.set(session, copyOf(K))
    bound(this.given, MEMBER_LIMITS.given)
  }

  receive(message: Uint8Array, options: ReceiveOptions = {}): ReceivedBroadcast | NotReceived {
    const claimed = claimBroadcast(message, { acceptEd25519: this.acceptEd25519 })
    if (!equalBytes(claimed.gid, this.gid)) throw new IotchainError('group/wrong-group', 'a broadcast of another group')
    if (claimed.session <= this.newest && options.asked !== true) return 'old'
    const broadcast = verifyBroadcast(this.suite, claimed, this.kdc)
    const personals = this.personals.filter((p) => p.epoch === broadcast.epoch)
    if (personals.length === 0) return this.noted(broadcast, 'unknown-epoch')
    for (const personal of personals) {
      const opened = this.open(broadcast, personal)
      if (opened !== undefined) return this.keep(broadcast, opened)
    }
    return this.noted(broadcast, 'not-for-me')
  }

  key(session: number): GroupKey | undefined {
    const known = this.derived.get(session)
    if (known !== undefined) return known
    const leaf = this.leafOf(session)
    if (leaf === undefined) return this.given.get(session) as GroupKey | undefined
    return this.derive(session, leaf)
  }

  times(session: number): SessionTimes | undefined {
    return this.seen.get(session) ?? this.closed.get(session)
  }

  supersededAt(session: number): number | undefined {
    let least: number | undefined
    for (const t of [...this.seen.values(), ...this.closed.values()]) {
      if (t.session > session && (least === undefined || t.nbf < least)) least = t.nbf
    }
    return least
  }

  current(now: number): SessionTimes | undefined {
    let best: SessionTimes | undefined
    for (const t of this.seen.values()) {
      if (t.nbf > now || t.exp <= now || t.session < this.used || this.key(t.session) === undefined) continue
      if (best === undefined || t.session > best.session) best = t
    }
    if (best !== undefined) this.used = best.session
    return best
  }

  state(): MemberState {
    return {
      version: 1,
      gid: this.gid,
      session: this.newest,
      used: this.used,
      personals: this.personals.map(({ version: _, ...rest }) => rest),
      keys: [...this.given].map(([session, K]) => ({ session, K })),
      times: [...this.seen.values()],
      stretches: this.stretches,
    }
  }

  private restore(state: MemberState): void {
    checkMemberState(state, this.gid)
    this.newest = state.session
    this.used = state.used
    for (const p of state.personals) this.addPersonal({ ...p, version: 1, gid: toGid(p.gid) })
    for (const k of state.keys) this.addKey(k)
    for (const t of state.times) this.seen.set(t.session, { ...t })
    this.stretches = state.stretches.map((s) => ({ ...s, ranges: s.ranges.map((r) => ({ ...r })) }))
  }

  /** What the broadcast opens to this leaf, with N_r checked; undefined when the leaf is not covered. */
  private open(broadcast: Broadcast, personal: PersonalKey): Opened | undefined {
    const { depth, leaf, labels } = personal
    if (broadcast.depth !== depth) {
      throw new IotchainError('group/wrong-depth', 'the broadcast is of another tree than the personal key')
    }
    for (const [k, cohort] of broadcast.cohorts.entries()) {
      const entry = cohort.cover.find((e) => inSubset(depth, leaf, e.subset))
      if (entry === undefined) continue
      const label = labelFrom(this.suite, labels, depth, leaf, entry.subset)
      const { epoch, session } = broadcast
      const input = concat(LABEL.wrap, this.gid, u32(epoch), u32(session), u32(cohort.start))
      const stretch: MemberStretch = {
        session,
        z: xor(entry.wrap, prfOf(this.suite)(label, input)),
        ranges: broadcast.cohorts.slice(k).map((c, n) => ({
          lo: c.start,
          hi: (broadcast.cohorts[k + n + 1]?.start ?? session + 1) - 1,
          heal: c.heal,
        })),
      }
      const leafSecret = this.leafIn(stretch, session) as Uint8Array
      if (!equalBytes(keyCheck(this.suite, leafSecret), broadcast.kcv)) {
        throw new IotchainError('group/kcv-mismatch', 'the broadcast does not give the key that it says')
      }
      return { stretch, leafSecret }
    }
    return undefined
  }

  /** Not to be opened, but genuine: the sessions before it are superseded, whoever is still in the group. */
  private noted({ session, nbf, exp }: Broadcast, outcome: NotReceived): NotReceived {
    this.closed.set(session, { session, nbf, exp })
    bound(this.closed, MEMBER_LIMITS.times)
    return outcome
  }

  private keep(broadcast: Broadcast, { stretch, leafSecret }: Opened): ReceivedBroadcast {
    const { session, epoch, nbf, exp } = broadcast
    this.derive(session, leafSecret)
    this.seen.set(session, { session, nbf, exp })
    bound(this.seen, MEMBER_LIMITS.times)
    this.stretches = withStretch(this.stretches, stretch)
    if (session > this.newest) this.newest = session
    return { session, epoch, nbf, exp, from: (stretch.ranges[0] as { lo: number }).lo }
  }

  private derive(session: number, leafSecret: Uint8Array): GroupKey {
    const key = groupKey(this.suite, leafSecret)
    this.derived.set(session, key)
    bound(this.derived, MEMBER_LIMITS.derived)
    return key
  }

  /** N_j from whatever opens it. */
  private leafOf(session: number): Uint8Array | undefined {
    for (let i = this.stretches.length - 1; i >= 0; i--) {
      const leaf = this.leafIn(this.stretches[i] as MemberStretch, session)
      if (leaf !== undefined) return leaf
    }
    return undefined
  }

  private leafIn(stretch: MemberStretch, session: number): Uint8Array | undefined {
    const at = stretch.ranges.findIndex((r) => r.lo <= session && session <= r.hi)
    if (at === -1) return undefined
    const prf = prfOf(this.suite)
    let z = stretch.z
    for (let k = 0; k < at; k++) z = prf(z, LABEL.chainNext)
    const { lo, hi, heal } = stretch.ranges[at] as MemberStretch['ranges'][number]
    const nodes = dyadic(lo, hi)
    const n = nodes.findIndex((node) => session <= sessionsOf(node).hi)
    const node = nodes[n] as (typeof nodes)[number]
    const masked = heal.subarray(n * SECRET_LENGTH, (n + 1) * SECRET_LENGTH)
    const secret = maskHeal(this.suite, z, this.gid, stretch.session, lo, masked, n * SECRET_LENGTH)
    return descend(prf, secret, node, { level: TIME_DEPTH, prefix: session })
  }
}

/**
 * Adds a stretch and lets go of those that the others make needless: what one opens is a run of sessions without a gap
 * up to its own, so a run that lies within two others that meet is opened by them.
 */
function withStretch(stretches: readonly MemberStretch[], added: MemberStretch): MemberStretch[] {
  const from = (s: MemberStretch): number => (s.ranges[0] as { lo: number }).lo
  const sorted = [...stretches.filter((s) => s.session !== added.session || from(s) < from(added)), added].sort(
    (a, b) => a.session - b.session || from(b) - from(a),
  )
  const kept: MemberStretch[] = []
  for (const s of sorted) {
    while (kept.length > 0 && from(kept.at(-1) as MemberStretch) >= from(s)) kept.pop()
    while (kept.length > 1 && (kept.at(-2) as MemberStretch).session >= from(s) - 1) kept.pop()
    kept.push(s)
  }
  return kept.slice(-MEMBER_LIMITS.stretches)
}

/** Keeps the entries put in last. */
function bound<K, V>(map: Map<K, V>, most: number): void {
  while (map.size > most) map.delete(map.keys().next().value as K)
}
