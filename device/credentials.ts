/** The device's own credential, as it is shown at /id, and those of clients that may command (protocol.md §4.5, §4.9). */
import { suite } from '#crypto'
import { equalBytes } from '../protocol/bytes.ts'
import { publicKeyOf } from '../protocol/cose/key.ts'
import type { Credential } from '../protocol/objects/credential.ts'
import { CredentialBook } from '../protocol/objects/credential-book.ts'
import type { Logger } from '../runtime/log.ts'
import type { Store } from '../store/store.ts'

export class Credentials {
  readonly #device: Uint8Array
  readonly #log: Logger
  readonly #store: Store
  #book: CredentialBook | undefined

  constructor(options: { readonly device: Uint8Array; readonly log: Logger; readonly store: Store }) {
    this.#device = options.device
    this.#log = options.log
    this.#store = options.store
  }

  /** What was held at the last stop, so that /id answers before the key server does. */
  async load(kdcCred: Uint8Array | undefined): Promise<void> {
    if (kdcCred === undefined) return
    const held = await this.#store.get('credential')
    if (held !== undefined) await this.add(kdcCred, [held], undefined)
  }

  /** Takes those that the key server's key signed; others are counted in the log and left out. */
  async add(kdcCred: Uint8Array, credentials: readonly Uint8Array[], nowSeconds: number | undefined): Promise<void> {
    const key = publicKeyOf(kdcCred)
    if (this.#book === undefined || !equalBytes(this.#book.key.publicKey, key)) {
      this.#book = new CredentialBook(suite, suite.ed25519.verifying(key), 512)
    }
    if (nowSeconds !== undefined) this.#book.prune(nowSeconds)
    const before = this.own
    for (const bytes of credentials) {
      try {
        this.#book.add(bytes, nowSeconds)
      } catch (error) {
        this.#log.limited(
          'credential',
          'warn',
          { err: error },
          'a credential from the key server is not good: left out',
        )
      }
    }
    const own = this.own
    if (own === undefined || own === before) return
    try {
      await this.#store.batch([{ type: 'put', key: 'credential', value: own.bytes }])
    } catch (error) {
      this.#log.limited('credential-save', 'warn', { err: error }, 'the credential could not be stored')
    }
  }

  /** The device's newest credential; of equally new ones, that with most groups. */
  get own(): Credential | undefined {
    const mine = this.#book?.of(this.#device).filter((c) => c.role === undefined) ?? []
    return mine.reduce<Credential | undefined>(
      (best, c) =>
        best === undefined || c.iat > best.iat || (c.iat === best.iat && c.groups.size > best.groups.size) ? c : best,
      undefined,
    )
  }

  /** Whether the own credential names this Sender ID of a group. */
  covers(gname: string, sid: Uint8Array): boolean {
    return this.own?.groups.get(gname)?.some((g) => equalBytes(g.sid, sid)) ?? false
  }

  /** Credentials of clients with command privilege. */
  get commanders(): readonly Credential[] {
    return this.#book?.credentials.filter((c) => c.role === 'w') ?? []
  }

  /** Unix seconds at which half of the own credential's life is over: the time to fetch the next. */
  get renewAt(): number | undefined {
    const own = this.own
    return own === undefined ? undefined : own.iat + (own.exp - own.iat) / 2
  }
}
