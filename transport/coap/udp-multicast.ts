/**
 * What is sent to groups. A datagram does not tell its destination on Node, so each group has a socket of its own,
 * bound to the group's address, and the server's socket is made deaf to groups, where it is not so by itself: Linux hands
 * a socket bound to `::` a copy of whatever any program of the host has joined, and of what goes to all nodes (ff02::1)
 * in any case. Taken for unicast, that copy would be answered at once, with errors and resets, by everyone on the link
 * (RFC 7252 §8).
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'
import type { BoundSocket } from '../udp/socket.ts'
import { type InterfaceChoice, interfacesOf, type NetworkInterface } from './interfaces.ts'
import { COAP_PORT } from './uri.ts'

/** All CoAP nodes (RFC 7252 §12.8). */
export const ALL_COAP_LINK_LOCAL = 'ff02::fd'
export const ALL_COAP_SITE_LOCAL = 'ff05::fd'
export const ALL_COAP_IPV4 = '224.0.1.187'
export const COAP_GROUPS = [ALL_COAP_LINK_LOCAL, ALL_COAP_IPV4] as const

const DEAF_TO_V6 = ['ff02::1', ALL_COAP_LINK_LOCAL, ALL_COAP_SITE_LOCAL]
const DEAF_TO_V4 = ['224.0.0.1', ALL_COAP_IPV4]

export interface MulticastOptions {
  /** Default: the link-local group of all CoAP nodes and the IPv4 one. */
  readonly groups?: readonly string[] | undefined
  /** Default `all`. Those that come up later are joined then. */
  readonly interfaces?: InterfaceChoice | undefined
  /** Groups are asked at the standard port, wherever the server itself listens. */
  readonly port?: number | undefined
  /** Told with `coap/multicast` when a group cannot be listened to; once for each. */
  readonly onFailure?: ((error: IotchainError) => void) | undefined
}

export interface MulticastParts {
  /** The server's own socket, bound. */
  readonly socket: Pick<BoundSocket, 'address' | 'admit'>
  readonly onmessage: (datagram: Buffer, remote: RemoteInfo) => void
}

/** Interfaces come and go: Wi-Fi, a cable, a boot before the network is up. */
const LOOK_MS = 10_000

export class MulticastReceiver {
  readonly #parts: MulticastParts
  /** undefined: only deaf. */
  readonly #options: MulticastOptions | undefined
  readonly #v6: boolean
  /** By the address that they are bound to, with its zone. */
  readonly #sockets = new Map<string, Socket>()
  /** `ff02::fd%eth0` → number of the interface. */
  readonly #joined = new Map<string, number | undefined>()
  readonly #failed = new Set<string>()
  readonly #deaf = new Set<string>()
  readonly #timer: NodeJS.Timeout
  #looking = false
  #closed = false

  private constructor(parts: MulticastParts, options: MulticastOptions | undefined) {
    this.#parts = parts
    this.#options = options
    this.#v6 = isIPv6(parts.socket.address.address)
    this.#timer = setInterval(() => void this.#look().catch(() => undefined), LOOK_MS)
    this.#timer.unref()
  }

  /** Listens to the groups, or without `options` only sees to it that the server does not. */
  static async open(parts: MulticastParts, options: MulticastOptions | undefined): Promise<MulticastReceiver> {
    const receiver = new MulticastReceiver(parts, options)
    await receiver.#look()
    return receiver
  }

