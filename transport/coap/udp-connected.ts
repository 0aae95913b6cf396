/** CoAP over UDP with one server, by a socket that is connected to it. */
import type { RemoteInfo, Socket } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { isIPv6 } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'
import { bindSocket, newSocket, type SocketOptions } from '../udp/socket.ts'
import { hasNot } from './interfaces.ts'
import { isNumeric, resolvePeer } from './resolve.ts'
import type { DatagramTransport, Peer } from './transport.ts'

/** After so long without an answer it looks whether one of its two ends has another address by now. */
const QUIET_MS = 5000

export class ConnectedUdp implements DatagramTransport {
  onmessage: DatagramTransport['onmessage']
  onunreachable?: ((peer: Peer | undefined, cause: Error) => void) | undefined
  readonly gives = true
  readonly #socket: Socket
  readonly #peer: Peer
  /** As it was given: a name may come to mean another address. undefined: both ends stay. */
  readonly #server: string | undefined
  /** The server's address at present; its peer keeps the first, by which answers are matched. */
  #at: string
  /** Of the first datagram that is not answered, or the last look. */
  #askedMs: number | undefined
  #closed = false
  /** Datagrams with source port 0, which nobody can answer. */
  fromPortZero = 0

  /** @param server name or address of `peer`, when the ends of the socket may move */
  constructor(socket: Socket, peer: Peer, server: string | undefined) {
    this.#socket = socket
    this.#peer = peer
    this.#server = server
    this.#at = peer.address
    socket.on('message', (datagram: Buffer, remote: RemoteInfo) => this.#receive(datagram, remote))
    // ICMP and the like: a datagram is lost, no reason to end the process
    socket.on('error', (error) => this.onunreachable?.(peer, error))
  }

  get address(): { readonly address: string; readonly port: number } {
    const { address, port } = this.#socket.address()
    return { address, port }
  }

  /** The one peer, whatever is asked for. */
  async peer(_host?: string, _port?: number): Promise<Peer> {
    return this.#peer
  }

  send(datagram: Uint8Array, peer: Peer): void {
    if (this.#closed) return
    try {
      if (this.#server !== undefined) this.#follow(this.#server)
      this.#socket.send(datagram, (error) => error && this.onunreachable?.(peer, error))
    } catch (error) {
      this.onunreachable?.(peer, error as Error)
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await new Promise<void>((resolve) => this.#socket.close(() => resolve()))
  }

  /**
   * The system chooses the source address when a socket is connected and never again: on a host that moved to another
   * network it sends nothing any more (IPv4), or in a name that no answer reaches (IPv6). The server may have moved too.
   */
  #follow(server: string): void {
    const now = performance.now()
    this.#askedMs ??= now
    if (now - this.#askedMs < QUIET_MS) return
    this.#askedMs = now
    if (hasNot(this.#socket.address().address)) this.#connect(this.#at)
    if (isNumeric(server)) return
    lookup(server, { family: isIPv6(this.#at) ? 6 : 4 }).then(
      ({ address }) => {
        if (!this.#closed && address !== this.#at) this.#connect(address)
      },
      () => undefined,
    )
  }

  #connect(address: string): void {
    this.#at = address
    try {
      this.#socket.disconnect()
    } catch {
      // there was no way to the server the last time
    }
    this.#socket.connect(this.#peer.port, address, (error?: Error | null) => {
      if (error) this.onunreachable?.(this.#peer, error)
    })
  }

  #receive(datagram: Buffer, remote: RemoteInfo): void {
    this.#askedMs = undefined
    if (remote.port === 0) this.fromPortZero++
    else this.onmessage?.(datagram, this.#peer, false)
  }
}

/** Where a client's own socket is bound; by default the system chooses. */
export interface ConnectOptions extends Pick<SocketOptions, 'recvBufferSize' | 'reusePort'> {
  readonly host?: string | undefined
  readonly port?: number | undefined
}

/**
 * A socket for one server: only its datagrams arrive, and the system tells when nothing listens there.
 * @throws `coap/unknown-host`, `coap/unreachable`
 */
export async function connectUdp(host: string, port: number, options: ConnectOptions = {}): Promise<ConnectedUdp> {
  const peer = await resolvePeer(host, port, false)
  const v6 = isIPv6(peer.address)
  const socket = newSocket(v6, options)
  const transport = new ConnectedUdp(socket, peer, options.host === undefined ? host : undefined)
  try {
    if (options.host !== undefined || options.port !== undefined) {
      await bindSocket(socket, options.port ?? 0, options.host ?? (v6 ? '::' : '0.0.0.0'), options)
    }
    await new Promise<void>((resolve, reject) => {
      socket.connect(port, peer.address, (error?: Error | null) => (error ? reject(error) : resolve()))
    })
  } catch (error) {
    await transport.close()
    throw new IotchainError('coap/unreachable', `there is no way to ${host} from here`, {
      hint: 'check the address and the network',
      cause: error,
    })
  }
  return transport
}
