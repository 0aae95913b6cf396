/** Who is at the other end of a datagram. */
export class UdpPeer {
  readonly address: string
  readonly port: number
  /** Its `struct sockaddr`, where a datagram brought that. */
  readonly system: Uint8Array | undefined
  /** Where its datagram arrived, for the answer to leave from there: a `struct in_pktinfo` or `in6_pktinfo`, or nothing. */
  readonly own: Uint8Array | undefined
  #key: string | undefined

  constructor(address: string, port: number, system?: Uint8Array, own?: Uint8Array) {
    this.address = address
    this.port = port
    this.system = system
    this.own = own
  }

  // most datagrams are answered without anybody asking for the key
  get key(): string {
    this.#key ??= `${this.address}|${this.port}`
    return this.#key
  }
}
