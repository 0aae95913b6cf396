/**
 * Cells that fail by the foreign stack's own doing, each with the evidence that the suite looks for in that very run.
 * A cell of this list that fails without the evidence is a failure; one that passes is a pass.
 */
import type { CoapPeerName } from '../peers/coap-peers.ts'
import type { Direction, Verdict } from './coap-cells.ts'
import type { Seen } from './tap.ts'

export interface Fault {
  readonly peer: CoapPeerName
  readonly direction: Direction
  readonly cells: readonly string[]
  readonly why: string
  /** Whether this run shows it. `seen` is what crossed our transport during the cell. */
  evident(verdict: Verdict, seen: readonly Seen[]): boolean
}

export const FAULTS: readonly Fault[] = []
