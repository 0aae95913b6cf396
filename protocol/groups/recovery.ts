/**
 * After a backup was restored (protocol.md §3.12): the state may be older than what was published, so every counter
 * jumps to where it cannot have been, and everybody joins again.
 */
import { IotchainError } from '../errors.ts'
import { checkState, copyHead, type ManagerState } from './manager-state.ts'

export interface RecoveryOptions {
  readonly now: number
  /** The highest session and epoch seen on mirrors, in archives, at members. */
  readonly highestSession?: number | undefined
  readonly highestEpoch?: number | undefined
  /** The minimum session of today's configuration: the stored one may be longer than what was in force since. */
  readonly minSessionSeconds?: number | undefined
}

export interface Recovery {
  readonly state: ManagerState
  /** Δ of the session numbers. */
  readonly jump: number
  /** Epochs whose secrets are of no use any more. */
  readonly erasedSecrets: readonly number[]
}

/** Numbers added beyond what the minimum session allows. */
const MARGIN = 16
/** Sender IDs that may have been given out since the backup. */
const SID_MARGIN = 65_536

/**
 * The recovered group has no members and no epoch; its first session is f, and no cohort starts before it. The caller
 * must use random epoch secrets from here on, whatever the state was made with.
 * @throws `group/bad-state`, `group/exhausted`, `group/bad-time`
 */
export function recoverState(state: ManagerState, options: RecoveryOptions): Recovery {
  checkState(state)
  const head = copyHead(state.head)
  const stored = state.sessions.at(-1)
  const last = stored?.nbf ?? head.recoveredAt
  const since = last === undefined ? 0 : options.now - last
  // a session published in the lead may lie ahead of the clock, but not by more than a session
  if (since < -head.policy.sessionSeconds) {
    throw new IotchainError('group/bad-time', 'the clock is behind the restored state', { hint: 'set the clock first' })
  }
  const shortest = Math.min(head.policy.minSessionSeconds, options.minSessionSeconds ?? Number.POSITIVE_INFINITY)
  const jump = Math.ceil(Math.max(0, since) / shortest) + MARGIN
  const first = Math.max(head.session, options.highestSession ?? 0) + jump
  const lastEpoch = Math.max(head.lastEpoch, options.highestEpoch ?? 0) + jump
  if (first > 0xffffffff || lastEpoch > 0xffffffff) {
    throw new IotchainError('group/exhausted', 'all session or epoch numbers are used')
  }
  const erasedSecrets = head.epochs.map((e) => e.epoch)
  return {
    state: {
      head: {
        ...head,
        session: first - 1,
        floor: first,
        lastEpoch,
        active: 0,
        allocated: 0,
        epochs: [],
        sids: head.sids + SID_MARGIN,
        rejoins: [],
        recoveredAt: options.now,
      },
      memberships: [],
      sessions: [],
    },
    jump,
    erasedSecrets,
  }
}
