/**
 * Cells that fail by the foreign stack's own doing, each with the evidence that the suite looks for in that very run.
 * A cell of this list that fails without the evidence is a failure; one that passes is a pass.
 */
import type { CoapPeerName } from '../peers/coap-peers.ts'
import { UNKNOWN_CRITICAL_OPTION } from '../peers/protocol.ts'
import type { Direction, Verdict } from './coap-cells.ts'
import { Option, optionOf, type Seen, uintOf } from './tap.ts'

export interface Fault {
  readonly peers: readonly CoapPeerName[]
  readonly direction: Direction
  readonly cell: string
  readonly why: string
  /** Whether this run shows it. `seen` is what crossed our transport during the cell. */
  evident(verdict: Verdict, seen: readonly Seen[]): boolean
}

/** The last block of a body of 10 240 octets in blocks of 1 024: number 9, no more, 1 024. */
const LAST_OF_TEN = 0x96

export const FAULTS: readonly Fault[] = [
  {
    peers: ['aiocoap', 'go-coap', 'npm coap'],
    direction: 'our client, their server',
    cell: 'critical',
    why: 'its server processes a request with an unknown critical option: 2.05 where RFC 7252 §5.4.1 demands 4.02',
    evident: (_verdict, seen) =>
      seen.some(
        (each) => each.direction === 'out' && each.options.some(({ number }) => number === UNKNOWN_CRITICAL_OPTION),
      ) && seen.some((each) => each.direction === 'in' && each.code === '2.05'),
  },
  {
    peers: ['aiocoap'],
    direction: 'their client, our server',
    cell: 'cancel-observe',
    why: 'its client has no call for Observe=1: it forgets an observation, and resets the next notification',
    evident: (_verdict, seen) => seen.some((each) => each.direction === 'in' && each.type === 'RST'),
  },
  {
    peers: ['go-coap'],
    direction: 'their client, our server',
    cell: 'observe-10k',
    why: 'its client asks for the second block of a notification in an ACK with code 0.01, which RFC 7252 §4.2 forbids',
    evident: (_verdict, seen) =>
      seen.some((each) => each.direction === 'in' && each.type === 'ACK' && each.code === '0.01'),
  },
  {
    peers: ['npm coap'],
    direction: 'their client, our server',
    cell: 'observe-10k',
    why: 'its client fetches all blocks of three notifications and hands over one: it looks for Observe in the last block, where RFC 7959 §2.6 has none',
    evident: (_verdict, seen) =>
      seen.filter(
        (each) =>
          each.direction === 'out' && each.code === '2.05' && uintOf(optionOf(each, Option.block2)) === LAST_OF_TEN,
      ).length >= 3,
  },
  {
    peers: ['npm coap'],
    direction: 'our client, their server',
    cell: 'observe-10k',
    why: 'its server sends no notification over 1 152 octets at all: it answers the registration with nothing',
    evident: (_verdict, seen) => {
      const asked = seen.find((each) => each.direction === 'out' && uintOf(optionOf(each, Option.observe)) === 0)
      return asked !== undefined && !seen.some((each) => each.direction === 'in' && each.token === asked.token)
    },
  },
]
