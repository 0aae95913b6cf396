/**
 * Order of the objects of one resource (protocol.md §4.6): first by the position of the Sender ID in the credential's
 * list (incarnations in order of issue), then by sequence number.
 */
import { compareBytes, equalBytes } from '../bytes.ts'
import type { SidGrant } from './credential.ts'

export interface ObjectOrder {
  readonly sid: Uint8Array
  readonly seq: number
}

/** Index in the list; −1 when it is not (any more) listed, which is lower than any listed one. */
export function sidPosition(list: readonly SidGrant[], sid: Uint8Array): number {
  return list.findIndex((grant) => equalBytes(grant.sid, sid))
}

/**
 * Negative when `a` comes before `b`, 0 when they are the same place in the order.
 * @param list the device's Sender IDs in this group, from its newest credential. Of two different ones that have
 * dropped out of it, the one issued earlier is the shorter, then bytewise lower (the key server counts them up).
 */
export function compareOrder(list: readonly SidGrant[], a: ObjectOrder, b: ObjectOrder): number {
  if (equalBytes(a.sid, b.sid)) return a.seq - b.seq
  const byPosition = sidPosition(list, a.sid) - sidPosition(list, b.sid)
  if (byPosition !== 0) return byPosition
  return a.sid.length - b.sid.length || compareBytes(a.sid, b.sid)
}
