/** CoAP over UDP (RFC 7252 §10 leaves the socket to us). */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { isIP, isIPv6 } from 'node:net'
import { getSystemErrorName } from 'node:util'
import { IotchainError } from '../../protocol/errors.ts'
import { hasNot, interfaceWith } from './interfaces.ts'
import { isLoopback } from './source-prefix.ts'
import type { DatagramTransport, Peer } from './transport.ts'
import { type BatchBinding, batchBinding, SendBatch } from './udp-batch.ts'
import { type MulticastOptions, MulticastReceiver } from './udp-multicast.ts'

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

export const RECV_BUFFER_OCTETS = 1024 * 1024
/** After so long without an answer a connected socket looks whether one of its two ends has another address by now. */
const QUIET_MS = 5000

class UdpPeer implements Peer {
  readonly address: string
  readonly port: number
  readonly secure = undefined
  #key: string | undefined

  constructor(address: string, port: number) {
    this.address = address
    this.port = port
  }

  // most datagrams are answered without anybody asking for the key
  get key(): string {
    this.#key ??= `${this.address}|${this.port}`
    return this.#key
  }
}

/**
 * Every address here is numeric: the resolver and its turn of the event loop per datagram are not needed. The socket
 * knows its family and does not look at the one given.
 */
function numericLookup(
  address: string,
  _options: unknown,
  callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void,
): void {
  callback(null, address, 0)
}

export class UdpTransport implements DatagramTransport {
  onmessage: DatagramTransport['onmessage']
  onpeergone?: ((peer: Peer) => void) | undefined
  onunreachable?: ((peer: Peer | undefined, cause: Error) => void) | undefined
  readonly #socket: Socket
  readonly #connected: Peer | undefined
  /** As it was given: a name may come to mean another address. */
  readonly #server: string | undefined
  /** The server's address at present; its peer keeps the first, by which answers are matched. */
  #at: string | undefined
  /** Of the first datagram that is not answered, or the last look. */
  #askedMs: number | undefined
  readonly #batch: SendBatch<Peer> | undefined
  #multicast: MulticastReceiver | undefined
  #closed = false
  /** Datagrams with source port 0, which nobody can answer. */
  fromPortZero = 0

