/**
 * The group manager's state: plain data (numbers, strings, octets, arrays), fit for any encoder. Three parts, so
 * that a store can keep one record per membership and session and write only what changed: `head`, `memberships`,
 * `sessions`. Epoch secrets are not part of it (epoch-secrets.ts).
 */
import { copyOf, toHex } from '../bytes.ts'
import { IotchainError } from '../errors.ts'
import { toGid } from './gid.ts'
import { type GroupPolicy, groupPolicy } from './policy.ts'

/** One stretch of membership: in sessions r with start ≤ r < out and nbf_r < expiresAt. */
export interface Membership {
  /** Number of this membership in the group; never used again. Key of its record. */
  readonly number: number
  readonly id: Uint8Array
  /** a, its first session. */
  readonly start: number
  /** Unix seconds; undefined: open-ended. */
  expiresAt?: number | undefined
  /** ρ, the first session without it; undefined while it stands. */
  out?: number | undefined
  /** First session of a suspension that lasts; undefined when not suspended. */
  suspendedFrom?: number | undefined
  /** Its leaf in each epoch that is kept. */
  leaves: { epoch: number; leaf: number }[]
}

export interface EpochRecord {
  readonly epoch: number
  readonly depth: number
  /** First leaf not given out yet. */
  nextLeaf: number
  /** Expected, then real nbf of its first session. */
  nbf: number
  /** First and last session; 0 while there is none. */
  first: number
  last: number
}

export interface SessionRecord {
  readonly session: number
  readonly epoch: number
  readonly nbf: number
  readonly exp: number
}

export interface ManagerHead {
  readonly version: 1
  readonly gid: Uint8Array
  policy: GroupPolicy
  /** p, the newest session made. */
  session: number
  /** f, the first session after a recovery (1 without one). */
  floor: number
  /** Highest epoch number ever allocated. */
  lastEpoch: number
  /** Epoch in use for the next broadcast; 0 before the first activation. */
  active: number
  /** Epoch allocated ahead, 0 if none. */
  allocated: number
  /** Epochs whose secret is kept, ascending. */
  epochs: EpochRecord[]
  nextMembership: number
  /** Sender IDs issued so far. */
  sids: number
  /** Times of the last rejoins, for the quota. */
  rejoins: number[]
  /** When the state was last recovered, Unix seconds: what was made after that began no earlier. */
  recoveredAt?: number | undefined
}

export interface ManagerState {
  readonly head: ManagerHead
  readonly memberships: readonly Membership[]
  /** The sessions of the window and of the epochs kept, ascending. */
  readonly sessions: readonly SessionRecord[]
}

/** What must be durable before anything leaves; all of it in one atomic write. */
export interface ManagerChanges {
  readonly head: ManagerHead
  /** New or changed memberships (whole records) and numbers of those dropped. */
  readonly memberships: readonly Membership[]
  readonly droppedMemberships: readonly number[]
  readonly sessions: readonly SessionRecord[]
  readonly droppedSessions: readonly number[]
  /** The broadcast made by `next()`, if one was. */
  readonly broadcast:
    | { readonly session: number; readonly nbf: number; readonly exp: number; readonly bytes: Uint8Array }
    | undefined
  /** Epoch secrets to keep (before the rest is written) and to erase (after it is). */
  readonly newSecrets: readonly { readonly epoch: number; readonly secret: Uint8Array }[]
  readonly erasedSecrets: readonly number[]
}

/** A group without members, before its first epoch. @throws `group/bad-gid`, `group/bad-policy` */
export function newManagerState(gid: Uint8Array, policy: Partial<GroupPolicy> = {}): ManagerState {
  return {
    head: {
      version: 1,
      gid: toGid(copyOf(gid)),
      policy: groupPolicy(policy),
      session: 0,
      floor: 1,
      lastEpoch: 0,
      active: 0,
      allocated: 0,
      epochs: [],
      nextMembership: 1,
      sids: 0,
      rejoins: [],
    },
    memberships: [],
    sessions: [],
  }
}

/** A copy that shares nothing mutable. */
export function copyMembership(m: Membership): Membership {
  return { ...m, leaves: m.leaves.map((l) => ({ ...l })) }
}

export function copyHead(head: ManagerHead): ManagerHead {
  return { ...head, epochs: head.epochs.map((e) => ({ ...e })), rejoins: [...head.rejoins] }
}

/** Key of an id in maps. */
export function memberKey(id: Uint8Array): string {
  return toHex(id)
}

/** @throws `group/bad-state` for a state that this version did not write */
export function checkState(state: ManagerState): void {
  if (state.head?.version !== 1 || !Array.isArray(state.memberships) || !Array.isArray(state.sessions)) {
    throw new IotchainError('group/bad-state', 'the stored state of a group is not of this version', {
      hint: 'restore a backup made by this version, or run recover',
    })
  }
}
