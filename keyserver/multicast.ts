/**
 * Sends each broadcast to a group on the local network too: NON POST /bc/{gid} with B as payload, no response wanted
 * (RFC 7967), on each interface or the one that is named. Members take it exactly like one that they fetched.
 */
import { isIPv6 } from 'node:net'
import type { Logger } from '../runtime/log.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import type { CoapEndpoint } from '../transport/coap/endpoint.ts'
import { interfacesOf } from '../transport/coap/interfaces.ts'
import { openTowards } from '../transport/coap/neighbourhood.ts'
import type { Peer } from '../transport/coap/transport.ts'
import type { HostPort } from './config.ts'

/** A broadcast that needs several datagrams is fetched, not pushed. */
const MAX_OCTETS = 1024

interface Way {
  readonly endpoint: CoapEndpoint
  readonly group: Peer
}

export class BroadcastMulticast {
  readonly #group: HostPort
  readonly #interface: string | undefined
  readonly #log: Logger
  /** By interface and address: they come and go while the key server runs. */
  readonly #ways = new Map<string, Promise<Way>>()
  #closed = false

  /** @param networkInterface its name; default each one, when there is one */
  constructor(group: HostPort, networkInterface: string | undefined, log: Logger) {
    this.#group = group
    this.#interface = networkInterface
    this.#log = log
  }

  send(groupName: string, bytes: Uint8Array): void {
    if (bytes.length > MAX_OCTETS) {
      this.#log.limited(
        'multicast',
        'info',
        { octets: bytes.length },
        'a broadcast is too long to be sent by multicast',
      )
      return
    }
    const ways = this.#present()
    if (ways.length === 0) {
      this.#log.limited(
        'multicast',
        'warn',
        { interface: this.#interface },
        'no network interface to send broadcasts to',
      )
    }
    for (const way of ways) {
      way
        .then(({ endpoint, group }) => {
          if (this.#closed) return
          endpoint.tell(group, { path: ['bc', groupName], payload: bytes, contentFormat: ContentFormat.coseSign1 })
        })
        .catch((error: unknown) => {
          this.#log.limited('multicast', 'warn', { err: error }, 'a broadcast could not be sent by multicast')
        })
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#ways.values()].map((way) => closeWay(way)))
  }

  /** A way out of each interface that is up now; those of others are closed. */
  #present(): Promise<Way>[] {
    const { host, port } = this.#group
    const v6 = isIPv6(host.split('%')[0] as string)
    const zone = host.split('%')[1]
    const wanted = this.#interface ?? zone
    const interfaces = interfacesOf(wanted === undefined ? 'all' : [wanted]).filter((on) => (v6 ? on.ipv6 : on.ipv4))
    const now = new Map(interfaces.map((on) => [`${on.name} ${on.index} ${v6 ? '' : on.ipv4}`, on]))
    for (const [key, way] of this.#ways) {
      if (now.has(key)) continue
      this.#ways.delete(key)
      void closeWay(way)
    }
    for (const [key, on] of now) {
      if (this.#ways.has(key)) continue
      const way = openTowards(host, on).then(async ({ endpoint, peer }) => ({ endpoint, group: await peer(port) }))
      this.#ways.set(key, way)
      way.catch(() => this.#ways.delete(key))
    }
    return [...this.#ways.values()]
  }
}

async function closeWay(way: Promise<Way>): Promise<void> {
  try {
    await (await way).endpoint.close()
  } catch {
    // it never opened
  }
}
