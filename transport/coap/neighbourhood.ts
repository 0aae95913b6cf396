/** Asking whoever is on the local network (RFC 7252 §8): one NON on each interface, and the answers of all. */
import { isIPv6 } from 'node:net'
import { CoapEndpoint, type EndpointOptions } from './endpoint.ts'
import { type InterfaceChoice, interfacesOf, type NetworkInterface } from './interfaces.ts'
import type { CoapResponse } from './messages.ts'
import type { MulticastInit } from './multicast.ts'
import { bindUdp } from './udp.ts'
import { COAP_GROUPS } from './udp-multicast.ts'
import { COAP_PORT } from './uri.ts'

export interface NeighbourhoodOptions extends MulticastInit {
  /** Default `all`. */
  readonly interfaces?: InterfaceChoice | undefined
  readonly groups?: readonly string[] | undefined
  readonly port?: number | undefined
  readonly limits?: EndpointOptions['limits']
}

/** Datagrams to groups do not leave the link. */
const HOPS = 1

/** A socket that sends to `group` out of one interface, and the name of the group as that socket takes it. */
export async function openTowards(
  group: string,
  on: NetworkInterface | undefined,
  options: Pick<EndpointOptions, 'limits'> = {},
) {
  const v6 = isIPv6(group.split('%')[0] as string)
  const transport = await bindUdp({
    host: v6 ? '::' : '0.0.0.0',
    multicastHops: HOPS,
    multicastInterface: on === undefined ? undefined : v6 ? `::%${on.name}` : on.ipv4,
  })
  const zoned = v6 && on !== undefined && !group.includes('%') ? `${group}%${on.name}` : group
  return { endpoint: new CoapEndpoint(transport, options), peer: (port: number) => transport.peer(zoned, port) }
}

/**
 * Resolves with what came within the window; a server that answers on two interfaces or in two families is there twice.
 * @throws what the network says, when the question could not be asked anywhere
 */
export async function askNeighbours(options: NeighbourhoodOptions): Promise<CoapResponse[]> {
  const { interfaces = 'all', groups = COAP_GROUPS, port = COAP_PORT, limits, ...init } = options
  const ways = interfacesOf(interfaces).flatMap((on) =>
    groups.filter((group) => (isIPv6(group) ? on.ipv6 : on.ipv4 !== undefined)).map((group) => ({ group, on })),
  )
  const rounds = await Promise.allSettled(
    ways.map(async ({ group, on }) => {
      const { endpoint, peer } = await openTowards(group, on, { limits })
      try {
        return await endpoint.multicast(await peer(port), init)
      } finally {
        await endpoint.close()
      }
    }),
  )
  const failed = rounds.find((round) => round.status === 'rejected')
  if (failed !== undefined && rounds.every((round) => round.status === 'rejected')) throw failed.reason
  return rounds.flatMap((round) => (round.status === 'fulfilled' ? round.value : []))
}
