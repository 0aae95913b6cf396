/**
 * What the chain says about a device and its clients at one head, by the rule of `chain/rule.ts`. Reads are pinned to
 * the head's hash, joined (many requests of one moment cost one call per contract) and remembered until the next head.
 */
import {
  type Admission,
  type AdmissionRecord,
  type DeviceDecision,
  decide,
  decideDevice,
  decisionTime,
  membershipsOf,
} from '../chain/rule.ts'
import type { Confirmations, DeviceEntry, Head, Token } from '../chain/types.ts'
import type { ChainView } from '../chain/view.ts'
import { equalBytes } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Address } from '../protocol/messages/address.ts'
import { admissionsOf, type ServedDevice } from './roster.ts'

/** Device entries and tokens remembered for one head; a stranger who asks about more makes nothing grow. */
const REMEMBERED = 20_000
/** A head is asked for again after this, so that a burst of requests shares one. */
const HEAD_REUSE_MS = 500

export type Standing = DeviceDecision['status'] | 'foreign-owner' | 'foreign-key-server'

export interface DeviceReading {
  readonly head: Head
  /** good, waiting (with what was admitted before, if anything), or why the device is not served */
  readonly standing: Standing
  readonly decision: DeviceDecision
  /** contracts of the entry whose code is trusted */
  readonly contracts: readonly Address[]
}

export interface ClientReading {
  readonly admissions: ReadonlyMap<Address, AdmissionRecord>
  /** claims bit → unix seconds of the end */
  readonly bits: ReadonlyMap<number, number>
  /** what each contract said */
  readonly statuses: ReadonlyMap<Address, Admission>
  /** union of the claims of tokens that stand but have not enough confirmations, by missing blocks */
  readonly waiting: readonly { readonly claims: number; readonly missing: number | undefined }[]
  /** rights that were taken away while their token had not ended: contract and serial that took them */
  readonly revoked: readonly { readonly contract: Address; readonly serial: number }[]
}

export interface ReadingsOptions {
  readonly chain: ChainView
  readonly confirmations: Confirmations
  readonly clock: Clock
  /** SHA-256 of our SPKI */
  readonly keyServer: Uint8Array
  readonly owners: ReadonlySet<Address>
  readonly trusted: (contract: Address, head: Head) => Promise<boolean>
}

interface TokenBatch {
  readonly clients: Set<Address>
  readonly tokens: Promise<Map<Address, Token>>
}

export class Readings {
  readonly #o: ReadingsOptions
  #head: Head | undefined
  #blockSeconds = 1
  readonly #entries = new Map<Address, Promise<DeviceEntry | undefined>>()
  readonly #tokens = new Map<string, Promise<Token>>()
  readonly #batches = new Map<string, TokenBatch>()
  #lastGoodMs: number | undefined

  constructor(options: ReadingsOptions) {
    this.#o = options
  }

  /** Wall clock of the last moment at which the chain could be read, ms; undefined: never since the start. */
  get lastGoodMs(): number | undefined {
    return this.#lastGoodMs
  }

  set lastGoodMs(value: number | undefined) {
    this.#lastGoodMs = value
  }

