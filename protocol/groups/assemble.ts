/** Making B_r (protocol.md §3.7): cohorts, chain, wraps and healing parts, from what is live at r. */
import { concat, u32 } from '../bytes.ts'
import type { CryptoSuite } from '../crypto/suite.ts'
import { COVER_ENTRY, encodeBroadcast, type PackedCohort } from './broadcast.ts'
import { coverOf, packSubset, SUBSET_LENGTH } from './cover.ts'
import { type Gid, toGid } from './gid.ts'
import { LABEL, prfOf, SECRET_LENGTH, xor } from './prf.ts'
import { dyadic, dyadicCount, keyCheck, type TimeTree } from './time-tree.ts'
import { labelOf, type Subset } from './tree.ts'

/** A leaf that shall be reached, and the first session that it may have. */
export interface LiveLeaf {
  readonly leaf: number
  /** c = max(a, r − w, f). */
  readonly from: number
}

export interface PlannedCohort {
  readonly start: number
  /** Last session of its range. */
  readonly end: number
  readonly cover: readonly Subset[]
}

/**
 * Boundaries, ranges and covers.
 * @param epochStarts first sessions of epochs; those within (c_0, r] become boundaries of their own, so that no range
 * crosses two epoch secrets
 */
export function planCohorts(
  session: number,
  depth: number,
  live: readonly LiveLeaf[],
  epochStarts: readonly number[],
): PlannedCohort[] {
  const leaves = new Map<number, number[]>()
  for (const { leaf, from } of live) {
    const group = leaves.get(from)
    if (group === undefined) leaves.set(from, [leaf])
    else group.push(leaf)
  }
  if (leaves.size === 0) leaves.set(session, [])
  const first = Math.min(...leaves.keys())
  for (const start of epochStarts) {
    if (start > first && start <= session && !leaves.has(start)) leaves.set(start, [])
  }
  const starts = [...leaves.keys()].sort((a, b) => a - b)
  return starts.map((start, k) => ({
    start,
    end: (starts[k + 1] ?? session + 1) - 1,
    cover: coverOf(
      depth,
      (leaves.get(start) as number[]).sort((a, b) => a - b),
    ),
  }))
}

export interface BroadcastPlan {
  readonly gid: Uint8Array
  readonly epoch: number
  readonly session: number
  readonly nbf: number
  readonly exp: number
  readonly depth: number
  readonly cohorts: readonly PlannedCohort[]
}

const uintLength = (n: number): number => (n < 24 ? 1 : n < 0x100 ? 2 : n < 0x10000 ? 3 : n < 0x100000000 ? 5 : 9)

/** Octets that all covers take. */
export function coverOctets(cohorts: readonly PlannedCohort[]): number {
  return cohorts.reduce((sum, c) => sum + COVER_ENTRY * c.cover.length, 0)
}

/** Octets of the signed broadcast, without making it. */
export function plannedOctets(plan: BroadcastPlan): number {
  let payload = 1 + 1 + 9 + uintLength(plan.epoch) + uintLength(plan.session) + uintLength(plan.nbf)
  payload += uintLength(plan.exp) + uintLength(plan.depth) + uintLength(plan.cohorts.length) + 9
  for (const { start, end, cover } of plan.cohorts) {
    const coverLength = COVER_ENTRY * cover.length
    const healLength = SECRET_LENGTH * dyadicCount(start, end)
    payload += 1 + uintLength(start) + uintLength(coverLength) + coverLength + uintLength(healLength) + healLength
  }
  // d2 84, 14 octets of protected header, a0, the payload's head, 66 octets of signature
  return 2 + 14 + 1 + uintLength(payload) + payload + 66
}

/** The secrets behind a plan. */
export interface PlanSecrets {
  /** EM of the broadcast's epoch. */
  readonly epochSecret: Uint8Array
  /** Time tree of the epoch that a session belongs to. */
  treeOf(session: number): TimeTree
}

/** The payload of B_r, to be signed. */
export function assembleBroadcast(suite: CryptoSuite, plan: BroadcastPlan, secrets: PlanSecrets): Uint8Array {
  const prf = prfOf(suite)
  const { epochSecret, treeOf } = secrets
  const gid: Gid = toGid(plan.gid)
  const session = u32(plan.session)
  let z = prf(epochSecret, concat(LABEL.chainStart, session))
  const cohorts = plan.cohorts.map(({ start, end, cover }, k): PackedCohort => {
    if (k > 0) z = prf(z, LABEL.chainNext)
    const wrapInput = concat(LABEL.wrap, gid, u32(plan.epoch), session, u32(start))
    const packed = new Uint8Array(COVER_ENTRY * cover.length)
    cover.forEach((subset, n) => {
      packed.set(packSubset(subset), n * COVER_ENTRY)
      packed.set(xor(z, prf(labelOf(suite, epochSecret, subset), wrapInput)), n * COVER_ENTRY + SUBSET_LENGTH)
    })
    const tree = treeOf(start)
    const nodes = concat(...dyadic(start, end).map((node) => tree.node(node)))
    return { start, cover: packed, heal: maskHeal(suite, z, gid, plan.session, start, nodes, 0) }
  })
  const { epoch, nbf, exp, depth } = plan
  const kcv = keyCheck(suite, treeOf(plan.session).leaf(plan.session))
  return encodeBroadcast({ gid, epoch, session: plan.session, nbf, exp, depth, cohorts, kcv })
}

/**
 * Masks or unmasks (a part of) a healing part.
 * @param offset octets of the healing part in front of `data`, a multiple of 16
 */
export function maskHeal(
  suite: CryptoSuite,
  z: Uint8Array,
  gid: Uint8Array,
  session: number,
  start: number,
  data: Uint8Array,
  offset: number,
): Uint8Array {
  const out = new Uint8Array(data.length)
  for (let at = 0; at < data.length; ) {
    const position = offset + at
    const block = Math.floor(position / 32)
    const pad = suite.hmacOnce(z, concat(LABEL.heal, gid, u32(session), u32(start), u32(block + 1)))
    const skip = position % 32
    const length = Math.min(32 - skip, data.length - at)
    for (let i = 0; i < length; i++) out[at + i] = (data[at + i] as number) ^ (pad[skip + i] as number)
    at += length
  }
  return out
}
