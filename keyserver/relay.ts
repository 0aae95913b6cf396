/**
 * Pays the transaction of a token request for an address that owns nothing (IoTChain §III-C: the client's privacy).
 * Strangers are held back by a puzzle of ours, once for each request; by a trial run before anything is paid; by the
 * list of offers; by a bound on a day's spending; and by one pending request for each client.
 */
import type { requestTokenForIntent } from '../chain/intents.ts'
import type { TransactionSender } from '../chain/sender.ts'
import type { Hex } from '../chain/types.ts'
import { fromHex, toHex } from '../protocol/bytes.ts'
import { encodeCbor } from '../protocol/cbor.ts'
import type { Clock } from '../protocol/clock.ts'
import type { CryptoSuite } from '../protocol/crypto/suite.ts'
import { isIotchainError } from '../protocol/errors.ts'
import { type Address, addressHex } from '../protocol/messages/address.ts'
import { type RelayRequest, type RelayTask, solvesRelayPuzzle } from '../protocol/messages/relay.ts'
import type { Logger } from '../runtime/log.ts'
import { Gate } from './gate.ts'
import type { Logins } from './logins.ts'
import { refusal } from './refusals.ts'
import { del, Key, putRecord, type RelayRecord, type Storage } from './storage.ts'

export interface RelayOptions {
  readonly suite: CryptoSuite
  readonly clock: Clock
  readonly log: Logger
  readonly storage: Storage
  /** challenges are theirs: single use, bound to an association */
  readonly challenges: Logins
  readonly sender: TransactionSender
  /** handed in, so that a key server without a relay does not carry an ABI coder */
  readonly intentOf: typeof requestTokenForIntent
  readonly offers: readonly { readonly contract: Address; readonly offer: number }[]
  /** wei in 24 hours */
  readonly dailyWei: bigint
  /** leading zero bits */
  readonly difficulty: number
}

/** A relayed request may be slow on a phone: the puzzle holds longer than a challenge of a join. */
const TASK_SECONDS = 300
const DAY_SECONDS = 86_400

export class Relay {
  readonly #o: RelayOptions
  /** what was paid for, newest last, by digest of the request */
  readonly #records = new Map<string, RelayRecord>()
  readonly #pending = new Map<Address, string>()
  readonly #running = new Map<string, Promise<Uint8Array>>()
  /** One at a time, so that two requests never both fit into what is left of a day. */
  readonly #gate = new Gate()

  constructor(options: RelayOptions) {
    this.#o = options
  }

  async load(): Promise<void> {
    for await (const [key, record] of this.#o.storage.records<RelayRecord>('relay/')) {
      this.#records.set(key.slice('relay/'.length), record)
    }
  }

  task(association: string): RelayTask {
    const { challenges, difficulty } = this.#o
    return { challenge: challenges.challenge(association, TASK_SECONDS), exi: TASK_SECONDS, difficulty }
  }

