/** CoAP over UDP (RFC 7252 §10 leaves the socket to us): a server's socket, or a client's that talks to many. */
import type { RemoteInfo } from 'node:dgram'
import { isIPv6 } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'
import { openSocket } from '../udp/open.ts'
import { UdpPeer } from '../udp/peer.ts'
import { type BoundSocket, bindSocket, newSocket } from '../udp/socket.ts'
import { interfaceWith } from './interfaces.ts'
import { isNumeric, resolveHost, resolvePeer } from './resolve.ts'
import { isLoopback } from './source-prefix.ts'
import type { DatagramTransport, Peer } from './transport.ts'
import { type MulticastOptions, MulticastReceiver } from './udp-multicast.ts'

export { ConnectedUdp, type ConnectOptions, connectUdp } from './udp-connected.ts'
export type { MulticastOptions } from './udp-multicast.ts'

export interface UdpOptions {
  /** Default `::`, which takes IPv4 too. */
  readonly host?: string | undefined
  /** Default 0: any free port. */
  readonly port?: number | undefined
  /** Default 1 MiB: bursts of some hundred clients are not lost (`net.core.rmem_max` must allow it). */
  readonly recvBufferSize?: number | undefined
  /** Listen to groups too, e.g. `{ interfaces: ['eth0'] }`; `{}` takes the usual ones on every interface. */
  readonly multicast?: MulticastOptions | undefined
  /** Interface for what is sent to a group: an address of it (IPv4) or `::%eth0`. */
  readonly multicastInterface?: string | undefined
  readonly multicastHops?: number | undefined
  /** Several processes on one port (Node ≥ 22.12): each peer sticks to one of them. */
  readonly reusePort?: boolean | undefined
}

export class UdpTransport implements DatagramTransport {
  onmessage: DatagramTransport['onmessage']
  onunreachable?: ((peer: Peer | undefined, cause: Error) => void) | undefined
  readonly gives: boolean
  readonly #socket: BoundSocket
  #multicast: MulticastReceiver | undefined
  #closed = false
  /** Datagrams with source port 0, which nobody can answer. */
  fromPortZero = 0

  constructor(socket: BoundSocket) {
    this.#socket = socket
    this.gives = socket.gives
    socket.start({
      onmessage: (datagram, peer) => {
        if (this.#closed) return
        if (peer.port === 0) this.fromPortZero++
        else this.onmessage?.(datagram, peer, false)
      },
      onfailure: (error) => this.onunreachable?.(undefined, error),
    })
  }

  get address(): { readonly address: string; readonly port: number } {
    return this.#socket.address
  }

  /**
   * The peer at a host name or address.
   * @throws `coap/unknown-host`
   */
  async peer(host: string, port: number): Promise<Peer> {
    return resolvePeer(host, port, isIPv6(this.address.address))
  }

  send(datagram: Uint8Array, peer: Peer): void {
    if (this.#closed || peer.port === 0) return
    try {
      this.#socket.send(datagram, peer)
    } catch (error) {
      // an address that the system cannot use at all
      this.onunreachable?.(peer, error as Error)
    }
  }

  /** Listens to groups; without options it only takes care that what goes to groups is not taken for unicast. */
  async join(options?: MulticastOptions): Promise<void> {
    const onmessage = (datagram: Buffer, remote: RemoteInfo): void => {
      if (remote.port !== 0) this.onmessage?.(datagram, new UdpPeer(remote.address, remote.port), true)
    }
    const socket = this.#socket
    if (options === undefined && socket.admit === undefined) return
    this.#multicast = await MulticastReceiver.open({ socket, onmessage }, options)
  }

  /** The groups that are listened to now, each with its interface: `ff02::fd%eth0`. */
  get groups(): readonly string[] {
    return this.#multicast?.joined ?? []
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#multicast?.close()
    await this.#socket.close()
  }
}

/**
 * Binds a socket for a server, or for a client of many.
 * @throws `coap/port-busy`, `coap/port-forbidden`, `coap/bad-address`
 */
export async function bindUdp(options: UdpOptions = {}): Promise<UdpTransport> {
  const host = options.host ?? '::'
  const port = options.port ?? 0
  const address = isNumeric(host) ? host : await resolveHost(host)
  const multicast = multicastAt(address, options.multicast)
  let transport: UdpTransport
  try {
    if (multicast !== undefined && port !== 0) await assertFree(port, address)
    transport = new UdpTransport(await openSocket(port, address, { ...options, share: multicast !== undefined }))
  } catch (error) {
    // a host without IPv6
    if (options.host === undefined && (error as NodeJS.ErrnoException).code === 'EAFNOSUPPORT') {
      return bindUdp({ ...options, host: '0.0.0.0' })
    }
    throw bindError(error as NodeJS.ErrnoException, host, port)
  }
  if (multicast !== undefined || (isWildcard(address) && port !== 0)) await transport.join(multicast)
  return transport
}

function isWildcard(address: string): boolean {
  return address === '::' || address === '0.0.0.0'
}

/** A server of one address answers on the interface that has it; one on loopback reaches nobody else. */
function multicastAt(address: string, wanted: MulticastOptions | undefined): MulticastOptions | undefined {
  if (wanted === undefined || isWildcard(address)) return wanted
  const own = isLoopback(address) ? undefined : interfaceWith(address)
  const { interfaces = 'all' } = wanted
  if (own === undefined || (interfaces !== 'all' && !interfaces.includes(own))) return undefined
  return { ...wanted, interfaces: [own] }
}

/**
 * The sockets of the groups share the port with the server's, which therefore allows others to share it. Two servers
 * must not: an exclusive socket at the address (of loopback, for all addresses) tells whether somebody has the port,
 * and whoever listens to a group only is not in its way. @throws EADDRINUSE
 */
async function assertFree(port: number, address: string): Promise<void> {
  const probe = newSocket(isIPv6(address))
  const at = address === '::' ? '::1' : address === '0.0.0.0' ? '127.0.0.1' : address
  try {
    await bindSocket(probe, port, at, { recvBufferSize: 4096 })
  } catch (error) {
    // no loopback of this family tells nothing
    if ((error as NodeJS.ErrnoException).code !== 'EADDRNOTAVAIL') throw error
  } finally {
    probe.close()
  }
}

function bindError(error: NodeJS.ErrnoException, host: string, port: number): IotchainError {
  const where = `${host.includes(':') ? `[${host}]` : host}:${port}`
  switch (error.code) {
    case 'EADDRINUSE':
      return new IotchainError('coap/port-busy', `UDP port ${where} is in use by another program`, {
        hint: 'stop the other program or configure another port',
        cause: error,
      })
    case 'EACCES':
      return new IotchainError('coap/port-forbidden', `UDP port ${where} may not be used`, {
        hint: 'ports below 1024 need a capability; take a higher one',
        cause: error,
      })
    default:
      return new IotchainError('coap/bad-address', `cannot listen at ${where}: ${error.code ?? error.message}`, {
        hint: 'check that the address belongs to this host',
        cause: error,
      })
  }
}
