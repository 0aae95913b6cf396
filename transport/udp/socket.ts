/**
 * The UDP socket of a server: what CoAP and DTLS ask of one, and Node's dgram as such. On Linux the native module has a
 * better one (`native-socket.ts`).
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { getSystemErrorName } from 'node:util'
import { UdpPeer } from './peer.ts'

export interface Destination {
  readonly address: string
  readonly port: number
  readonly system?: Uint8Array | undefined
  readonly own?: Uint8Array | undefined
}

export interface SocketCallbacks {
  /** `datagram` is lent for the time of the call, unless the socket `gives` it. */
  readonly onmessage: (datagram: Buffer, peer: UdpPeer) => void
  /** The network refused a datagram. Nobody is given up for one refusal: a network that is down comes back. */
  readonly onfailure: (error: Error) => void
}

export interface BoundSocket {
  readonly address: { readonly address: string; readonly port: number }
  /** A datagram is not touched again, once it was received. */
  readonly gives: boolean
  /** Begins to read. */
  start(callbacks: SocketCallbacks): void
  /** @throws for an address or port that the system cannot use */
  send(datagram: Uint8Array, to: Destination): void
  close(): Promise<void>
  /**
   * A membership that admits one source; not there on a socket that hears no groups in any case.
   * @param way an address of the interface (IPv4), or `::%eth0` @throws the system's error
   */
  admit?(group: string, source: string, way: string): void
}

export interface SocketOptions {
  /** Others may share the port. */
  readonly share?: boolean | undefined
  readonly reusePort?: boolean | undefined
  readonly recvBufferSize?: number | undefined
}

export function systemError(errno: number, what: string): NodeJS.ErrnoException {
  const code = getSystemErrorName(errno)
  return Object.assign(new Error(`${what}: ${code}`), { code, errno })
}

/** Bursts of some hundred clients are not lost. */
export const RECV_BUFFER_OCTETS = 1024 * 1024

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

export function newSocket(v6: boolean, options: SocketOptions = {}): Socket {
  return createSocket({
    type: v6 ? 'udp6' : 'udp4',
    lookup: numericLookup,
    reuseAddr: options.share === true,
    ...(options.reusePort === true ? { reusePort: true } : {}),
  })
}

/** @throws the system's error, as `ErrnoException` */
export function bindSocket(socket: Socket, port: number, address: string, options: SocketOptions = {}): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.bind({ port, address }, () => {
      socket.off('error', reject)
      try {
        socket.setRecvBufferSize(options.recvBufferSize ?? RECV_BUFFER_OCTETS)
      } catch {
        // the system grants less: bursts are lost earlier, CoAP repeats them
      }
      resolve()
    })
  })
}

export class NodeSocket implements BoundSocket {
  readonly gives = true
  readonly #socket: Socket

  /** @param socket bound */
  constructor(socket: Socket) {
    this.#socket = socket
  }

  get address(): { readonly address: string; readonly port: number } {
    const { address, port } = this.#socket.address()
    return { address, port }
  }

  start({ onmessage, onfailure }: SocketCallbacks): void {
    this.#socket.on('message', (datagram: Buffer, { address, port }: RemoteInfo) =>
      onmessage(datagram, new UdpPeer(address, port)),
    )
    // ICMP and the like: a datagram is lost, no reason to end the process
    this.#socket.on('error', (error) => onfailure(error))
  }

  send(datagram: Uint8Array, to: Destination): void {
    this.#socket.send(datagram, to.port, to.address)
  }

  admit(group: string, source: string, way: string): void {
    this.#socket.addSourceSpecificMembership(source, group, way)
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#socket.close(() => resolve()))
  }
}
