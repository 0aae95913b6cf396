/** One CoAP endpoint: server and client at once over one datagram transport. */
import type { CoapLimits } from './limits.ts'
import type { CoapResponse, Observation, ObserveCallbacks, RequestInit } from './messages.ts'
import type { Router } from './router.ts'
import { type CoapEvent, type CoapStats, newStats } from './stats.ts'
import { systemTimers, type Timers } from './timers.ts'
import type { DatagramTransport, Peer } from './transport.ts'

export interface EndpointOptions {
  /** Serves requests; without one the endpoint is a client and rejects them. */
  readonly router?: Router | undefined
  readonly limits?: Partial<CoapLimits> | undefined
  readonly timers?: Timers | undefined
  /** Jitter, [0, 1); default Math.random. */
  readonly random?: (() => number) | undefined
  /** Tokens, message IDs and the Echo key; default the system's generator. */
  readonly randomBytes?: ((length: number) => Uint8Array) | undefined
  /** Sources such as `192.168.0.0/16` or `fd00::/8` whose addresses cannot be spoofed: no amplification limit, no rate limit. */
  readonly trustedPrefixes?: readonly string[] | undefined
  /** Loopback counts as verified (default true); tests of the limits switch it off. */
  readonly trustLoopback?: boolean | undefined
  readonly onEvent?: ((event: CoapEvent) => void) | undefined
}

export interface MulticastInit extends Omit<RequestInit, 'confirmable' | 'timeoutMs' | 'blockOctets'> {
  /** How long responses are collected; default the leisure plus 2 s. 0: none are wanted (No-Response is sent). */
  readonly windowMs?: number | undefined
  readonly onResponse?: ((response: CoapResponse) => void) | undefined
}

export class CoapEndpoint {
  readonly stats: CoapStats = newStats()
  readonly timers: Timers
  readonly #transport: DatagramTransport

  constructor(transport: DatagramTransport, options: EndpointOptions = {}) {
    this.#transport = transport
    this.timers = options.timers ?? systemTimers
  }

  get address(): { readonly address: string; readonly port: number } {
    return this.#transport.address
  }

  /** The state of the resource at `path` (`/s/temp`) changed: GET runs again for its observers. */
  notify(_path: string): void {}

  request(_peer: Peer, _init: RequestInit): Promise<CoapResponse> {
    return Promise.reject(new Error('being built'))
  }

  observe(_peer: Peer, _init: RequestInit, _callbacks: ObserveCallbacks): Observation {
    throw new Error('being built')
  }

  /** Sends one NON request to a group and collects the responses (RFC 7252 §8). Resolves with all of them. */
  multicast(_group: Peer, _init: MulticastInit): Promise<CoapResponse[]> {
    return Promise.reject(new Error('being built'))
  }

  close(): Promise<void> {
    return this.#transport.close()
  }
}
