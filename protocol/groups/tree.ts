/**
 * The key tree of an epoch: labels of subset differences (protocol.md §3.3, after Naor, Naor and Lotspiech, CRYPTO
 * 2001). Nodes are heap-numbered: root 1, children 2v and 2v + 1, leaf u is node 2^depth + u.
 */
import { concat, u32 } from '../bytes.ts'
import type { CryptoSuite } from '../crypto/suite.ts'
import { childOf, LABEL, prfOf, SECRET_LENGTH } from './prf.ts'

/** Leaves under `i` and not under `j`, j a proper descendant of i; (1, 0) is the whole tree. */
export interface Subset {
  readonly i: number
  readonly j: number
}

export const ALL: Subset = { i: 1, j: 0 }

export function depthOf(node: number): number {
  return 31 - Math.clz32(node)
}

/** LABEL(i, j) from EM(e). */
export function labelOf(suite: CryptoSuite, epochSecret: Uint8Array, { i, j }: Subset): Uint8Array {
  const prf = prfOf(suite)
  if (j === 0) return prf(epochSecret, LABEL.all)
  let label = prf(epochSecret, concat(LABEL.subset, u32(i)))
  for (let shift = depthOf(j) - depthOf(i) - 1; shift >= 0; shift--) label = childOf(prf, label, (j >> shift) & 1)
  return label
}

/** Octets of the labels in a personal key. */
export function labelsLength(depth: number): number {
  return SECRET_LENGTH * ((depth * (depth + 1)) / 2 + 1)
}

/** The labels of a leaf: LABEL(1,0), then for each ancestor i the labels of the siblings that hang off the path below it. */
export function labelsOf(suite: CryptoSuite, epochSecret: Uint8Array, depth: number, leaf: number): Uint8Array {
  const prf = prfOf(suite)
  const node = 2 ** depth + leaf
  const out = new Uint8Array(labelsLength(depth))
  out.set(prf(epochSecret, LABEL.all))
  let at = SECRET_LENGTH
  for (let di = 0; di < depth; di++) {
    // walk down the path from the ancestor at depth di; the sibling's label is one step beside it
    let label = prf(epochSecret, concat(LABEL.subset, u32(node >> (depth - di))))
    for (let dj = di + 1; dj <= depth; dj++) {
      const bit = (node >> (depth - dj)) & 1
      out.set(childOf(prf, label, 1 - bit), at)
      at += SECRET_LENGTH
      if (dj < depth) label = childOf(prf, label, bit)
    }
  }
  return out
}

/** True if the leaf is in the subset. */
export function inSubset(depth: number, leaf: number, { i, j }: Subset): boolean {
  const node = 2 ** depth + leaf
  if (node >> (depth - depthOf(i)) !== i) return false
  return j === 0 || node >> (depth - depthOf(j)) !== j
}

/**
 * LABEL(i, j) from the labels of a leaf that is in the subset: the stored label of the sibling where the paths part,
 * then down to j.
 */
export function labelFrom(
  suite: CryptoSuite,
  labels: Uint8Array,
  depth: number,
  leaf: number,
  { i, j }: Subset,
): Uint8Array {
  const stored = (index: number): Uint8Array => labels.subarray(index * SECRET_LENGTH, (index + 1) * SECRET_LENGTH)
  if (j === 0) return stored(0)
  const node = 2 ** depth + leaf
  const di = depthOf(i)
  const dTarget = depthOf(j)
  let dj = di + 1
  while (node >> (depth - dj) === j >> (dTarget - dj)) dj++
  // entries of the ancestors above come first: d of the root, d − 1 of the next …
  let label = stored(1 + di * depth - (di * (di - 1)) / 2 + (dj - di - 1))
  const prf = prfOf(suite)
  for (let shift = dTarget - dj - 1; shift >= 0; shift--) label = childOf(prf, label, (j >> shift) & 1)
  return label
}
