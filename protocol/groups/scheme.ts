/**
 * The border of the group key scheme: what a key server (manager) and everybody else (member) see of it. Pure: no
 * I/O, no clock, no randomness but what is handed in. One implementation: SD-SH, version 1 (protocol.md §3).
 * Sessions and epochs are numbers from 1 to 2^32 − 1, times are Unix seconds.
 */
import type { SigningKey, VerifyKey } from '../crypto/suite.ts'
import type { EpochSecrets } from './epoch-secrets.ts'
import type { Gid } from './gid.ts'
import type { ManagerChanges, ManagerState, Membership } from './manager-state.ts'
import type { GroupPolicy } from './policy.ts'

/** 0x01 ‖ client address or 0x02 ‖ device address (gid.ts makes them); to the scheme, opaque octets. */
export type MemberId = Uint8Array

declare const groupKeyBrand: unique symbol
/** K_j: 16 octets. */
export type GroupKey = Uint8Array & { readonly [groupKeyBrand]: true }

/** S_i(e): what a member of epoch e holds. The content of `mgt_key_material` is its encoding (personal-key.ts). */
export interface PersonalKey {
  readonly version: 1
  readonly gid: Gid
  readonly epoch: number
  readonly depth: number
  readonly leaf: number
  /** First session of the membership. */
  readonly start: number
  /** 16 · (depth · (depth + 1) / 2 + 1) octets. */
  readonly labels: Uint8Array
  /** The epoch's expected life; informative. */
  readonly nbf: number
  readonly exp: number
}

export interface SessionKey {
  readonly session: number
  readonly K: GroupKey
}

export interface JoinOptions {
  /** `current`: from the running session on, its keys come along. `next`: from the next broadcast on. */
  readonly mode: 'current' | 'next'
  /** The membership ends at the first session that begins at or after this; none: only by `leave`. */
  readonly expiresAt?: number | undefined
  /**
   * The present time. Tells the running session from one already published ahead (the lead), and dates rejoins for
   * the quota. Without it the newest published session counts as running.
   */
  readonly now?: number | undefined
}

export interface JoinResult {
  /** For the epoch that broadcasts use now; if its tree has no leaf left, for the one allocated next. */
  readonly personal: PersonalKey
  /** For the epoch allocated ahead, when there is one and `personal` is not already for it. */
  readonly upcoming: PersonalKey | undefined
  /** First session of the membership. */
  readonly start: number
  /** Keys of the sessions from `start` to the newest published; empty in mode `next` before the first broadcast. */
  readonly keys: readonly SessionKey[]
  /** The id was a member already: same membership, same leaves, nothing used up. */
  readonly repeated: boolean
}

/** Why a new key tree should be put to use (protocol.md §3.10, compaction). */
export interface CompactionAdvice {
  /** `no`; `allocate`: allocate the next epoch, hand it out, activate later; `now`: activate with the next broadcast. */
  readonly when: 'no' | 'allocate' | 'now'
  readonly reason: 'no-leaf' | 'broadcast-too-long' | 'cover-too-long' | undefined
}

/**
 * The key server's side. Contract of durability: after any call that changes something, `changes()` says what;
 * write it durably, then call `committed()`, and only then let anything leave (a personal key, a session key, the
 * bytes of a broadcast). `next()` refuses to make a broadcast while the one before is not committed.
 */
export interface GroupManager {
  readonly gid: Gid
  /** p, the newest session of which a broadcast was made; 0 before the first. */
  readonly session: number
  /** The epoch that the next broadcast will use; 0 before the first. */
  readonly epoch: number
  /** The epoch allocated ahead of its activation, if any. */
  readonly allocatedEpoch: number | undefined

  /**
   * @throws `group/full` · `group/quota` (with retryAfterSeconds) · `group/no-epoch` before the first allocation
   */
  join(id: MemberId, options: JoinOptions): JoinResult
  /** Out from session p + 1 on; a suspended membership: out from the first session of its suspension. No-op if no member. */
  leave(id: MemberId): void
  /** Left out of the cover from p + 1 on, leaf and start kept. No-op if no member. */
  suspend(id: MemberId): void
  /** Covered again from p + 1 on, the gap healed. No-op if not suspended. */
  resume(id: MemberId): void
  /** A renewal without gap: same membership, other end. @throws `group/no-member` */
  renew(id: MemberId, expiresAt: number | undefined): void
  /** The membership that stands for the next session (or the newest one that the id had), for checks and logs. */
  membership(id: MemberId): Readonly<Membership> | undefined
  /** Memberships that the next broadcast would consider: not out; suspended ones too. */
  members(): Iterable<Readonly<Membership>>

  /** Makes the tree of the next epoch; one allocated before and not activated is discarded, its number never used again. */
  allocateEpoch(t: { nbf: number }): void
  /** From the next broadcast on, the allocated epoch is in use. @throws `group/no-epoch` */
  activateEpoch(): void
  /**
   * S_i(epoch); without `epoch` the one in use. Past epochs as long as they are kept and the membership covered them.
   * @throws `group/no-member` · `group/no-epoch` · `group/not-covered`
   */
  personal(id: MemberId, epoch?: number): PersonalKey
  /** K_j of the running session and those published ahead, as far as the member is entitled. @throws `group/no-member` */
  keys(id: MemberId, options?: { now?: number | undefined }): readonly SessionKey[]
  /** Advice on a new epoch before the next broadcast. */
  compaction(t: { nbf: number }): CompactionAdvice

