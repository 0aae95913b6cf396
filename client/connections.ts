/** Open CoAP clients by address, each made when it is first needed and closed together with the others. */
import type { CoapClient } from '../transport/coap/client.ts'
import { formatCoapUri, parseCoapUri } from '../transport/coap/uri.ts'
import { dial } from '../transport/dial.ts'

export class Connections {
  readonly #open = new Map<string, Promise<CoapClient>>()
  readonly #dial: (uri: string) => Promise<CoapClient>

  constructor(dialer: (uri: string) => Promise<CoapClient> = dial) {
    this.#dial = dialer
  }

  /** The client for the host and port of a URI, whatever its path. @throws `coap/bad-uri`, `coap/unreachable` */
  async to(uri: string): Promise<CoapClient> {
    const { scheme, host, port } = parseCoapUri(uri)
    const origin = formatCoapUri({ scheme, host, port })
    let client = this.#open.get(origin)
    if (client === undefined) {
      client = this.#dial(origin)
      this.#open.set(origin, client)
      client.catch(() => this.#open.delete(origin))
    }
    return client
  }

  async close(): Promise<void> {
    const open = [...this.#open.values()]
    this.#open.clear()
    await Promise.all(open.map((c) => c.then((client) => client.close()).catch(() => undefined)))
  }
}
