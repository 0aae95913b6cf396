/** A server and a client on one network of virtual time. */
import { CoapClient } from '../../../transport/coap/client.ts'
import { CoapEndpoint, type EndpointOptions } from '../../../transport/coap/endpoint.ts'
import {
  decodeMessage,
  encodeMessage,
  isMalformed,
  type Message,
  type OutgoingMessage,
} from '../../../transport/coap/message.ts'
import { PipeNetwork, type PipeOptions, PipePeer, seededRandom } from '../../../transport/coap/pipe.ts'
import type { Router } from '../../../transport/coap/server.ts'
import type { Peer } from '../../../transport/coap/transport.ts'
import { VirtualTimers } from '../../../transport/coap/virtual-timers.ts'

export interface World {
  readonly timers: VirtualTimers
  readonly network: PipeNetwork
  readonly server: CoapEndpoint
  readonly serverPeer: Peer
  /** A client at loopback (verified) unless an address is given. */
  client(address?: string, options?: EndpointOptions, port?: number): CoapClient
  /** A peer that sends what it is told, octet by octet. */
  raw(address?: string, port?: number): RawPeer
  /** What a DTLS transport does when an association ends. */
  dropPeer(peer: Peer): void
  close(): Promise<void>
}

let nextPort = 50_000

export function seededBytes(seed: number): (length: number) => Uint8Array {
  const random = seededRandom(seed)
  return (length) => Uint8Array.from({ length }, () => Math.floor(random() * 256))
}

export function world(router: Router, options: { pipe?: PipeOptions; server?: EndpointOptions } = {}): World {
  const timers = new VirtualTimers()
  const network = new PipeNetwork({ latencyMs: 5, ...options.pipe, timers })
  const transport = network.attach('127.0.0.1', 5683)
  const common = { timers, random: seededRandom(7), randomBytes: seededBytes(8) }
  const server = new CoapEndpoint(transport, { router, ...common, ...options.server })
  const clients: CoapClient[] = []
  return {
    timers,
    network,
    server,
    serverPeer: transport.self,
    client(address = '127.0.0.1', clientOptions = {}, port = nextPort++) {
      const endpoint = new CoapEndpoint(network.attach(address, port), { ...common, ...clientOptions })
      const client = new CoapClient(endpoint, transport.self)
      clients.push(client)
      return client
    },
    raw: (address = '127.0.0.1', port = nextPort++) => new RawPeer(network, transport.self, address, port),
    dropPeer: (peer) => transport.onpeergone?.(peer),
    async close() {
      for (const client of clients) await client.close()
      await server.close()
      // what was in flight arrives nowhere
      await timers.advance(1000)
    },
  }
}

export class RawPeer {
  readonly self: PipePeer
  readonly received: Buffer[] = []
  readonly #network: PipeNetwork
  readonly #server: Peer

  constructor(network: PipeNetwork, server: Peer, address: string, port: number) {
    this.#network = network
    this.#server = server
    this.self = new PipePeer(address, port)
    network.attach(address, port).onmessage = (datagram) => this.received.push(Buffer.from(datagram))
  }

  sendOctets(octets: Uint8Array): void {
    this.#network.carry(octets, this.self, this.#server)
  }

  send(message: OutgoingMessage): void {
    this.sendOctets(encodeMessage(message))
  }

  /** What arrived since the last call, decoded. */
  take(): Message[] {
    return this.received.splice(0).map((octets) => {
      const message = decodeMessage(octets)
      if (isMalformed(message)) throw new Error(`the server sent a malformed message: ${message.malformed}`)
      return message
    })
  }
}
