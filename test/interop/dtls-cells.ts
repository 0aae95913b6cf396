/** The cells of the DTLS matrix, and those that a stack cannot be asked for. */
import type { DtlsPeerName } from '../peers/dtls-peers.ts'
import type { Direction } from './coap-cells.ts'

export type DtlsCellId = 'mutual' | 'anonymous' | 'foreign-ca' | 'exporter' | 'resumption' | 'psk'

export const DTLS_CELLS: readonly { readonly id: DtlsCellId; readonly title: string }[] = [
  { id: 'mutual', title: 'mutual certificates, data both ways' },
  { id: 'anonymous', title: 'anonymous client, data both ways' },
  { id: 'foreign-ca', title: "another CA's certificate is refused" },
  { id: 'exporter', title: 'channel binding equal at both ends' },
  { id: 'resumption', title: 'resumption' },
  { id: 'psk', title: 'pre-shared key' },
]

interface NotOffered {
  readonly peers: readonly DtlsPeerName[]
  readonly direction?: Direction
  readonly cells: readonly DtlsCellId[]
  readonly why: string
}

export const NOT_OFFERED: readonly NotOffered[] = [
  {
    peers: ['libcoap-openssl', 'libcoap-gnutls'],
    cells: ['exporter'],
    why: "libcoap's tools print no exporter",
  },
  {
    peers: ['libcoap-openssl', 'libcoap-gnutls'],
    direction: 'their client, our server',
    cells: ['resumption'],
    why: 'coap-client keeps no session',
  },
  {
    peers: ['gnutls'],
    direction: 'our client, their server',
    cells: ['exporter'],
    why: 'gnutls-serv prints no exporter for DTLS',
  },
  {
    peers: ['pion'],
    cells: ['resumption'],
    why: 'pion resumes by session ID, our ends by ticket only: no state is kept for a client that is gone',
  },
  {
    peers: ['scandium'],
    cells: ['exporter', 'resumption', 'psk'],
    why: 'the program on Scandium does certificates only',
  },
  {
    peers: ['node-dtls-client'],
    direction: 'their client, our server',
    cells: ['mutual', 'anonymous', 'foreign-ca', 'resumption'],
    why: 'node-dtls-client knows pre-shared keys only',
  },
  {
    peers: ['node-dtls-client'],
    direction: 'our client, their server',
    cells: ['mutual', 'anonymous', 'foreign-ca', 'exporter', 'resumption', 'psk'],
    why: 'node-dtls-client is a client only',
  },
]

export function notOffered(peer: DtlsPeerName, direction: Direction, cell: DtlsCellId): string | undefined {
  return NOT_OFFERED.find(
    (each) => each.peers.includes(peer) && (each.direction ?? direction) === direction && each.cells.includes(cell),
  )?.why
}

/** Cipher suites of the PSK cells, where a stack lacks the one that we have by default (ECDHE-PSK-CHACHA20-POLY1305). */
export function pskCiphers(peer: DtlsPeerName): string | undefined {
  if (peer === 'pion') return 'ECDHE-PSK-AES128-CBC-SHA256'
  // plain PSK, without forward secrecy: in this suite only
  if (peer === 'node-dtls-client') return 'PSK-AES128-GCM-SHA256:PSK-AES128-CBC-SHA256'
  return undefined
}