  /**
   * Makes B_{p+1} and moves on to session p + 1.
   * @returns the signed octets; nothing may leave before `committed()`
   * @throws `group/uncommitted` · `group/no-epoch` · `group/bad-time` · `group/too-long` (over 64 KiB)
   */
  next(t: { nbf: number; exp: number }): Uint8Array

  /** r − w(r) of the newest session, however far its broadcast had to be cut: what a member may want to heal. */
  readonly windowStart: number

  /** A fresh Sender ID, unique in the group for ever: 1 to 7 octets. Part of the state to commit. */
  issueSid(): Uint8Array

  /** What changed since the last `committed()`; undefined if nothing did. */
  changes(): ManagerChanges | undefined
  /** The changes are durable. */
  committed(): void
  /** The whole state as plain data (a copy). */
  state(): ManagerState
}

/** What came of a broadcast that verified. */
export interface ReceivedBroadcast {
  readonly session: number
  readonly epoch: number
  readonly nbf: number
  readonly exp: number
  /** The oldest session whose key it gives to this member. */
  readonly from: number
}

/**
 * `not-for-me`: verified, and this member's leaf is not covered (left, revoked, suspended).
 * `unknown-epoch`: verified, but no personal key of that epoch is held: fetch it.
 * `old`: not newer than what is held and not asked for; nothing was read beyond the session number.
 */
export type NotReceived = 'not-for-me' | 'unknown-epoch' | 'old'

export interface ReceiveOptions {
  /** The broadcast was asked for by its number, so that an old one is welcome. */
  readonly asked?: boolean | undefined
}

/** Times of a session whose broadcast was received. */
export interface SessionTimes {
  readonly session: number
  readonly nbf: number
  readonly exp: number
}

/** Everybody else's side: devices, clients. */
export interface GroupMember {
  readonly gid: Gid
  /** The newest session that could be opened; 0 before the first. Never goes back. */
  readonly session: number
  /** Epochs of which a personal key is held. */
  readonly epochs: readonly number[]
  /** @throws `group/bad-personal-key` for another group, a wrong length or a value out of range */
  addPersonal(personal: PersonalKey): void
  /** A key handed over at the join. @throws `group/bad-key` */
  addKey(key: { session: number; K: Uint8Array }): void
  /**
   * Verifies B_r and keeps what it needs to derive the session keys later.
   * @throws IotchainError `group/…` for anything wrong with it; the state is then unchanged
   */
  receive(message: Uint8Array, options?: ReceiveOptions): ReceivedBroadcast | NotReceived
  /** K_j, or undefined when nothing received so far gives it. */
  key(session: number): GroupKey | undefined
  /** nbf and exp of a session, if its broadcast itself was received. */
  times(session: number): SessionTimes | undefined
  /** When the session was superseded: the least nbf of later sessions known, if any. */
  supersededAt(session: number): number | undefined
  /**
   * The session to seal under: the newest one opened with nbf ≤ now < exp, never below one used before (as far as
   * this object, or the state it was made from, was told by calling this).
   */
  current(now: number): SessionTimes | undefined
  /** Plain data, to be kept secret; `member()` takes it back. */
  state(): MemberState
}

export interface MemberState {
  readonly version: 1
  readonly gid: Uint8Array
  /** Newest session opened. */
  readonly session: number
  /** Newest session given out by `current`. */
  readonly used: number
  readonly personals: readonly Omit<PersonalKey, 'version'>[]
  readonly keys: readonly { session: number; K: Uint8Array }[]
  readonly times: readonly SessionTimes[]
  readonly stretches: readonly MemberStretch[]
}

/** A run of sessions that one broadcast opens to a member: a chain value and the masked time nodes behind it. */
export interface MemberStretch {
  readonly session: number
  /** z_k of the member's cohort. */
  readonly z: Uint8Array
  readonly ranges: readonly { lo: number; hi: number; heal: Uint8Array }[]
}

export interface ManagerOptions {
  readonly state: ManagerState
  readonly secrets: EpochSecrets
  /** The key server's broadcast key: 32-octet Ed25519 seed as a handle of the suite. */
  readonly signingKey: SigningKey
  /** Takes the place of the policy in the state: the configuration may have changed. */
  readonly policy?: GroupPolicy | undefined
}

export interface MemberOptions {
  readonly gid: Uint8Array
  /** The pinned key of the key server. */
  readonly kdc: VerifyKey
  readonly state?: MemberState | undefined
  /** Also take alg −19 (RFC 9864), if the group's configuration says so. */
  readonly acceptEd25519?: boolean | undefined
}

export interface GroupKeyScheme {
  readonly version: number
  manager(options: ManagerOptions): GroupManager
  member(options: MemberOptions): GroupMember
}
