/**
 * Receives what is sent to groups. A datagram does not tell its destination on Node, so each group has a socket of
 * its own, bound to the group's address. Linux also hands a copy to a socket bound to `::` (IPV6_MULTICAST_ALL);
 * that copy is recognised and dropped, or it would be answered at once by everyone in the group.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'

export interface MulticastGroup {
  /** `ff02::fd`, `ff05::fd` or `224.0.1.187` (RFC 7252 §12.8). */
  readonly address: string
  /** An interface name (IPv6), or an address of the interface (IPv4); default the system's choice. */
  readonly interface?: string | undefined
}

/** All CoAP nodes. */
export const ALL_COAP_LINK_LOCAL = 'ff02::fd'
export const ALL_COAP_SITE_LOCAL = 'ff05::fd'
export const ALL_COAP_IPV4 = '224.0.1.187'

/** Both copies of a datagram arrive in the same moment, in any order. */
const COPY_MS = 5
const REMEMBERED = 256

export class MulticastReceiver {
  readonly #sockets: Socket[] = []
  readonly #seen = new Map<string, number>()
  readonly #held = new Set<NodeJS.Timeout>()

  /** @throws `coap/multicast` */
  static async open(
    groups: readonly MulticastGroup[],
    port: number,
    onmessage: (datagram: Buffer, remote: RemoteInfo) => void,
  ): Promise<MulticastReceiver> {
    const receiver = new MulticastReceiver()
    try {
      for (const group of groups) await receiver.#join(group, port, onmessage)
    } catch (cause) {
      await receiver.close()
      throw new IotchainError('coap/multicast', 'cannot listen to the multicast group', {
        hint: 'name an interface that is up and has an address of the same family',
        cause,
      })
    }
    return receiver
  }

  /** Calls `take` unless the same octets from the same source came to a group: only a NON can have. */
  unlessSeen(datagram: Buffer, remote: RemoteInfo, take: () => void): void {
    if (((datagram[0] ?? 0) & 0x30) !== 0x10) {
      take()
      return
    }
    const timer = setTimeout(() => {
      this.#held.delete(timer)
      if (!this.#seen.has(keyOf(datagram, remote))) take()
    }, COPY_MS)
    this.#held.add(timer)
  }

  async close(): Promise<void> {
    for (const timer of this.#held) clearTimeout(timer)
    this.#held.clear()
    await Promise.all(this.#sockets.map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))))
  }

  async #join(
    group: MulticastGroup,
    port: number,
    onmessage: (datagram: Buffer, remote: RemoteInfo) => void,
  ): Promise<void> {
    const v6 = isIPv6(group.address)
    const socket = createSocket({ type: v6 ? 'udp6' : 'udp4', reuseAddr: true })
    this.#sockets.push(socket)
    const zone = v6 && group.interface !== undefined ? `%${group.interface}` : ''
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind({ port, address: `${group.address}${zone}` }, () => {
        socket.off('error', reject)
        resolve()
      })
    })
    socket.on('error', () => {})
    socket.addMembership(group.address, v6 ? (zone === '' ? undefined : `::${zone}`) : group.interface)
    socket.on('message', (datagram, remote) => {
      this.#remember(keyOf(datagram, remote))
      onmessage(datagram, remote)
    })
  }

  #remember(key: string): void {
    const now = Date.now()
    this.#seen.delete(key)
    this.#seen.set(key, now)
    for (const [old, at] of this.#seen) {
      if (this.#seen.size <= REMEMBERED && now - at < 10 * COPY_MS) return
      this.#seen.delete(old)
    }
  }
}

function keyOf(datagram: Buffer, remote: RemoteInfo): string {
  return `${remote.address}|${remote.port}|${datagram.toString('latin1')}`
}
