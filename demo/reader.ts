/** A client of the demo: its address, its library, and the broadcasts as they reach it, or are lost on the way. */
import { suite } from '#crypto'
import type { ChainReader } from '../chain/reader.ts'
import { type Account, accountFromKey } from '../chain/wallet.ts'
import { IotClient } from '../client/client.ts'
import type { ObjectPlace } from '../client/fetch.ts'
import type { Membership } from '../client/group.ts'
import { ClientState } from '../client/state.ts'
import { toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import { openBroadcast } from '../protocol/groups/broadcast.ts'
import { parseHeader } from '../protocol/objects/parse.ts'
import { systemClock } from '../runtime/clock.ts'
import { openMemoryStore } from '../store/memory.ts'
import type { CoapClient, Observation } from '../transport/coap/client.ts'
import { PATH, READERS, type Stage } from './stage.ts'

export interface SeenBroadcast {
  readonly session: number
  readonly octets: number
  readonly lost: boolean
  /** what it was to this client: keys, or nothing */
  readonly opened: boolean
  readonly from?: number | undefined
}

export class Reader {
  readonly name: string
  readonly account: Account
  readonly library: IotClient
  readonly broadcasts: SeenBroadcast[] = []
  /** While true, broadcasts reach this client's host and are thrown away. */
  losing = false
  readonly #stage: Stage
  readonly #path: readonly string[]
  readonly #waiting = new Set<() => void>()
  #membership: Membership | undefined
  #feed: Observation | undefined

  /** @param path the resource that it reads */
  constructor(name: string, privateKey: string, stage: Stage, chain: ChainReader, path: readonly string[] = PATH) {
    this.#path = path
    this.name = name
    this.#stage = stage
    this.account = accountFromKey(privateKey)
    this.library = new IotClient({
      chain: { chainId: stage.chain.chainId, registry: stage.registry },
      clock: systemClock,
      state: new ClientState(openMemoryStore()),
      autoFetch: false,
      registry: {
        signingKeyOf: (device) => chain.atHead(async (head) => (await chain.deviceOf(device, head))?.signingKey),
      },
    })
  }

  get membership(): Membership {
    if (this.#membership === undefined) throw new IotchainError('demo/no-member', `${this.name} is no member`)
    return this.#membership
  }

  /** Proves its address inside DTLS and takes its personal key. */
  async join(): Promise<Membership> {
    this.#membership = await this.library.join({
      signer: this.account,
      keyServer: this.#stage.keyServer,
      device: this.#stage.device,
      bit: READERS,
    })
    return this.#membership
  }

  /** What anybody may know: who signs, not how to open. */
  async lookOn(): Promise<void> {
    await this.library.view({ keyServer: this.#stage.keyServer, device: this.#stage.device, bit: READERS })
  }

  /** Observes the broadcasts in the open. */
  async listen(): Promise<void> {
    const connection = await this.library.connections.to(this.#stage.broadcastsUri)
    const gid = toHex(this.library.gid(this.#stage.device, READERS))
    this.#feed = connection.observe(['bc', gid], {
      onNotification: (response) => this.#take(response.payload),
      onEnd: () => undefined,
    })
  }

  #take(bytes: Uint8Array): void {
    // The story names the broadcast, also one that the client itself never gets to see.
    const { session } = openBroadcast(suite, bytes, { kdc: this.membership.credentials.key })
    if (session <= (this.broadcasts.at(-1)?.session ?? 0)) return
    const result = this.losing ? 'lost' : this.membership.receive(bytes)
    const opened = typeof result === 'object'
    this.broadcasts.push({
      session,
      octets: bytes.length,
      lost: this.losing,
      opened,
      ...(opened ? { from: result.from } : {}),
    })
    for (const wake of this.#waiting) wake()
  }

  /** The next broadcast that arrives from now on. @throws `demo/no-broadcast` */
  async nextBroadcast(withinMs: number): Promise<SeenBroadcast> {
    const seen = this.broadcasts.length
    await new Promise<void>((done, failed) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(wake)
        failed(new IotchainError('demo/no-broadcast', `no broadcast within ${withinMs / 1000} s`))
      }, withinMs)
      const wake = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(wake)
        done()
      }
      this.#waiting.add(wake)
    })
    return this.broadcasts[seen] as SeenBroadcast
  }

  atDevice(): Promise<ObjectPlace> {
    return this.#place('device', this.#stage.deviceUri)
  }

  atProxy(): Promise<ObjectPlace> {
    return this.#place('proxy', this.#stage.proxyUri)
  }

  async #place(via: 'device' | 'proxy', uri: string): Promise<ObjectPlace> {
    const connection: CoapClient = await this.library.connections.to(uri)
    return { connection, via, device: this.#stage.device, path: this.#path }
  }

  async close(): Promise<void> {
    this.#feed?.close()
    await this.library.close()
  }
}

export function sessionOf(object: Uint8Array): number {
  return parseHeader(object).session
}
