/**
 * Sends the datagrams of one turn of the event loop in one system call (Linux: `sendmmsg`), in order; those that the
 * socket has no room for wait, up to a bound.
 */
import { isIPv6 } from 'node:net'
import { constants } from 'node:os'
import { type Destination, systemError } from './socket.ts'

export interface BatchParts {
  /** How many of `count` datagrams that begin at `from` were taken; −errno if the first was not. */
  readonly send: (octets: Uint8Array, from: number, count: number) => number
  /** `resume` is to be called when the socket has room again. */
  readonly awaitRoom: () => void
  /** A `struct sockaddr` with port 0; undefined for what is no numeric address. */
  readonly socketAddress: (address: string) => Uint8Array | undefined
  /** One datagram was refused, and lost. */
  readonly onfailure: (errno: number) => void
}

/**
 * Before each datagram: length of the peer's address 1, the address; length of our own 1, the address that the datagram
 * leaves from; length of the datagram 2. As in native/udp.h.
 */
export const ADDRESS_OCTETS = 28
export const OWN_OCTETS = 20
export const OWN_AT = 1 + ADDRESS_OCTETS
export const LENGTH_AT = OWN_AT + 1 + OWN_OCTETS
export const HEADER = LENGTH_AT + 2
const FULL = -constants.errno.EAGAIN
const MOST = 64
const LONGEST = 0xffff
const ROOM = HEADER + LONGEST
/** Addresses kept in the system's form. */
const ADDRESSES = 4096
/** What waits for room; more is lost, as datagrams are. */
const WAITING = 4096
const WAITING_OCTETS = 1024 * 1024

export class SendBatch {
  /** While true nothing leaves by itself: whoever set it calls `flush`. */
  gathering = false
  readonly #parts: BatchParts
  readonly #octets = Buffer.allocUnsafeSlow(ROOM)
  /** Where each begins. */
  readonly #from = new Int32Array(MOST)
  readonly #addresses = new Map<string, Uint8Array>()
  readonly #leave = (): void => {
    this.#leaving = false
    this.flush()
  }
  #leaving = false
  #count = 0
  #end = 0
  /** In the form of the batch, each by itself. */
  #waiting: Uint8Array[] = []
  #waitingOctets = 0

  constructor(parts: BatchParts) {
    this.#parts = parts
  }

  /**
   * The datagram is copied; it leaves before the event loop waits again.
   * @throws EINVAL for what no datagram can be sent to, EMSGSIZE
   */
  add(datagram: Uint8Array, to: Destination): void {
    const { length } = datagram
    if (length > LONGEST) throw systemError(-constants.errno.EMSGSIZE, `send ${length} octets`)
    const address = to.system ?? this.#addressOf(to)
    if (address === undefined) {
      this.#parts.onfailure(-constants.errno.ENODEV)
      return
    }
    if (this.#count === MOST || this.#end + HEADER + length > ROOM) this.flush()
    const octets = this.#octets
    const at = this.#end
    octets[at] = address.length
    for (let i = 0; i < address.length; i++) octets[at + 1 + i] = address[i] as number
    // sin_port and sin6_port lie at the same place
    octets[at + 3] = to.port >>> 8
    octets[at + 4] = to.port
    const { own } = to
    octets[at + OWN_AT] = own === undefined ? 0 : own.length
    if (own !== undefined) for (let i = 0; i < own.length; i++) octets[at + OWN_AT + 1 + i] = own[i] as number
    octets[at + LENGTH_AT] = length >>> 8
    octets[at + LENGTH_AT + 1] = length
    octets.set(datagram, at + HEADER)
    this.#end = at + HEADER + length
    this.#from[this.#count++] = at
    if (this.gathering || this.#leaving) return
    this.#leaving = true
    setImmediate(this.#leave)
  }

  flush(): void {
    const count = this.#count
    if (count === 0) return
    const failures: number[] = []
    let next = 0
    while (next < count && this.#waiting.length === 0) {
      const taken = this.#send(this.#octets, this.#from[next] as number, count - next)
      if (taken > 0) {
        next += taken
      } else if (taken === FULL) {
        this.#parts.awaitRoom()
        break
      } else {
        failures.push(taken)
        next++
      }
    }
    for (; next < count; next++) this.#wait(next)
    this.#count = 0
    this.#end = 0
    // whoever hears of a failure may send again
    for (const errno of failures) this.#parts.onfailure(errno)
  }

  /** The socket has room again. */
  resume(): void {
    this.flush() // to the end of those that wait
    const waiting = this.#waiting
    const failures: number[] = []
    let next = 0
    for (; next < waiting.length; next++) {
      const taken = this.#send(waiting[next] as Uint8Array, 0, 1)
      if (taken === FULL) {
        this.#parts.awaitRoom()
        break
      }
      if (taken < 0) failures.push(taken)
    }
    this.#waiting = waiting.slice(next)
    this.#waitingOctets = this.#waiting.reduce((sum, { length }) => sum + length, 0)
    for (const errno of failures) this.#parts.onfailure(errno)
  }

  #send(octets: Uint8Array, from: number, count: number): number {
    const taken = this.#parts.send(octets, from, count)
    if (taken >= 0 || taken === FULL || octets[from + OWN_AT] === 0) return taken
    // the address that was asked may be ours no longer: now the system chooses
    octets[from + OWN_AT] = 0
    return this.#parts.send(octets, from, count)
  }

  #wait(index: number): void {
    const start = this.#from[index] as number
    const end = start + HEADER + this.#octets.readUInt16BE(start + LENGTH_AT)
    if (this.#waiting.length >= WAITING || this.#waitingOctets + end - start > WAITING_OCTETS) return
    this.#waitingOctets += end - start
    this.#waiting.push(Uint8Array.prototype.slice.call(this.#octets, start, end))
  }

  /** undefined where the interface of a zone is not there: like a network that is down, it may come back. */
  #addressOf({ address, port }: Destination): Uint8Array | undefined {
    const held = this.#addresses.get(address)
    const system = held ?? this.#parts.socketAddress(address)
    if (system === undefined && address.includes('%') && isIPv6(address)) return undefined
    if (system === undefined || !(port >= 0 && port <= 0xffff)) {
      throw systemError(-constants.errno.EINVAL, `send to ${address}, port ${port}`)
    }
    // the number of a zone's interface may change
    if (held === undefined && !address.includes('%')) {
      if (this.#addresses.size >= ADDRESSES) this.#addresses.clear()
      this.#addresses.set(address, system)
    }
    return system
  }
}
