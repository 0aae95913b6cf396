/**
 * Sends the datagrams of one turn of the event loop in one system call (Linux: `sendmmsg`). Node's own `send` costs a
 * server a quarter of what it needs for a GET.
 */
import { loadNative } from '../native.ts'

/** What the native module offers for this, on Linux. */
export interface BatchBinding {
  /** A `struct sockaddr` with port 0; undefined for what is no numeric address without a zone. */
  socketAddress(address: string, v6: boolean): Buffer | undefined
  /** The descriptor of a bound socket, or −errno. */
  bindUdp(address: string, v6: boolean, port: number, share: boolean, spread: boolean): number
  /** How many of `count` datagrams that begin at `from` were taken. */
  sendBatch(descriptor: number, octets: Uint8Array, from: number, count: number): number
}

/** undefined where the native module is not built or the system is another: datagrams go one by one. */
export function batchBinding(): BatchBinding | undefined {
  try {
    const native = loadNative() as Partial<BatchBinding>
    return native.sendBatch === undefined ? undefined : (native as BatchBinding)
  } catch {
    return undefined
  }
}

const MOST = 64
const ROOM = 64 * 1024
const ADDRESS_OCTETS = 28
const HEADER = 1 + ADDRESS_OCTETS + 2
/** Addresses kept in the system's form. */
const ADDRESSES = 4096

interface Destination {
  readonly address: string
  readonly port: number
}

export class SendBatch<To extends Destination> {
  readonly #native: BatchBinding
  readonly #descriptor: number
  readonly #v6: boolean
  readonly #alone: (datagram: Uint8Array, to: To) => void
  readonly #octets = Buffer.alloc(ROOM)
  readonly #from = new Int32Array(MOST)
  readonly #to: To[] = []
  readonly #addresses = new Map<string, Buffer>()
  readonly #flush = (): void => this.flush()
  #end = 0

  /** @param alone sends one that cannot go with the others: of another kind, or that the socket did not take */
  constructor(native: BatchBinding, descriptor: number, v6: boolean, alone: (datagram: Uint8Array, to: To) => void) {
    this.#native = native
    this.#descriptor = descriptor
    this.#v6 = v6
    this.#alone = alone
  }

  /** The datagram is copied; it leaves before the event loop waits again. */
  add(datagram: Uint8Array, to: To): void {
    const { length } = datagram
    const address = this.#addressOf(to.address)
    if (address === undefined || length > ROOM - HEADER) {
      this.flush() // what came before leaves before
      this.#alone(datagram, to)
      return
    }
    if (this.#to.length === MOST || this.#end + HEADER + length > ROOM) this.flush()
    const octets = this.#octets
    const at = this.#end
    octets[at] = address.length
    for (let i = 0; i < address.length; i++) octets[at + 1 + i] = address[i] as number
    // sin_port and sin6_port lie at the same place
    octets[at + 3] = to.port >>> 8
    octets[at + 4] = to.port
    octets[at + HEADER - 2] = length >>> 8
    octets[at + HEADER - 1] = length
    octets.set(datagram, at + HEADER)
    this.#end = at + HEADER + length
    this.#from[this.#to.length] = at
    if (this.#to.push(to) === 1) setImmediate(this.#flush)
  }

  flush(): void {
    const to = this.#to
    const count = to.length
    if (count === 0) return
    const left: (readonly [Uint8Array, To])[] = []
    for (let next = 0; next < count; next++) {
      next += this.#native.sendBatch(this.#descriptor, this.#octets, this.#from[next] as number, count - next)
      if (next < count) left.push([this.#copy(next), to[next] as To])
    }
    to.length = 0
    this.#end = 0
    // whoever hears of a failure may send again
    for (const [datagram, one] of left) this.#alone(datagram, one)
  }

  #copy(index: number): Uint8Array {
    const at = this.#from[index] as number
    const start = at + HEADER
    return Buffer.from(this.#octets.subarray(start, start + this.#octets.readUInt16BE(start - 2)))
  }

  #addressOf(text: string): Buffer | undefined {
    const held = this.#addresses.get(text)
    if (held !== undefined) return held
    const address = this.#native.socketAddress(text, this.#v6)
    if (address === undefined) return undefined
    if (this.#addresses.size >= ADDRESSES) this.#addresses.clear()
    this.#addresses.set(text, address)
    return address
  }
}
