/** DTLS cells that fail by the foreign stack's own doing, with the evidence that the run must show. */
import type { DtlsPeerName } from '../peers/dtls-peers.ts'
import type { Direction, Verdict } from './coap-cells.ts'
import type { DtlsCellId } from './dtls-cells.ts'

interface DtlsFault {
  readonly peers: readonly DtlsPeerName[]
  readonly direction: Direction
  readonly cells: readonly DtlsCellId[]
  readonly evidence: RegExp
  readonly why: string
}

const FAULTS: readonly DtlsFault[] = [
  {
    peers: ['gnutls'],
    direction: 'their client, our server',
    cells: ['psk'],
    evidence: /ended by SIGSEGV; our server saw an association, identity interop/,
    why: 'gnutls-cli 3.7.9 dies of SIGSEGV when it prints an ECDHE-PSK session, after a complete handshake',
  },
  {
    peers: ['libcoap-gnutls'],
    direction: 'our client, their server',
    cells: ['resumption'],
    evidence: /^reused: false$/,
    why: 'libcoap 4.3.1 on GnuTLS issues no session tickets; our client made a full handshake instead',
  },
]

/** Why the stack is at fault, when this run shows it. */
export function dtlsFault(
  peer: DtlsPeerName,
  direction: Direction,
  cell: DtlsCellId,
  verdict: Verdict,
): string | undefined {
  return FAULTS.find(
    (each) =>
      each.peers.includes(peer) &&
      each.direction === direction &&
      each.cells.includes(cell) &&
      each.evidence.test(verdict.detail),
  )?.why
}
