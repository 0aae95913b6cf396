/**
 * When the next session of a group begins and when its broadcast leaves (protocol.md "Group manager policy"). Pure;
 * times in unix seconds.
 */
import type { GroupPolicy } from '../protocol/groups/policy.ts'

export interface SessionPlan {
  /** The moment from which on the broadcast may be made and sent. */
  readonly publishAt: number
  readonly nbf: number
  readonly exp: number
}

export interface ScheduleInput {
  readonly policy: GroupPolicy
  /** nbf of the newest published session; undefined before the first */
  readonly lastNbf: number | undefined
  /** a member has to be shut out, or a compaction is due at once: as early as the minimum session allows */
  readonly urgent: boolean
  /** strict expiry: the first moment at which a membership ends, if one does before the regular border */
  readonly cutAt?: number | undefined
  readonly now: number
}

/** nbf of the next session never lies less than the minimum session after the last one, nor in the past. */
export function planSession(input: ScheduleInput): SessionPlan {
  const { policy, lastNbf, urgent, cutAt, now } = input
  if (lastNbf === undefined) return plan(policy, now, now)
  const earliest = lastNbf + policy.minSessionSeconds
  let border = lastNbf + policy.sessionSeconds
  if (cutAt !== undefined && cutAt < border) border = Math.max(earliest, cutAt)
  if (urgent) border = earliest
  const nbf = Math.max(now, border)
  return plan(policy, nbf, Math.max(now, nbf - policy.leadSeconds))
}

function plan(policy: GroupPolicy, nbf: number, publishAt: number): SessionPlan {
  return { publishAt, nbf, exp: nbf + policy.sessionSeconds + policy.overrunSeconds }
}
