/**
 * The time tree (protocol.md §3.6): a GGM tree of depth 32 over session numbers. A node gives the keys of the sessions
 * below it and of no other.
 */
import { copyOf } from '../bytes.ts'
import type { CryptoSuite } from '../crypto/suite.ts'
import { childOf, LABEL, type Prf, prfOf } from './prf.ts'
import type { GroupKey } from './scheme.ts'

export const TIME_DEPTH = 32

/** Node (level, prefix): the 2^(32 − level) sessions whose number begins with `prefix`. */
export interface TimeNode {
  readonly level: number
  readonly prefix: number
}

/** The coarsest nodes whose sessions are exactly lo to hi, ascending. */
export function dyadic(lo: number, hi: number): TimeNode[] {
  const nodes: TimeNode[] = []
  for (let at = lo; at <= hi; ) {
    let height = 0
    while (height < TIME_DEPTH && at % 2 ** (height + 1) === 0 && at + 2 ** (height + 1) - 1 <= hi) height++
    nodes.push({ level: TIME_DEPTH - height, prefix: at / 2 ** height })
    at += 2 ** height
  }
  return nodes
}

/** Number of nodes that dyadic gives, without making them. */
export function dyadicCount(lo: number, hi: number): number {
  let count = 0
  for (let at = lo; at <= hi; count++) {
    let height = 0
    while (height < TIME_DEPTH && at % 2 ** (height + 1) === 0 && at + 2 ** (height + 1) - 1 <= hi) height++
    at += 2 ** height
  }
  return count
}

/** First and last session below a node. */
export function sessionsOf({ level, prefix }: TimeNode): { lo: number; hi: number } {
  const size = 2 ** (TIME_DEPTH - level)
  return { lo: prefix * size, hi: (prefix + 1) * size - 1 }
}

/** Secret of `to` from that of its ancestor `from`. */
export function descend(prf: Prf, secret: Uint8Array, from: TimeNode, to: TimeNode): Uint8Array {
  let out = secret
  for (let level = from.level + 1; level <= to.level; level++) out = childOf(prf, out, bitAt(to, level))
  return out
}

/** Last bit of the prefix that `node` has at `level`, from 1 on; prefixes fill 32 bits, so shifts are unsigned. */
function bitAt(node: TimeNode, level: number): number {
  return (node.prefix >>> (node.level - level)) & 1
}

/** An epoch's time tree, from its secret. Keeps the last path walked: neighbours share most of it. */
export class TimeTree {
  private readonly prf: Prf
  private readonly path: Uint8Array[]
  private last: TimeNode = { level: 0, prefix: 0 }

  constructor(suite: CryptoSuite, epochSecret: Uint8Array) {
    this.prf = prfOf(suite)
    this.path = [this.prf(epochSecret, LABEL.time)]
  }

  /** T(level, prefix): 16 octets. */
  node(node: TimeNode): Uint8Array {
    let shared = 0
    const most = Math.min(node.level, this.last.level)
    while (shared < most && bitAt(node, shared + 1) === bitAt(this.last, shared + 1)) shared++
    this.path.length = shared + 1
    for (let level = shared + 1; level <= node.level; level++) {
      this.path.push(childOf(this.prf, this.path[level - 1] as Uint8Array, bitAt(node, level)))
    }
    this.last = node
    return this.path[node.level] as Uint8Array
  }

  /** N_j. */
  leaf(session: number): Uint8Array {
    return this.node({ level: TIME_DEPTH, prefix: session })
  }
}

/** K_j from its leaf N_j: 16 octets. */
export function groupKey(suite: CryptoSuite, leaf: Uint8Array): GroupKey {
  return copyOf(prfOf(suite)(leaf, LABEL.key)) as GroupKey
}

/** kcv_j from its leaf N_j: 8 octets. */
export function keyCheck(suite: CryptoSuite, leaf: Uint8Array): Uint8Array {
  return copyOf(prfOf(suite)(leaf, LABEL.check), 0, 8)
}
