/** A client of one server: an endpoint and a peer, as `dial` gives it. */
import type { CoapEndpoint } from './endpoint.ts'
import type { CoapResponse, Observation, ObserveCallbacks, ObserveInit, RequestInit } from './messages.ts'
import type { Peer } from './transport.ts'

export type { CoapResponse, Observation, ObserveCallbacks, ObserveInit, RequestInit } from './messages.ts'

type Rest = Omit<RequestInit, 'method' | 'path'>
type BodyRest = Omit<Rest, 'payload'>

/**
 * Responses of class 4 and 5 are responses. What is thrown is an `IotchainError`: `coap/timeout`, `coap/reset`,
 * `coap/unreachable`, `coap/aborted`, `coap/closed`, `coap/too-large`, `coap/changed`, `coap/bad-response`.
 *
 * @example
 * const client = await dial('coap://[::1]')
 * const { payload } = await client.get('/s/temp', { accept: ContentFormat.coseSign1 })
 */
export class CoapClient {
  readonly endpoint: CoapEndpoint
  readonly peer: Peer
  readonly #host: string | undefined

  /** @param host Uri-Host to send with each request: the name from the URI, when it is no IP address */
  constructor(endpoint: CoapEndpoint, peer: Peer, host?: string) {
    this.endpoint = endpoint
    this.peer = peer
    this.#host = host
  }

  request(init: RequestInit): Promise<CoapResponse> {
    return this.endpoint.request(this.peer, { host: this.#host, ...init })
  }

  get(path: RequestInit['path'], init: Rest = {}): Promise<CoapResponse> {
    return this.request({ ...init, method: 'GET', path })
  }

  put(path: RequestInit['path'], payload: Uint8Array, init: BodyRest = {}): Promise<CoapResponse> {
    return this.request({ ...init, method: 'PUT', path, payload })
  }

  post(path: RequestInit['path'], payload?: Uint8Array, init: BodyRest = {}): Promise<CoapResponse> {
    return this.request({ ...init, method: 'POST', path, payload })
  }

  fetch(path: RequestInit['path'], payload: Uint8Array, init: BodyRest = {}): Promise<CoapResponse> {
    return this.request({ ...init, method: 'FETCH', path, payload })
  }

  delete(path: RequestInit['path'], init: Rest = {}): Promise<CoapResponse> {
    return this.request({ ...init, method: 'DELETE', path })
  }

  observe(path: RequestInit['path'], callbacks: ObserveCallbacks, init: Omit<ObserveInit, 'path'> = {}): Observation {
    return this.endpoint.observe(this.peer, { host: this.#host, ...init, path }, callbacks)
  }

  /** CoAP ping. @returns round-trip time in milliseconds */
  ping(): Promise<number> {
    return this.endpoint.ping(this.peer)
  }

  /** Closes the endpoint too: a client owns it. */
  close(): Promise<void> {
    return this.endpoint.close()
  }
}
