/** From the name of a host to a peer of a UDP socket. */
import { lookup } from 'node:dns/promises'
import { isIP, isIPv6 } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'
import { UdpPeer } from '../udp/peer.ts'
import type { Peer } from './transport.ts'

/** @throws `coap/unknown-host` */
export async function resolvePeer(host: string, port: number, v6Socket: boolean): Promise<Peer> {
  const address = isNumeric(host) ? host : await resolveHost(host)
  return new UdpPeer(v6Socket && !isIPv6(address) ? `::ffff:${address}` : address, port)
}

/** @throws `coap/unknown-host` */
export async function resolveHost(host: string): Promise<string> {
  try {
    return (await lookup(host)).address
  } catch (cause) {
    throw new IotchainError('coap/unknown-host', `the host ${host} is not known`, {
      hint: 'check the name and the network',
      cause,
    })
  }
}

/** An address, with or without a zone. */
export function isNumeric(host: string): boolean {
  return isIP(host.split('%')[0] as string) !== 0
}
