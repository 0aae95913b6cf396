/** Our engine as one side of the matrix: the server with the resources that every peer serves, and the client. */
import { fromHex, toHex, utf8 } from '../../protocol/bytes.ts'
import { CoapClient } from '../../transport/coap/client.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { CoapEndpoint, type EndpointOptions } from '../../transport/coap/endpoint.ts'
import type { CoapResponse } from '../../transport/coap/messages.ts'
import type { CoapReply } from '../../transport/coap/server.ts'
import { Router } from '../../transport/coap/server.ts'
import type { DatagramTransport } from '../../transport/coap/transport.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import {
  type CoapDriver,
  LARGE_OCTETS,
  type ObserveCommand,
  type ObserveOutcome,
  type Outcome,
  pattern,
  type RequestCommand,
  SMALL_BODY,
} from '../peers/protocol.ts'
import { Tap } from './tap.ts'

const text = (payload: string): CoapReply => ({
  code: Code.content,
  payload: utf8(payload),
  contentFormat: ContentFormat.textPlain,
})

export class OurServer {
  readonly endpoint: CoapEndpoint
  readonly tap: Tap
  readonly #timers: NodeJS.Timeout[] = []

  constructor(transport: DatagramTransport, options: EndpointOptions = {}) {
    let ticks = 0
    let largeTicks = 0
    let store: Uint8Array = new Uint8Array(0)
    const put = ({ payload }: { payload: Uint8Array }): CoapReply => {
      store = Uint8Array.from(payload)
      return { code: Code.changed }
    }
    const router = new Router()
      .add({ pattern: '/small', get: () => text(SMALL_BODY) })
      .add({ pattern: '/critical', get: () => text(SMALL_BODY) })
      .add({
        pattern: '/large',
        get: () => ({
          code: Code.content,
          payload: pattern(LARGE_OCTETS, 1),
          contentFormat: ContentFormat.octetStream,
        }),
      })
      .add({
        pattern: '/slow',
        get: async () => {
          await new Promise((resolve) => setTimeout(resolve, 900))
          return text('late')
        },
      })
      .add({ pattern: '/obs', observable: true, get: () => text(`tick ${ticks}`) })
      .add({
        pattern: '/obslarge',
        observable: true,
        get: () => ({ code: Code.content, payload: pattern(LARGE_OCTETS, largeTicks & 255) }),
      })
      .add({ pattern: '/store', get: () => ({ code: Code.content, payload: store }), put, post: put })
      .add({ pattern: '/etag', get: () => ({ ...text('tagged body'), etag: fromHex('653031') }) })
      .add({ pattern: '/accept', get: () => text('plain') })
      .add({
        pattern: '/ifmatch',
        get: () => ({ ...text('guarded'), etag: fromHex('653032') }),
        put: () => ({ code: Code.changed }),
      })
    this.tap = new Tap(transport)
    this.endpoint = new CoapEndpoint(this.tap, { ...options, router })
    this.#timers.push(
      setInterval(() => {
        ticks++
        this.endpoint.notify('/obs')
      }, 50),
      setInterval(() => {
        largeTicks++
        this.endpoint.notify('/obslarge')
      }, 400),
    )
  }

  static async udp(host: string): Promise<OurServer> {
    return new OurServer(await bindUdp({ host, port: 0 }))
  }

  get port(): number {
    return this.endpoint.address.port
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer)
    await this.endpoint.close()
  }
}

function outcomeOf(response: CoapResponse): Outcome {
  return {
    code: response.codeText,
    payload: toHex(response.payload),
    ...(response.etag === undefined ? {} : { etag: toHex(response.etag) }),
    ...(response.contentFormat === undefined ? {} : { format: response.contentFormat }),
  }
}

function said(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { code } = error as { code?: string }
  return code === undefined ? error.message : `${code}: ${error.message}`
}

const PATIENCE_MS = 8000

/** Our client on UDP. It forgets an observation, for RST, as a rebooted client does: a new engine on the same port. */
export class OurClient implements CoapDriver {
  tap: Tap
  #client: CoapClient
  readonly #host: string
  readonly #port: number

  private constructor(host: string, port: number, tap: Tap, client: CoapClient) {
    this.#host = host
    this.#port = port
    this.tap = tap
    this.#client = client
  }

  static async #connect(host: string, port: number, localPort: number): Promise<{ tap: Tap; client: CoapClient }> {
    const transport = await bindUdp({ host, port: localPort })
    const tap = new Tap(transport)
    const peer = await transport.peer(host, port)
    return { tap, client: new CoapClient(new CoapEndpoint(tap), peer) }
  }

  static async open(host: string, port: number): Promise<OurClient> {
    const { tap, client } = await OurClient.#connect(host, port, 0)
    return new OurClient(host, port, tap, client)
  }

  async request(command: RequestCommand): Promise<Outcome> {
    try {
      return outcomeOf(
        await this.#client.request({
          method: command.method ?? 'GET',
          path: command.path,
          confirmable: command.type !== 'NON',
          timeoutMs: PATIENCE_MS,
          ...(command.etag === undefined ? {} : { etag: fromHex(command.etag) }),
          ...(command.accept === undefined ? {} : { accept: command.accept }),
          ...(command.format === undefined ? {} : { contentFormat: command.format }),
          ...(command.ifmatch === undefined ? {} : { ifMatch: fromHex(command.ifmatch) }),
          ...(command.ifnonematch === undefined ? {} : { ifNoneMatch: true }),
          ...(command.critical === undefined ? {} : { options: [{ number: command.critical, value: utf8('x') }] }),
          ...(command.size === undefined ? {} : { payload: pattern(command.size, command.seed ?? 0) }),
        }),
      )
    } catch (error) {
      return { error: said(error) }
    }
  }

  async observe(command: ObserveCommand): Promise<ObserveOutcome> {
    const notifications: (Outcome & { observe: boolean })[] = []
    try {
      await new Promise<void>((resolve, reject) => {
        const giveUp = setTimeout(
          () => reject(new Error(`${notifications.length} of ${command.count} notifications`)),
          PATIENCE_MS,
        )
        const end = (error?: Error): void => {
          clearTimeout(giveUp)
          if (error === undefined) resolve()
          else reject(error)
        }
        const observation = this.#client.observe(command.path, {
          onNotification: (response) => {
            if (notifications.length === command.count) return
            notifications.push({ ...outcomeOf(response), observe: response.observe !== undefined })
            if (notifications.length < command.count) return
            if (command.cancel === 'deregister') observation.close()
            end()
          },
          onEnd: (error) => end(error),
        })
        observation.ready.catch(() => {}) // onEnd tells
      })
      if (command.cancel === 'rst') await this.#reboot()
      return { notifications }
    } catch (error) {
      return { error: said(error) }
    }
  }

  async #reboot(): Promise<void> {
    const { port } = this.tap.address
    await this.#client.close()
    const { tap, client } = await OurClient.#connect(this.#host, this.#port, port)
    tap.seen.unshift(...this.tap.seen)
    this.tap = tap
    this.#client = client
  }

  close(): Promise<void> {
    return this.#client.close()
  }
}
