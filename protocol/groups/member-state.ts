/** What a member keeps between starts, and how much of it at most (protocol.md §3.11). */
import { equalBytes } from '../bytes.ts'
import { IotchainError } from '../errors.ts'
import type { MemberState } from './scheme.ts'
import { dyadicCount } from './time-tree.ts'

/** Bounds on what broadcasts and joins can make a member keep. */
export const MEMBER_LIMITS = {
  personals: 4,
  given: 64,
  derived: 256,
  times: 1024,
  stretches: 64,
} as const

/** @throws `group/bad-state` for a state of another group, or one that this version did not write */
export function checkMemberState(state: MemberState, gid: Uint8Array): void {
  const count = (value: unknown): boolean => typeof value === 'number' && Number.isInteger(value) && value >= 0
  const whole =
    state !== null &&
    typeof state === 'object' &&
    state.version === 1 &&
    state.gid instanceof Uint8Array &&
    count(state.session) &&
    count(state.used) &&
    [state.personals, state.keys, state.times, state.stretches].every(Array.isArray) &&
    state.times.every((t) => count(t.session) && count(t.nbf) && count(t.exp)) &&
    state.stretches.every(
      (s) =>
        count(s.session) &&
        s.z instanceof Uint8Array &&
        s.z.length === 16 &&
        Array.isArray(s.ranges) &&
        s.ranges.length > 0 &&
        s.ranges.every(
          (r) =>
            count(r.lo) &&
            count(r.hi) &&
            r.lo >= 1 &&
            r.lo <= r.hi &&
            r.hi <= s.session &&
            r.heal instanceof Uint8Array &&
            r.heal.length === 16 * dyadicCount(r.lo, r.hi),
        ),
    )
  if (!whole) throw bad('is not of this version')
  if (!equalBytes(state.gid, gid)) throw bad('is of another group')
}

function bad(what: string): IotchainError {
  return new IotchainError('group/bad-state', `the stored state of a member ${what}`, {
    hint: 'remove it and join the group again',
  })
}
