/** Plain CoAP clients by origin, shared by the groups and made anew when one is given up. */
import type { CoapClient } from '../transport/coap/client.ts'

export class PlainClients {
  readonly #dial: (uri: string) => Promise<CoapClient>
  readonly #clients = new Map<string, Promise<CoapClient>>()
  #closed = false

  constructor(dial: (uri: string) => Promise<CoapClient>) {
    this.#dial = dial
  }

  get(origin: string): Promise<CoapClient> {
    let client = this.#clients.get(origin)
    if (client === undefined) {
      client = this.#dial(origin)
      this.#clients.set(origin, client)
      client.catch(() => this.#clients.delete(origin))
    }
    return client
  }

  /** The next `get` resolves the name again and takes a new socket. */
  forget(origin: string): void {
    const client = this.#clients.get(origin)
    if (client === undefined || this.#closed) return
    this.#clients.delete(origin)
    closeQuietly(client)
  }

  async close(): Promise<void> {
    this.#closed = true
    const all = [...this.#clients.values()]
    this.#clients.clear()
    await Promise.all(all.map((client) => client.then((c) => c.close()).catch(() => undefined)))
  }
}

function closeQuietly(client: Promise<CoapClient>): void {
  client.then(
    (c) => c.close().catch(() => undefined),
    () => undefined,
  )
}