  /**
   * @param server name or address of `connected`: both ends of the socket may move; without it they stay
   * @param batches the socket's descriptor, where many datagrams can go at once
   */
  constructor(
    socket: Socket,
    connected?: Peer,
    server?: string,
    batches?: { readonly native: BatchBinding; readonly descriptor: number },
  ) {
    this.#socket = socket
    if (batches !== undefined) {
      const v6 = isIPv6(socket.address().address)
      this.#batch = new SendBatch(batches.native, batches.descriptor, v6, (datagram, peer) =>
        this.#alone(datagram, peer),
      )
    }
    this.#connected = connected
    this.#server = server
    this.#at = connected?.address
    socket.on('message', (datagram: Buffer, remote: RemoteInfo) => this.#receive(datagram, remote))
    // ICMP and the like: a datagram is lost, no reason to end the process
    socket.on('error', (error) => this.onunreachable?.(this.#connected, error))
  }

  get address(): { readonly address: string; readonly port: number } {
    const { address, port } = this.#socket.address()
    return { address, port }
  }

  /**
   * The peer at a host name or address.
   * @throws `coap/unknown-host`
   */
  async peer(host: string, port: number): Promise<Peer> {
    if (this.#connected !== undefined) return this.#connected
    return resolvePeer(host, port, isIPv6(this.#socket.address().address))
  }

  send(datagram: Uint8Array, peer: Peer): void {
    if (this.#closed || peer.port === 0) return
    try {
      if (this.#server !== undefined) this.#follow(this.#server)
      if (this.#batch !== undefined) this.#batch.add(datagram, peer)
      else if (this.#connected === undefined) this.#alone(datagram, peer)
      else this.#socket.send(datagram, (error) => error && this.onunreachable?.(peer, error))
    } catch (error) {
      // an address that the system cannot use at all
      this.onunreachable?.(peer, error as Error)
    }
  }

  #alone(datagram: Uint8Array, peer: Peer): void {
    try {
      this.#socket.send(datagram, peer.port, peer.address)
    } catch (error) {
      this.onunreachable?.(peer, error as Error)
    }
  }

  /** Listens to groups; without options it only takes care that what goes to groups is not taken for unicast. */
  async join(options?: MulticastOptions): Promise<void> {
    const onmessage = (datagram: Buffer, remote: RemoteInfo): void => {
      if (remote.port !== 0) this.onmessage?.(datagram, new UdpPeer(remote.address, remote.port), true)
    }
    this.#multicast = await MulticastReceiver.open({ socket: this.#socket, onmessage }, options)
  }

  /** The groups that are listened to now, each with its interface: `ff02::fd%eth0`. */
  get groups(): readonly string[] {
    return this.#multicast?.joined ?? []
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#batch?.flush()
    this.#closed = true
    await this.#multicast?.close()
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
    const at = this.#at as string
    if (hasNot(this.#socket.address().address)) this.#connect(at)
    if (isIP(server.split('%')[0] as string) !== 0) return
    lookup(server, { family: isIPv6(at) ? 6 : 4 }).then(
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
    const { port } = this.#connected as Peer
    this.#socket.connect(port, address, (error?: Error | null) => {
      if (error) this.onunreachable?.(this.#connected, error)
    })
  }

  #receive(datagram: Buffer, remote: RemoteInfo): void {
    this.#askedMs = undefined
    if (remote.port === 0) {
      this.fromPortZero++
      return
    }
    this.onmessage?.(datagram, this.#connected ?? new UdpPeer(remote.address, remote.port), false)
  }
}

/**
 * Binds a socket for a server, or for a client of many.
 * @throws `coap/port-busy`, `coap/port-forbidden`, `coap/bad-address`
 */
export async function bindUdp(options: UdpOptions = {}): Promise<UdpTransport> {
  const host = options.host ?? '::'
  const port = options.port ?? 0
  const address = isIP(host.split('%')[0] as string) === 0 ? await resolveHost(host) : host
  const everywhere = isWildcard(address)
  const multicast = multicastAt(address, options.multicast)
  const socket = newSocket(isIPv6(address), { ...options, multicast })
  const native = address.includes('%') ? undefined : batchBinding()
  let descriptor: number | undefined
  try {
    if (multicast !== undefined && port !== 0) await assertFree(port, address)
    descriptor = native && boundDescriptor(native, port, address, { ...options, multicast })
    await bind(socket, port, address, options, descriptor)
  } catch (error) {
    socket.close()
    // a host without IPv6
    if (options.host === undefined && (error as NodeJS.ErrnoException).code === 'EAFNOSUPPORT') {
      return bindUdp({ ...options, host: '0.0.0.0' })
    }
    throw bindError(error as NodeJS.ErrnoException, host, port)
  }
  if (options.multicastInterface !== undefined) socket.setMulticastInterface(options.multicastInterface)
  if (options.multicastHops !== undefined) socket.setMulticastTTL(options.multicastHops)
  const batches = native && descriptor !== undefined ? { native, descriptor } : undefined
  const transport = new UdpTransport(socket, undefined, undefined, batches)
  if (multicast !== undefined || (everywhere && port !== 0)) await transport.join(multicast)
  return transport
}

/**
 * A socket for one server: only its datagrams arrive, and the system tells when nothing listens there.
 * @throws `coap/unknown-host`, `coap/bad-address`
 */
export async function connectUdp(
  host: string,
  port: number,
  options: Omit<UdpOptions, 'multicast'> = {},
): Promise<UdpTransport> {
  const peer = await resolvePeer(host, port, false)
  const socket = newSocket(isIPv6(peer.address), options)
  const transport = new UdpTransport(socket, peer, options.host === undefined ? host : undefined)
  try {
    if (options.host !== undefined || options.port !== undefined) {
      await bind(socket, options.port ?? 0, options.host ?? (isIPv6(peer.address) ? '::' : '0.0.0.0'), options)
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

function newSocket(v6: boolean, options: UdpOptions): Socket {
  return createSocket({
    type: v6 ? 'udp6' : 'udp4',
    lookup: numericLookup,
    reuseAddr: options.multicast !== undefined,
    ...(options.reusePort === true ? { reusePort: true } : {}),
  })
}

/** A socket bound as `bind` would, but whose descriptor is known. @throws as `bind` */
function boundDescriptor(native: BatchBinding, port: number, address: string, options: UdpOptions): number {
  const share = options.multicast !== undefined
  const descriptor = native.bindUdp(address, isIPv6(address), port, share, options.reusePort === true)
  if (descriptor >= 0) return descriptor
  const code = getSystemErrorName(descriptor)
  throw Object.assign(new Error(`bind ${code} ${address}:${port}`), { code, address, port })
}

function bind(socket: Socket, port: number, address: string, options: UdpOptions, descriptor?: number): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.bind(descriptor === undefined ? { port, address } : { fd: descriptor, exclusive: true }, () => {
      socket.off('error', reject)
      setRecvBufferSize(socket, options.recvBufferSize ?? RECV_BUFFER_OCTETS)
      resolve()
    })
  })
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
  const probe = createSocket({ type: isIPv6(address) ? 'udp6' : 'udp4' })
  const at = address === '::' ? '::1' : address === '0.0.0.0' ? '127.0.0.1' : address
  try {
    await bind(probe, port, at, { recvBufferSize: 4096 })
  } catch (error) {
    // no loopback of this family tells nothing
    if ((error as NodeJS.ErrnoException).code !== 'EADDRNOTAVAIL') throw error
  } finally {
    probe.close()
  }
}

function setRecvBufferSize(socket: Socket, octets: number): void {
  try {
    socket.setRecvBufferSize(octets)
  } catch {
    // the system grants less: bursts are lost earlier, CoAP repeats them
  }
}

async function resolvePeer(host: string, port: number, v6Socket: boolean): Promise<Peer> {
  const address = isIP(host.split('%')[0] as string) === 0 ? await resolveHost(host) : host
  return new UdpPeer(v6Socket && !isIPv6(address) ? `::ffff:${address}` : address, port)
}

async function resolveHost(host: string): Promise<string> {
  try {
    return (await lookup(host)).address
  } catch (cause) {
    throw new IotchainError('coap/unknown-host', `the host ${host} is not known`, {
      hint: 'check the name and the network',
      cause,
    })
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
