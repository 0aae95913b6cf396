/** How far back a broadcast heals: w(r) of protocol.md §3.10. */
import type { SessionRecord } from './manager-state.ts'
import { GREATEST_WINDOW, LEAST_WINDOW, type WindowPolicy } from './policy.ts'

/**
 * r − w(r), at least 1: the oldest session that the broadcast of session r heals.
 * @param sessions those made before, ascending
 * @param nbf of session r
 */
export function windowStart(
  window: WindowPolicy,
  sessions: readonly SessionRecord[],
  session: number,
  nbf: number,
): number {
  let start: number
  if (typeof window === 'number') start = session - window
  else {
    const recent = sessions[firstSince(sessions, nbf - window.seconds)]?.session ?? session
    start = Math.min(recent, session - window.min)
  }
  return Math.max(1, session - GREATEST_WINDOW, start)
}

/** The start that cutting never goes beyond. */
export function leastWindowStart(window: WindowPolicy, session: number): number {
  const least = typeof window === 'number' ? window : window.min
  return Math.max(1, session - Math.min(least, LEAST_WINDOW))
}

/** Index of the first session that began at or after `time`. */
function firstSince(sessions: readonly SessionRecord[], time: number): number {
  let low = 0
  let high = sessions.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((sessions[middle] as SessionRecord).nbf < time) low = middle + 1
    else high = middle
  }
  return low
}

/**
 * The oldest start, from `start` on, with which the broadcast fits; `least` if none does. Moving the start merges the
 * oldest cohorts, so only their boundaries are tried.
 * @param boundaries cohort starts, ascending
 * @param fits whether a broadcast that heals from the given session on is short enough
 */
export function cutWindow(
  start: number,
  least: number,
  boundaries: readonly number[],
  fits: (start: number) => boolean,
): number {
  if (fits(start)) return start
  const candidates = [...boundaries.filter((b) => b > start && b < least), least]
  let low = 0
  let high = candidates.length - 1
  // shorter windows give shorter broadcasts, but for a few octets; what is returned has been tried
  while (low < high) {
    const middle = (low + high) >> 1
    if (fits(candidates[middle] as number)) high = middle
    else low = middle + 1
  }
  return candidates[low] as number
}
