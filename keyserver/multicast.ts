/**
 * Sends each broadcast to a group on the local network too: NON POST /bc/{gid} with B as payload, no response wanted
 * (RFC 7967). Members take it exactly like one that they fetched.
 */
import { isIPv6 } from 'node:net'
import type { Logger } from '../runtime/log.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { CoapEndpoint } from '../transport/coap/endpoint.ts'
import type { Peer } from '../transport/coap/transport.ts'
import { bindUdp } from '../transport/coap/udp.ts'
import type { HostPort } from './config.ts'

/** A broadcast that needs several datagrams is fetched, not pushed. */
const MAX_OCTETS = 1024

export class BroadcastMulticast {
  readonly #endpoint: CoapEndpoint
  readonly #group: Peer
  readonly #log: Logger

  private constructor(endpoint: CoapEndpoint, group: Peer, log: Logger) {
    this.#endpoint = endpoint
    this.#group = group
    this.#log = log
  }

  /** @param networkInterface its name; default the system's choice @throws `coap/…` */
  static async open(group: HostPort, networkInterface: string | undefined, log: Logger): Promise<BroadcastMulticast> {
    const v6 = isIPv6(group.host.split('%')[0] as string)
    const transport = await bindUdp({
      port: 0,
      host: v6 ? '::' : '0.0.0.0',
      multicastHops: 1,
      ...(networkInterface === undefined
        ? {}
        : { multicastInterface: v6 ? `::%${networkInterface}` : networkInterface }),
    })
    const peer = await transport.peer(group.host, group.port)
    return new BroadcastMulticast(new CoapEndpoint(transport), peer, log)
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
    try {
      this.#endpoint.tell(this.#group, {
        path: ['bc', groupName],
        payload: bytes,
        contentFormat: ContentFormat.coseSign1,
      })
    } catch (error) {
      this.#log.limited('multicast', 'warn', { err: error }, 'a broadcast could not be sent by multicast')
    }
  }

  close(): Promise<void> {
    return this.#endpoint.close()
  }
}
