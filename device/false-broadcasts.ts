/**
 * What a false broadcast may cost. Anybody can send one, and each costs a verification; whoever brought several whose
 * signature does not check is not listened to for a while. Senders of datagrams can take any address, so that the
 * strangers together are held back too; who was asked (the key server, a mirror) is counted alone.
 */

/** False ones that a source may bring at once, and how long until it may bring another. */
const BURST = 4
const REFILL_MS = 15_000
/** The same for all strangers together. */
const STRANGERS_BURST = 64
const STRANGERS_REFILL_MS = 500
/** Sources remembered; the one that was caught first is forgotten first. */
const SOURCES = 256

interface Account {
  level: number
  atMs: number
}

export class FalseBroadcasts {
  readonly #monotonicMs: () => number
  readonly #sources = new Map<string, Account>()
  readonly #strangers: Account

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs
    this.#strangers = { level: STRANGERS_BURST, atMs: monotonicMs() }
  }

  /** Whether a broadcast from there is worth a verification now. @param asked the source was asked for it */
  mayBring(source: string, asked: boolean): boolean {
    const account = this.#sources.get(source)
    if (account !== undefined && this.#level(account, BURST, REFILL_MS) < 1) return false
    return asked || this.#level(this.#strangers, STRANGERS_BURST, STRANGERS_REFILL_MS) >= 1
  }

  /** Its signature did not check. */
  wasFalse(source: string, asked: boolean): void {
    const account = this.#sources.get(source) ?? { level: BURST, atMs: this.#monotonicMs() }
    this.#charge(account, BURST, REFILL_MS)
    this.#sources.set(source, account)
    if (this.#sources.size > SOURCES) this.#sources.delete(this.#sources.keys().next().value as string)
    if (!asked) this.#charge(this.#strangers, STRANGERS_BURST, STRANGERS_REFILL_MS)
  }

  #level({ level, atMs }: Account, burst: number, refillMs: number): number {
    return Math.min(burst, level + (this.#monotonicMs() - atMs) / refillMs)
  }

  #charge(account: Account, burst: number, refillMs: number): void {
    account.level = this.#level(account, burst, refillMs) - 1
    account.atMs = this.#monotonicMs()
  }
}