  /** @returns the transaction's hash; `repeated` when it was sent before */
  async request(association: string, r: RelayRequest): Promise<{ hash: Uint8Array; repeated: boolean }> {
    const { suite, challenges, difficulty } = this.#o
    const { contract, client, offer, ttlSeconds, proof, deadline, signature } = r
    const digest = toHex(suite.sha256(encodeCbor([contract, client, offer, ttlSeconds, proof, deadline, signature])))
    const before = this.#records.get(digest)
    if (before?.hash !== undefined) return { hash: fromHex(before.hash), repeated: true }
    const running = this.#running.get(digest)
    if (running !== undefined) return { hash: await running, repeated: true }
    if (!this.#o.offers.some((o) => o.contract === addressHex(contract) && o.offer === offer)) {
      throw refusal('keyserver/not-relayed', 'this relay does not pay for that offer', {
        hint: 'send the request with an account that has funds',
      })
    }
    if (deadline <= this.#now()) throw refusal('keyserver/bad-request', 'the deadline of the request is over')
    if (!challenges.spend(association, r.challenge)) {
      throw refusal('keyserver/bad-puzzle', 'this puzzle was not set on this association, has been used or is over', {
        hint: 'GET /relay for another one',
      })
    }
    if (!solvesRelayPuzzle(r, r.solution, difficulty)) {
      throw refusal('keyserver/bad-puzzle', 'the solution does not solve the puzzle for this request')
    }
    const sending = this.#gate.run(() => this.#send(digest, r))
    this.#running.set(digest, sending)
    try {
      return { hash: await sending, repeated: false }
    } finally {
      this.#running.delete(digest)
    }
  }

  async #send(digest: string, r: RelayRequest): Promise<Uint8Array> {
    const { sender, log, storage, dailyWei, intentOf } = this.#o
    const client = addressHex(r.client)
    if (this.#pending.has(client)) {
      throw refusal('keyserver/relay-busy', 'another request of this client is not mined yet', {
        retryAfterSeconds: 15,
      })
    }
    const { offer, ttlSeconds, proof, deadline, signature } = r
    const request = { client, offer, ttlSeconds, proof: hexOf(proof), deadline, signature }
    const intent = intentOf(addressHex(r.contract), request, 0n)
    const quote = await sender.quote(intent).catch((error: unknown) => {
      throw explain(error)
    })
    const spent = this.#spentToday()
    if (spent + quote.total > dailyWei) {
      log.warn({ spent, dailyWei }, 'the relay has spent what it may today')
      throw refusal('keyserver/relay-spent', 'this relay has spent what it may today', { retryAfterSeconds: 3600 })
    }
    // Recorded before it leaves: what a crash cuts off stays counted against the day.
    const record: RelayRecord = { at: this.#now(), client, wei: quote.total.toString(), hash: undefined }
    this.#records.set(digest, record)
    this.#pending.set(client, digest)
    try {
      await storage.commit([putRecord(Key.relay(digest), record)])
      return await this.#submit(digest, record, intent)
    } catch (error) {
      this.#pending.delete(client)
      this.#records.delete(digest)
      throw explain(error)
    }
  }

  /** Resolves once the transaction is sent; follows it to its block in the background. */
  #submit(digest: string, record: RelayRecord, intent: Parameters<TransactionSender['send']>[0]): Promise<Uint8Array> {
    const { sender, log } = this.#o
    return new Promise((resolve, reject) => {
      const done = sender.send(intent, {
        onProgress: (progress) => {
          if (progress.phase !== 'sent') return
          const sent = { ...record, hash: progress.hash }
          this.#keep(digest, sent).then(() => resolve(fromHex(progress.hash)), reject)
        },
      })
      done
        .then((receipt) => this.#keep(digest, { ...record, hash: receipt.hash, wei: receipt.fee.toString() }))
        .catch((error: unknown) => {
          log.warn({ client: record.client, err: error }, 'a relayed request came to nothing')
          reject(error)
        })
        .finally(() => this.#pending.delete(record.client))
    })
  }

  async #keep(digest: string, record: RelayRecord): Promise<void> {
    this.#records.set(digest, record)
    await this.#o.storage.commit([putRecord(Key.relay(digest), record)])
  }

  #spentToday(): bigint {
    const since = this.#now() - DAY_SECONDS
    let wei = 0n
    for (const record of this.#records.values()) if (record.at > since) wei += BigInt(record.wei)
    return wei
  }

  /** Forgets what is older than a day (its deadline is long over). */
  async prune(): Promise<void> {
    const before = this.#now() - 2 * DAY_SECONDS
    const old = [...this.#records].filter(([, record]) => record.at < before).map(([digest]) => digest)
    for (const digest of old) this.#records.delete(digest)
    if (old.length > 0) await this.#o.storage.commit(old.map((digest) => del(Key.relay(digest))))
  }

  #now(): number {
    return Math.floor(this.#o.clock.nowMs() / 1000)
  }
}

function hexOf(octets: Uint8Array): Hex {
  return `0x${toHex(octets)}`
}

/** The contract's reason is the client's business; the purse is not. */
function explain(error: unknown): unknown {
  if (!isIotchainError(error)) return error
  if (error.code === 'chain/reverted') {
    return refusal('keyserver/not-relayed', error.message, { cause: error, hint: error.hint })
  }
  if (error.code === 'chain/no-funds') {
    return refusal('keyserver/relay-spent', 'this relay has no funds now', { retryAfterSeconds: 3600 })
  }
  return error
}
