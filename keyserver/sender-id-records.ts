/**
 * The Sender IDs of one subject, by group and in order of issue: which have to be named, and how many may be asked for.
 * What is dropped is out of retention, and so are the credentials of its time; the group's count goes on, so that none
 * comes twice.
 */
import { IotchainError } from '../protocol/errors.ts'
import { CREDENTIAL_SIDS } from '../protocol/objects/credential.ts'
import type { SenderIdRecord } from './storage.ts'

export type SenderIdsByGroup = Readonly<Record<string, readonly SenderIdRecord[]>>

/** Kept however old they are. */
const LAST = 16
/** That one member gets in one group in an hour. */
const PER_HOUR = 16
/** Of one subject in all its groups: a credential that names them has at most 32 KiB. Joins have room beyond it. */
const PER_SUBJECT = (CREDENTIAL_SIDS * 3) / 4
const HOUR = 3600

/** Those that a credential names (protocol.md §4.5): the last ones, and all that may have sealed inside retention. */
export function neededSenderIds(
  all: readonly SenderIdRecord[],
  now: number,
  retentionSeconds: number,
): readonly SenderIdRecord[] {
  // A Sender ID that was followed by another inside the retention time may have sealed objects in it.
  const first = all.findIndex((_, i) => (all[i + 1]?.from ?? now) >= now - retentionSeconds)
  const start = Math.min(first < 0 ? all.length : first, Math.max(0, all.length - LAST))
  return all.slice(Math.max(start, all.length - CREDENTIAL_SIDS))
}

/** The record with one more at the end of a group's list, and without those of the group that nobody needs. */
export function withSenderId(
  known: SenderIdsByGroup,
  group: string,
  issued: SenderIdRecord,
  retentionSeconds: number,
): SenderIdsByGroup {
  const all = [...(known[group] ?? []), issued]
  return { ...known, [group]: neededSenderIds(all, issued.from, retentionSeconds) }
}

/** @throws `group/quota` with the seconds until the member may have another one */
export function checkRation(known: SenderIdsByGroup, group: string, now: number, retentionSeconds: number): void {
  const times = (known[group] ?? []).map(({ from }) => from)
  withinHour(times, now, 'Sender IDs')
  let named = 0
  for (const list of Object.values(known)) named += neededSenderIds(list, now, retentionSeconds).length
  if (named >= PER_SUBJECT) throw quota(HOUR, 'Sender IDs')
}

/**
 * A command key that a client had not before begins a list of its own, and each has a credential that is kept.
 * @param before when the client brought others @returns those that count from now on
 * @throws `group/quota`
 */
export function withNewKey(before: readonly number[], now: number): readonly number[] {
  return [...withinHour(before, now, 'command keys'), now]
}

/** Those of the last hour. One that is dated ahead is of a clock that has been set back: it does not count for ever. */
function withinHour(times: readonly number[], now: number, what: string): readonly number[] {
  const recent = times.filter((at) => at > now - HOUR && at <= now)
  if (recent.length >= PER_HOUR) throw quota(Math.min(...recent.slice(-PER_HOUR)) + HOUR - now, what)
  return recent
}

function quota(seconds: number, what: string): IotchainError {
  return new IotchainError('group/quota', `this member has asked for too many ${what}`, {
    hint: 'look why it loses its state again and again',
    retryAfterSeconds: Math.max(1, seconds),
  })
}
