/**
 * DTLS under the CoAP engine (RFC 7252 §9.1): one peer per association, named by a key that never comes again, so that
 * a response matches within its association only.
 */
import type { DatagramTransport, Peer, SecureFacts } from '../coap/transport.ts'
import { listen } from './endpoint.ts'
import type { DtlsAssociation, DtlsEndpoint, ListenOptions } from './types.ts'

let count = 0

/** The peer at the other end of an association. */
class AssociationPeer implements Peer {
  readonly key = `dtls${++count}`
  readonly address: string
  readonly port: number
  readonly secure: SecureFacts
  readonly association: DtlsAssociation

  constructor(association: DtlsAssociation) {
    this.association = association
    this.address = association.remoteAddress.address
    this.port = association.remoteAddress.port
    this.secure = {
      channelBinding: () => association.channelBinding(),
      get certificate() {
        return association.authorized ? association.peerX509Certificate : undefined
      },
      get authorized() {
        return association.authorized
      },
      get pskIdentity() {
        return association.pskIdentity
      },
    }
  }
}

/** What both ends do with the associations that they have. */
abstract class AssociationTransport implements DatagramTransport {
  readonly gives = true
  onmessage: ((datagram: Uint8Array, peer: Peer) => void) | undefined
  onpeergone: ((peer: Peer) => void) | undefined
  onunreachable: ((peer: Peer | undefined, cause: Error) => void) | undefined
  abstract readonly address: { readonly address: string; readonly port: number }
  abstract close(): Promise<void>

  send(datagram: Uint8Array, peer: Peer): void {
    if (!(peer instanceof AssociationPeer)) return
    try {
      peer.association.send(datagram)
    } catch (error) {
      this.onunreachable?.(peer, error as Error)
    }
  }

  protected adopt(association: DtlsAssociation): AssociationPeer {
    const peer = new AssociationPeer(association)
    association.onclose = () => this.onpeergone?.(peer)
    association.onmessage = (datagram) => this.onmessage?.(datagram, peer)
    return peer
  }
}

export class DtlsServerTransport extends AssociationTransport {
  readonly endpoint: DtlsEndpoint

  constructor(options: ListenOptions) {
    super()
    this.endpoint = listen((association) => this.adopt(association), options)
  }

  get address(): { readonly address: string; readonly port: number } {
    return this.endpoint.address
  }

  close(): Promise<void> {
    return this.endpoint.close()
  }
}

export class DtlsClientTransport extends AssociationTransport {
  /** The server. */
  readonly peer: Peer
  readonly #association: DtlsAssociation

  /** @param association open, and used by nothing else */
  constructor(association: DtlsAssociation) {
    super()
    this.#association = association
    this.peer = this.adopt(association)
  }

  get address(): { readonly address: string; readonly port: number } {
    return this.#association.localAddress
  }

  async close(): Promise<void> {
    this.#association.close()
    await this.#association.closed
  }
}

/** A bound DTLS server for `CoapEndpoint`; rejects as `listen` and `listening` do. */
export async function dtlsServerTransport(options: ListenOptions): Promise<DtlsServerTransport> {
  const transport = new DtlsServerTransport(options)
  await transport.endpoint.listening
  return transport
}

/** Rejects as `opened` does. */
export async function dtlsClientTransport(association: DtlsAssociation): Promise<DtlsClientTransport> {
  await association.opened
  return new DtlsClientTransport(association)
}
