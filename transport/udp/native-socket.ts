/**
 * A server's UDP socket by the native module, on Linux: all datagrams that wait come with one system call and one call
 * of JavaScript (`recvmmsg`), and their answers go together (`send-batch.ts`). Node's dgram spends more on each than the
 * whole of a CoAP engine.
 */
import { loadNative } from '../native.ts'
import { UdpPeer } from './peer.ts'
import { ADDRESS_OCTETS, HEADER, LENGTH_AT, OWN_AT, OWN_OCTETS, SendBatch } from './send-batch.ts'
import {
  type BoundSocket,
  type Destination,
  RECV_BUFFER_OCTETS,
  type SocketCallbacks,
  type SocketOptions,
  systemError,
} from './socket.ts'

/** A bound socket of the native module. */
export type UdpHandle = object & { readonly udp?: never }

/** What the native module offers for this, on Linux. Numbers below 0 are −errno. */
export interface UdpBinding {
  openUdp(address: string, v6: boolean, port: number, share: boolean, spread: boolean): UdpHandle | number
  /** Its `struct sockaddr`; undefined once it is closed. */
  udpAddress(udp: UdpHandle): Buffer | undefined
  udpRoom(udp: UdpHandle, octets: number): number
  /** `callback(count, octets)`: datagrams in the first `octets` of `space`; 0: room to send again; −errno. */
  readUdp(udp: UdpHandle, space: Uint8Array, callback: (count: number, octets: number) => void): number
  /** The callback is told when there is room again. */
  awaitRoom(udp: UdpHandle): void
  closeUdp(udp: UdpHandle): void
  /** How many of `count` datagrams that begin at `from` were taken; −errno if the first was not. */
  sendBatch(udp: UdpHandle, octets: Uint8Array, from: number, count: number): number
  /** A `struct sockaddr` with port 0; undefined for what is no numeric address. */
  socketAddress(address: string, v6: boolean): Buffer | undefined
  addressText(address: Uint8Array): string | undefined
}

/** undefined where the native module is not built or the system is another: there Node's sockets serve. */
export function udpBinding(): UdpBinding | undefined {
  try {
    const native = loadNative() as Partial<UdpBinding>
    return native.openUdp === undefined ? undefined : (native as UdpBinding)
  } catch {
    return undefined
  }
}

/** Sixteen of the longest datagrams; pages that nothing long came to are never touched. */
const SPACE = 16 * (64 * 1024 + HEADER)
const PEERS = 512
/** In `struct sockaddr_in` and `sockaddr_in6` alike, in network order. */
const PORT_AT = 2

/** Binds. @throws the system's error, as `ErrnoException` */
export function bindNative(native: UdpBinding, port: number, address: string, options: SocketOptions): NativeSocket {
  const v6 = address.includes(':')
  const udp = native.openUdp(address, v6, port, options.share === true, options.reusePort === true)
  if (typeof udp === 'number') throw systemError(udp, `bind ${address}:${port}`)
  // the system may grant less: bursts are lost earlier, CoAP repeats them
  native.udpRoom(udp, options.recvBufferSize ?? RECV_BUFFER_OCTETS)
  return new NativeSocket(native, udp, v6)
}

export class NativeSocket implements BoundSocket {
  readonly gives = false
  readonly address: { readonly address: string; readonly port: number }
  readonly #native: UdpBinding
  readonly #udp: UdpHandle
  readonly #batch: SendBatch
  readonly #space = Buffer.allocUnsafeSlow(SPACE)
  /** Those who sent last, by the hash of their addresses. */
  readonly #peers = new Array<UdpPeer | undefined>(PEERS).fill(undefined)
  #callbacks: SocketCallbacks | undefined

  constructor(native: UdpBinding, udp: UdpHandle, v6: boolean) {
    this.#native = native
    this.#udp = udp
    this.address = addressOf(native, native.udpAddress(udp) as Buffer)
    this.#batch = new SendBatch({
      send: (octets, from, count) => native.sendBatch(udp, octets, from, count),
      awaitRoom: () => native.awaitRoom(udp),
      socketAddress: (address) => native.socketAddress(address, v6),
      onfailure: (errno) => this.#callbacks?.onfailure(systemError(errno, 'send')),
    })
  }

  start(callbacks: SocketCallbacks): void {
    this.#callbacks = callbacks
    const fault = this.#native.readUdp(this.#udp, this.#space, (count, octets) => this.#read(count, octets))
    if (fault === 0) return
    this.#native.closeUdp(this.#udp)
    throw systemError(fault, 'recv')
  }

  send(datagram: Uint8Array, to: Destination): void {
    this.#batch.add(datagram, to)
  }

  async close(): Promise<void> {
    this.#batch.flush()
    this.#callbacks = undefined
    this.#native.closeUdp(this.#udp)
  }

  #read(count: number, end: number): void {
    if (count < 0) {
      this.#callbacks?.onfailure(systemError(count, 'recv'))
      return
    }
    const batch = this.#batch
    if (count === 0) {
      batch.resume()
      return
    }
    // the answers of one turn leave with its end
    batch.gathering = true
    try {
      const space = this.#space
      for (let at = 0; at < end; ) {
        const start = at + HEADER
        const next = start + (((space[at + LENGTH_AT] as number) << 8) | (space[at + LENGTH_AT + 1] as number))
        try {
          this.#callbacks?.onmessage(space.subarray(start, next), this.#peerAt(at))
        } catch (error) {
          // what others sent does not pay for it
          process.nextTick(raise, error)
        }
        at = next
      }
    } finally {
      batch.gathering = false
      batch.flush()
    }
  }

  #peerAt(at: number): UdpPeer {
    const space = this.#space
    const start = at + 1
    const end = start + Math.min(space[at] as number, ADDRESS_OCTETS)
    const own = at + OWN_AT + 1
    const ownEnd = own + Math.min(space[own - 1] as number, OWN_OCTETS)
    let hash = 0x811c9dc5
    for (let i = start + PORT_AT; i < end; i++) hash = Math.imul(hash ^ (space[i] as number), 0x01000193)
    const place = (hash >>> 0) % PEERS
    const known = this.#peers[place]
    if (known !== undefined && isAt(known.system, space, start, end) && isAt(known.own, space, own, ownEnd))
      return known
    const system = Uint8Array.prototype.slice.call(space, start, end)
    const { address, port } = addressOf(this.#native, system)
    const arrived = ownEnd > own ? Uint8Array.prototype.slice.call(space, own, ownEnd) : undefined
    // an interface may come back with another number, or get another name: this peer is looked up for each datagram
    if (address.includes('%')) return new UdpPeer(address, port, undefined, arrived)
    const peer = new UdpPeer(address, port, system, arrived)
    this.#peers[place] = peer
    return peer
  }
}

/** As if each datagram had come by itself. */
function raise(error: unknown): never {
  throw error
}

function isAt(octets: Uint8Array | undefined, space: Uint8Array, start: number, end: number): boolean {
  if (octets === undefined) return start === end
  if (octets.length !== end - start) return false
  for (let i = 0; i < octets.length; i++) if (octets[i] !== space[start + i]) return false
  return true
}

function addressOf(native: UdpBinding, system: Uint8Array): { address: string; port: number } {
  const port = ((system[PORT_AT] as number) << 8) | (system[PORT_AT + 1] as number)
  return { address: native.addressText(system) ?? '', port }
}
