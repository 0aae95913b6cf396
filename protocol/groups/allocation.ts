/** Who gets which leaf when an epoch is allocated (protocol.md §3.9). */
import { compareBytes } from '../bytes.ts'
import { IotchainError } from '../errors.ts'
import type { Membership } from './manager-state.ts'
import { GREATEST_DEPTH } from './policy.ts'

/**
 * Memberships in the order of their leaves: cohorts contiguous, and within a cohort those that end first in front, so
 * that expiry leaves a prefix.
 * @param from first session that a broadcast heals
 */
export function leafOrder(memberships: readonly Membership[], from: number): Membership[] {
  const end = (m: Membership): number => m.expiresAt ?? Number.POSITIVE_INFINITY
  return [...memberships].sort(
    (a, b) => Math.max(a.start, from) - Math.max(b.start, from) || order(end(a), end(b)) || compareBytes(a.id, b.id),
  )
}

/** Also for infinities, whose difference is no number. */
function order(a: number, b: number): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Depth of a tree that `count` memberships start in: twice the room, and one more. @throws `group/full` */
export function treeDepth(count: number, dMin: number): number {
  let depth = 1
  while (2 ** depth < 2 * count + 2) depth++
  depth = Math.max(depth, dMin)
  if (depth > GREATEST_DEPTH) throw new IotchainError('group/full', 'the group has reached 131 071 members')
  return depth
}
