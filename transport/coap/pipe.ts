/**
 * An in-memory network of datagrams that loses, repeats, delays and reorders them by a seed: for tests and for
 * programs that want CoAP within one process. The same seed and the same traffic give the same faults.
 */
import { systemTimers, type Timers } from './timers.ts'
import type { DatagramTransport, Peer } from './transport.ts'

export interface PipeOptions {
  /** Probability that a datagram is lost, 0 … 1. */
  readonly loss?: number | undefined
  /** Probability that a datagram arrives a second time, later. */
  readonly duplicate?: number | undefined
  /** Probability that a datagram is held back for several latencies. */
  readonly reorder?: number | undefined
  readonly latencyMs?: number | undefined
  readonly seed?: number | undefined
  readonly timers?: Timers | undefined
}

export class PipePeer implements Peer {
  readonly key: string
  readonly address: string
  readonly port: number
  readonly secure = undefined

  constructor(address: string, port: number) {
    this.address = address
    this.port = port
    this.key = `${address}|${port}`
  }
}

export class PipeNetwork {
  readonly #options: PipeOptions
  readonly #timers: Timers
  readonly #random: () => number
  readonly #transports = new Map<string, PipeTransport>()
  /** Sees every datagram that is sent; return false to lose it. */
  filter: ((datagram: Uint8Array, from: Peer, to: Peer) => boolean) | undefined

  constructor(options: PipeOptions = {}) {
    this.#options = options
    this.#timers = options.timers ?? systemTimers
    this.#random = seededRandom(options.seed ?? 1)
  }

  attach(address: string, port: number): PipeTransport {
    const transport = new PipeTransport(this, new PipePeer(address, port))
    this.#transports.set(transport.self.key, transport)
    return transport
  }

  detach(transport: PipeTransport): void {
    if (this.#transports.get(transport.self.key) === transport) this.#transports.delete(transport.self.key)
  }

  /** Sends octets from any source address: also one that is not attached. */
  carry(datagram: Uint8Array, from: Peer, to: Peer): void {
    if (this.filter?.(datagram, from, to) === false) return
    const { loss = 0, duplicate = 0, reorder = 0, latencyMs = 0 } = this.#options
    if (this.#random() < loss) return
    const copies = this.#random() < duplicate ? 2 : 1
    for (let i = 0; i < copies; i++) {
      const held = this.#random() < reorder ? 1 + 4 * this.#random() : 0
      const delayMs = latencyMs + (held + i * 2) * Math.max(latencyMs, 1)
      const copy = Buffer.from(datagram)
      this.#timers.after(delayMs, () => lend(copy, this.#transports.get(to.key), from, false))
    }
  }

  /** Delivers octets as if they had been sent to a group. */
  carryMulticast(datagram: Uint8Array, from: Peer): void {
    for (const transport of [...this.#transports.values()]) {
      if (transport.self.key === from.key) continue
      const copy = Buffer.from(datagram)
      this.#timers.after(this.#options.latencyMs ?? 0, () => lend(copy, transport, from, true))
    }
  }
}

/** As a real socket does: after the call the octets are others. */
function lend(datagram: Buffer, transport: PipeTransport | undefined, from: Peer, multicast: boolean): void {
  transport?.onmessage?.(datagram, from, multicast)
  datagram.fill(0xee)
}

export class PipeTransport implements DatagramTransport {
  onmessage: DatagramTransport['onmessage']
  onpeergone?: ((peer: Peer) => void) | undefined
  onunreachable?: ((peer: Peer | undefined, cause: Error) => void) | undefined
  readonly self: PipePeer
  readonly #network: PipeNetwork
  #closed = false

  constructor(network: PipeNetwork, self: PipePeer) {
    this.#network = network
    this.self = self
  }

  get address(): { readonly address: string; readonly port: number } {
    return this.self
  }

  /** The other end at `address`, whether or not anything is attached there. */
  peer(address: string, port: number): Peer {
    return new PipePeer(address, port)
  }

  send(datagram: Uint8Array, peer: Peer): void {
    if (this.#closed) return
    if (peer.address === PIPE_GROUP) this.#network.carryMulticast(datagram, this.self)
    else this.#network.carry(datagram, this.self, peer)
  }

  close(): Promise<void> {
    this.#closed = true
    this.#network.detach(this)
    return Promise.resolve()
  }
}

/** Datagrams to this address reach everything on a `PipeNetwork`. */
export const PIPE_GROUP = 'ff02::fd'

/** Two transports that see only each other, at loopback addresses (so that both count as verified). */
export function createPipe(options: PipeOptions = {}): [PipeTransport, PipeTransport] {
  const network = new PipeNetwork(options)
  return [network.attach('127.0.0.1', 5683), network.attach('127.0.0.1', 49_152)]
}

/** mulberry32: small, seeded, good enough for faults and never for keys. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}
