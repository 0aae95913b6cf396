/** Who is at the other end of a datagram. */
import { lookup } from 'node:dns/promises'
import { isIP, isIPv6 } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'
import type { Peer } from './transport.ts'

export class UdpPeer implements Peer {
  readonly address: string
  readonly port: number
  readonly secure = undefined
  /** Its `struct sockaddr`, where a datagram brought that. */
  readonly system: Uint8Array | undefined
  #key: string | undefined

  constructor(address: string, port: number, system?: Uint8Array) {
    this.address = address
    this.port = port
    this.system = system
  }

  // most datagrams are answered without anybody asking for the key
  get key(): string {
    this.#key ??= `${this.address}|${this.port}`
    return this.#key
  }
}

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
