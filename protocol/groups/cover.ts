/** The canonical subset-difference cover (protocol.md §3.5) and its packed form. */
import { ALL, depthOf, type Subset } from './tree.ts'

/** Octets of a packed subset. */
export const SUBSET_LENGTH = 3

/**
 * The subsets that reach exactly `leaves`, ascending by j. Runs in time proportional to the leaves times the depth,
 * however large the tree.
 * @param leaves ascending, without repetition, each below 2^depth
 */
export function coverOf(depth: number, leaves: readonly number[]): Subset[] {
  const subsets: Subset[] = []
  if (leaves.length === 0) return subsets

  /**
   * 0: every leaf under v is in; v: none is; else x: leaves(v) without leaves(x) remain to be covered.
   * leaves[from, to) are those under v.
   */
  function rec(v: number, level: number, from: number, to: number): number {
    if (from === to) return v
    const size = 2 ** (depth - level)
    if (to - from === size) return 0
    const left = 2 * v
    const middle = split(leaves, from, to, (left + 1) * (size / 2) - 2 ** depth)
    const l = rec(left, level + 1, from, middle)
    const r = rec(left + 1, level + 1, middle, to)
    if (l === 0) return r
    if (r === 0) return l
    if (l !== left) subsets.push({ i: left, j: l })
    if (r !== left + 1) subsets.push({ i: left + 1, j: r })
    return v
  }

  const x = rec(1, 0, 0, leaves.length)
  if (x === 0) return [ALL]
  if (x !== 1) subsets.push({ i: 1, j: x })
  return subsets.sort((a, b) => a.j - b.j)
}

/** First index in [from, to) whose leaf is at least `bound`. */
function split(leaves: readonly number[], from: number, to: number, bound: number): number {
  let low = from
  let high = to
  while (low < high) {
    const middle = (low + high) >> 1
    if ((leaves[middle] as number) < bound) low = middle + 1
    else high = middle
  }
  return low
}

/** k << 19 | j in 3 octets, big-endian, k = depth(j) − depth(i); the whole tree is 0x000001. */
export function packSubset({ i, j }: Subset): Uint8Array {
  const word = j === 0 ? 1 : ((depthOf(j) - depthOf(i)) << 19) | j
  return Uint8Array.of((word >> 16) & 255, (word >> 8) & 255, word & 255)
}

/**
 * The subset in 3 octets, or undefined where they stand for none in a tree of this depth: k below 1, no such i, j
 * below the leaves.
 */
export function unpackSubset(depth: number, a: number, b: number, c: number): Subset | undefined {
  const word = (a << 16) | (b << 8) | c
  if (word === 1) return ALL
  const k = word >> 19
  const j = word & 0x7ffff
  if (k < 1 || j === 0 || depthOf(j) > depth || j >> k === 0) return undefined
  return { i: j >> k, j }
}