  /** `ff02::fd%eth0`, … */
  get joined(): readonly string[] {
    return [...this.#joined.keys()]
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    const sockets = [...this.#sockets.values()]
    this.#sockets.clear()
    await Promise.all(sockets.map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))))
  }

  async #look(): Promise<void> {
    this.#deafen()
    if (this.#options === undefined || this.#looking || this.#closed) return
    this.#looking = true
    try {
      await this.#follow(this.#options)
    } finally {
      this.#looking = false
    }
  }

  /** Joins what is new, leaves what is gone. */
  async #follow(options: MulticastOptions): Promise<void> {
    const { groups = COAP_GROUPS, interfaces = 'all' } = options
    const wanted = new Map<string, { group: string; on: NetworkInterface }>()
    for (const on of interfacesOf(interfaces)) {
      for (const group of groups) {
        const v6 = isIPv6(group)
        // who could not be answered need not be heard: a socket of IPv4 reaches nobody on IPv6
        if (v6 ? on.ipv6 && this.#v6 : on.ipv4 !== undefined) wanted.set(`${group}%${on.name}`, { group, on })
      }
    }
    for (const [name, index] of this.#joined) if (wanted.get(name)?.on.index !== index) this.#leave(name)
    for (const [name, { group, on }] of wanted) {
      if (this.#closed || this.#joined.has(name)) continue
      try {
        await this.#join(group, on)
        this.#joined.set(name, on.index)
        this.#failed.delete(name)
      } catch (cause) {
        this.#fail(name, cause)
      }
    }
  }

  async #join(group: string, on: NetworkInterface): Promise<void> {
    const v6 = isIPv6(group)
    const socket = await this.#socket(bindingOf(group, on.name), v6)
    try {
      socket.addMembership(group, v6 ? `::%${on.name}` : on.ipv4)
    } catch (error) {
      // the interface has another address than before, and is in the group all the same
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    }
  }

  async #socket(address: string, v6: boolean): Promise<Socket> {
    const held = this.#sockets.get(address)
    if (held !== undefined) return held
    const socket = createSocket({ type: v6 ? 'udp6' : 'udp4', reuseAddr: true })
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('error', reject)
        socket.bind({ port: this.#options?.port ?? COAP_PORT, address }, () => {
          socket.off('error', reject)
          resolve()
        })
      })
    } catch (error) {
      socket.close()
      throw error
    }
    socket.on('error', () => {})
    const mapped = !v6 && this.#v6
    socket.on('message', (datagram, remote) => {
      this.#parts.onmessage(datagram, mapped ? { ...remote, address: `::ffff:${remote.address}` } : remote)
    })
    if (this.#closed) socket.close()
    else this.#sockets.set(address, socket)
    return socket
  }

  /** The interface is gone, and with it the membership; should it come back, it is joined again. */
  #leave(name: string): void {
    this.#joined.delete(name)
    const socket = this.#sockets.get(name)
    if (socket === undefined) return
    this.#sockets.delete(name)
    socket.close()
  }

  #fail(name: string, cause: unknown): void {
    if (this.#failed.has(name)) return
    this.#failed.add(name)
    const error = new IotchainError('coap/multicast', `cannot listen to the multicast group ${name}`, {
      hint: 'another program may hold the port for itself; discovery and broadcasts by multicast do not work there',
      cause,
    })
    this.#options?.onFailure?.(error)
  }

  /**
   * A membership that admits one source only, and one that never sends: whatever else goes to the group is not for
   * this socket. IPv6 asks for the group alone, IPv4 for group and interface.
   */
  #deafen(): void {
    const { socket } = this.#parts
    if (socket.admit === undefined) return
    const groups = this.#v6 ? DEAF_TO_V6 : DEAF_TO_V4
    const source = this.#v6 ? '::1' : '127.0.0.1'
    for (const { name, ipv4 } of interfacesOf('all')) {
      const way = this.#v6 ? `::%${name}` : ipv4
      for (const group of groups) {
        const once = this.#v6 ? group : `${group}%${name}`
        if (this.#deaf.has(once) || way === undefined) continue
        try {
          socket.admit(group, source, way)
          this.#deaf.add(once)
        } catch {
          // this interface has no such family, or the socket is closed: another look follows
        }
      }
    }
  }
}

/** Groups of a link have a zone in their address; wider ones are one socket with a membership for each interface. */
function bindingOf(group: string, interfaceName: string): string {
  return /^ff[0-9a-f][12]:/i.test(group) ? `${group}%${interfaceName}` : group
}
