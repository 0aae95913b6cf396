/**
 * What the CoAP engine stands on: something that carries datagrams to and from peers. UDP (`udp.ts`), an in-memory
 * lossy pipe (`pipe.ts`) and DTLS (`transport/dtls/coap-transport.ts`) implement it.
 */
import type { X509Certificate } from 'node:crypto'

/** What DTLS knows about the other end of an association. */
export interface SecureFacts {
  /** 32 octets of RFC 9266 `EXPORTER-Channel-Binding`: the same at both ends of this association and of no other. */
  channelBinding(): Uint8Array
  /** The peer's certificate, only when it chains to a configured CA and possession was proven. */
  readonly certificate: X509Certificate | undefined
  readonly authorized: boolean
  readonly pskIdentity: string | undefined
}

/** The other end: one UDP address and port, or one DTLS association. */
export interface Peer {
  /** Identifies the peer within its transport; a key is never reused for another association. */
  readonly key: string
  readonly address: string
  readonly port: number
  /** Present on DTLS, undefined on plain CoAP. */
  readonly secure?: SecureFacts | undefined
}

export interface DatagramTransport {
  /**
   * Set by the endpoint. `multicast` is true for a datagram that was sent to a group. `datagram` is lent for
   * the time of the call: the engine copies what it goes on with, unless the transport `gives` it.
   */
  onmessage: ((datagram: Uint8Array, peer: Peer, multicast?: boolean) => void) | undefined
  /** The association ended: the engine forgets everything about the peer. */
  onpeergone?: ((peer: Peer) => void) | undefined
  /** The network refused a datagram (ICMP, no route). `peer` is undefined when the transport cannot tell whose. */
  onunreachable?: ((peer: Peer | undefined, cause: Error) => void) | undefined
  /** Hands one datagram to the network. Never throws; what cannot be sent is lost, as datagrams are. */
  send(datagram: Uint8Array, peer: Peer): void
  close(): Promise<void>
  readonly address: { readonly address: string; readonly port: number }
  /** What `onmessage` gets is not touched again. */
  readonly gives?: boolean | undefined
}