  /** Reads at one head, at a newer one if a reorg took it away. @throws `chain/…` */
  at<T>(read: (head: Head) => Promise<T>): Promise<T> {
    return this.#o.chain.atHead(async () => {
      const head = await this.#o.chain.head(HEAD_REUSE_MS)
      this.#forgetOtherHeads(head)
      const result = await read(head)
      this.#lastGoodMs = this.#o.clock.nowMs()
      return result
    })
  }

  /** The device at `head`: is it ours to serve, and whose tokens count? */
  async device(served: ServedDevice, head: Head): Promise<DeviceReading> {
    const entry = await this.#entry(served.address, head)
    const decision = decideDevice(served.record.entry, entry, head, this.#o.confirmations)
    const standing = this.#standing(served, decision, entry)
    const contracts: Address[] = []
    if (standing === 'good' || standing === 'waiting') {
      for (const contract of decision.contracts) {
        if (await this.#o.trusted(contract, head)) contracts.push(contract)
      }
    }
    return { head, standing, decision, contracts }
  }

  /** What the tokens of one client are worth, given what was admitted before. */
  async client(served: ServedDevice, reading: DeviceReading, client: Address): Promise<ClientReading> {
    const before = admissionsOf(served.clients.get(client)?.record ?? { admissions: {} })
    const tokens = await Promise.all(reading.contracts.map((c) => this.#token(c, served.address, client, reading.head)))
    return judge(reading, before, tokens, this.#o.confirmations, Math.floor(this.#o.clock.nowMs() / 1000))
  }

  /** All of them in as few calls as possible. */
  async clients(
    served: ServedDevice,
    reading: DeviceReading,
    clients: readonly Address[],
  ): Promise<Map<Address, ClientReading>> {
    const columns = await Promise.all(
      reading.contracts.map((c) => this.#o.chain.tokensOf(c, served.address, clients, reading.head)),
    )
    const now = Math.floor(this.#o.clock.nowMs() / 1000)
    const readings = new Map<Address, ClientReading>()
    for (const [i, client] of clients.entries()) {
      const before = admissionsOf(served.clients.get(client)?.record ?? { admissions: {} })
      const tokens = columns.map((column) => column[i] as Token)
      readings.set(client, judge(reading, before, tokens, this.#o.confirmations, now))
    }
    return readings
  }

  #standing(served: ServedDevice, decision: DeviceDecision, entry: DeviceEntry | undefined): Standing {
    if (decision.status !== 'good' && decision.status !== 'waiting') return decision.status
    if (entry === undefined) return decision.status
    if (!equalBytes(entry.keyServer, this.#o.keyServer)) return 'foreign-key-server'
    const owned = this.#o.owners.has(entry.owner) || served.record.enrolledOwner === entry.owner
    return owned ? decision.status : 'foreign-owner'
  }

  /** How far apart the last blocks were, seconds: a guess at when "later" is. */
  get blockSeconds(): number {
    return this.#blockSeconds
  }

  #forgetOtherHeads(head: Head): void {
    const last = this.#head
    if (head.hash === last?.hash) return
    this.#head = head
    if (last !== undefined && head.number > last.number) {
      const seconds = (head.timestamp - last.timestamp) / (head.number - last.number)
      this.#blockSeconds = Math.min(60, Math.max(1, Math.round(seconds)))
    }
    this.#entries.clear()
    this.#tokens.clear()
    this.#batches.clear()
  }

  #entry(device: Address, head: Head): Promise<DeviceEntry | undefined> {
    return remember(this.#entries, device, head.hash === this.#head?.hash, () => this.#o.chain.deviceOf(device, head))
  }

  #token(contract: Address, device: Address, client: Address, head: Head): Promise<Token> {
    const key = `${contract}/${device}/${client}`
    return remember(this.#tokens, key, head.hash === this.#head?.hash, () =>
      this.#batched(contract, device, client, head),
    )
  }

  /** Requests that arrive in one turn of the event loop are read together. */
  async #batched(contract: Address, device: Address, client: Address, head: Head): Promise<Token> {
    const key = `${head.hash}/${contract}/${device}`
    let batch = this.#batches.get(key)
    if (batch === undefined) {
      const clients = new Set<Address>()
      const tokens = (async () => {
        await new Promise((resolve) => setImmediate(resolve))
        this.#batches.delete(key)
        const list = [...clients]
        const found = await this.#o.chain.tokensOf(contract, device, list, head)
        return new Map(list.map((c, i) => [c, found[i] as Token]))
      })()
      batch = { clients, tokens }
      this.#batches.set(key, batch)
    }
    batch.clients.add(client)
    return (await batch.tokens).get(client) as Token
  }
}

function remember<T>(map: Map<string, Promise<T>>, key: string, current: boolean, read: () => Promise<T>): Promise<T> {
  if (!current) return read()
  let promise = map.get(key)
  if (promise === undefined) {
    if (map.size >= REMEMBERED) map.delete(map.keys().next().value as string)
    promise = read()
    map.set(key, promise)
    promise.catch(() => map.delete(key))
  }
  return promise
}

/** Applies the rule to one client's tokens; `tokens` in the order of `reading.contracts`. */
export function judge(
  reading: DeviceReading,
  before: ReadonlyMap<Address, AdmissionRecord>,
  tokens: readonly Token[],
  confirmations: Confirmations,
  nowSeconds: number,
): ClientReading {
  const admissions = new Map<Address, AdmissionRecord>()
  const statuses = new Map<Address, Admission>()
  const waiting: { claims: number; missing: number | undefined }[] = []
  const revoked: { contract: Address; serial: number }[] = []
  const time = decisionTime(reading.head, nowSeconds)
  for (const [i, contract] of reading.contracts.entries()) {
    const token = tokens[i] as Token
    const previous = before.get(contract)
    const admission = decide(previous, token, reading.head, confirmations, nowSeconds)
    statuses.set(contract, admission)
    if (admission.record !== undefined) admissions.set(contract, admission.record)
    if (admission.status === 'waiting' || admission.status === 'kept') {
      waiting.push({ claims: token.claims, missing: admission.missing })
    }
    const lost = (previous?.claims ?? 0) & ~(admission.record?.claims ?? 0)
    if (previous !== undefined && lost !== 0 && previous.expiresAt > time && token.serial !== previous.serial) {
      revoked.push({ contract, serial: token.serial })
    }
  }
  // A contract that the registry no longer names took its rights with it.
  for (const [contract, previous] of before) {
    if (!reading.contracts.includes(contract) && previous.expiresAt > time) revoked.push({ contract, serial: 0 })
  }
  return { admissions, bits: membershipsOf(admissions.values()), statuses, waiting, revoked }
}
