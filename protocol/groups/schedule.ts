/**
 * When the next session begins, and what has to be done to the epochs before (protocol.md §3.10). Pure decisions; the
 * key server runs the timers. All times in Unix seconds.
 */
import type { EpochRecord, ManagerHead, SessionRecord } from './manager-state.ts'
import { DEFAULT_POLICY } from './policy.ts'

export interface ScheduleInput {
  readonly head: ManagerHead
  /** The session made last, if one was. */
  readonly last: SessionRecord | undefined
  readonly now: number
  /** A revocation that shall not wait for the session to end. */
  readonly urgent?: boolean | undefined
  /** The earliest end of a membership after `last` began; heeded when the policy says strictExpiry. */
  readonly earliestExpiry?: number | undefined
}

export interface SessionSchedule {
  /** To be handed to `next()`. */
  readonly nbf: number
  readonly exp: number
  /** The broadcast may leave from here on; before, it is not even to be made. */
  readonly publishAt: number
}

/** The next session. Every two begin at least the minimum session apart. */
export function scheduleSession({ head, last, now, urgent, earliestExpiry }: ScheduleInput): SessionSchedule {
  const { policy } = head
  if (last === undefined) return session(head, now, now)
  const earliest = last.nbf + policy.minSessionSeconds
  let nbf = Math.max(last.nbf + policy.sessionSeconds, earliest)
  if (policy.strictExpiry && earliestExpiry !== undefined && earliestExpiry > last.nbf) {
    nbf = Math.max(earliest, Math.min(nbf, earliestExpiry))
  }
  if (urgent === true) nbf = Math.max(earliest, Math.min(nbf, now))
  // after an outage sessions go on from now, none is made up
  if (nbf < now) nbf = now
  return session(head, nbf, urgent === true ? Math.max(now, nbf - policy.leadSeconds) : nbf - policy.leadSeconds)
}

function session(head: ManagerHead, nbf: number, publishAt: number): SessionSchedule {
  const { sessionSeconds, overrunSeconds } = head.policy
  return { nbf, exp: nbf + sessionSeconds + overrunSeconds, publishAt: Math.min(publishAt, nbf) }
}

/** What the epochs need before a session that begins at `nbf`. */
export interface EpochSchedule {
  /** Allocate the next epoch now, for this nbf; it is handed out until then. */
  readonly allocate: { readonly nbf: number } | undefined
  /** Activate the allocated epoch before making the next broadcast. */
  readonly activate: boolean
  /** When to look again, if nothing else happens. */
  readonly allocateAt: number
}

/**
 * @param nbf of the next session
 * @param compaction the manager's advice (`compaction()`)
 */
export function scheduleEpoch(
  head: ManagerHead,
  options: { readonly now: number; readonly nbf: number; readonly compaction: 'no' | 'allocate' | 'now' },
): EpochSchedule {
  const { now, nbf, compaction } = options
  const { epochSeconds, refreshLeadSeconds } = head.policy
  const active = head.epochs.find((e) => e.epoch === head.active)
  const allocated = head.epochs.find((e) => e.epoch === head.allocated)
  if (active === undefined || compaction === 'now') {
    return { allocate: allocated === undefined ? { nbf } : undefined, activate: true, allocateAt: now }
  }
  const end = endOf(active, epochSeconds, nbf)
  const allocateAt = end - refreshLeadSeconds
  if (allocated !== undefined) return { allocate: undefined, activate: nbf >= Math.min(end, allocated.nbf), allocateAt }
  if (nbf >= end) return { allocate: { nbf }, activate: true, allocateAt }
  if (now >= allocateAt) return { allocate: { nbf: end }, activate: false, allocateAt }
  if (compaction === 'allocate') return { allocate: { nbf: nbf + refreshLeadSeconds }, activate: false, allocateAt }
  return { allocate: undefined, activate: false, allocateAt }
}

/**
 * When a member fetches the personal key of the next epoch: somewhere in the middle of the refresh lead.
 * @param ends when the present epoch is expected to end, Unix seconds
 * @param random in [0, 1), drawn by each member for itself
 */
export function refreshMoment(ends: number, epochSeconds: number, random: number): number {
  const lead = Math.min(DEFAULT_POLICY.refreshLeadSeconds, epochSeconds / 4)
  return ends - lead * (0.2 + 0.6 * random)
}

/** When an epoch is over; one without a session yet has its whole life before it. */
function endOf(record: EpochRecord, epochSeconds: number, nbf: number): number {
  return (record.first === 0 ? nbf : record.nbf) + epochSeconds
}
