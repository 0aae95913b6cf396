/**
 * What a client keeps across restarts: its memberships with their secret keys, the newest object accepted of each
 * resource, and how far its own sequence numbers are used up. Several commands may share the folder, so that every
 * write looks at what stands there first: nothing ever goes back.
 */
import type { OpenTransaction } from '../chain/transaction.ts'
import { compareBytes, equalBytes, toHex } from '../protocol/bytes.ts'
import { gname, toGid } from '../protocol/groups/gid.ts'
import type { MemberState } from '../protocol/groups/scheme.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { GroupPolicies } from '../protocol/messages/policies.ts'
import type { ResourcePath } from '../protocol/objects/aad.ts'
import type { Accepted } from '../protocol/objects/judge.ts'
import { SEQ_RESERVE, SeqCounter } from '../protocol/objects/seq.ts'
import { decodeRecord, encodeRecord } from '../store/records.ts'
import { prefixRange, type Store } from '../store/store.ts'
import type { SeenStore } from './open.ts'
import type { RelayRecord } from './relay-record.ts'
import { SharedStore } from './shared-store.ts'

/** Everything that makes a Membership again. Secret. */
export interface MembershipRecord {
  readonly version: 1
  readonly client: Address
  readonly device: Address
  readonly bit: number
  readonly gid: Uint8Array
  readonly chainId: number
  readonly registry: Address
  readonly keyServer: { readonly uri: string; readonly spki: Uint8Array }
  /** Encoded COSE_Key of the key server. */
  readonly kdcCred: Uint8Array
  /** Where broadcasts are observed, plain CoAP. */
  readonly broadcasts: string
  readonly policies: GroupPolicies
  readonly credentials: readonly Uint8Array[]
  readonly member: MemberState
  /** Command clients: the Sender ID, and the seed of the Ed25519 key that signs commands. */
  readonly senderId?: Uint8Array | undefined
  readonly commandSeed?: Uint8Array | undefined
  /** unix seconds */
  readonly joinedAt: number
}

/** A token that this client asked for, so that it can be renewed in the same way. */
export interface RequestRecord {
  readonly client: Address
  readonly device: Address
  readonly contract: Address
  readonly offer: number
  readonly ttlSeconds: number
  /** The key server's relay paid the transaction. */
  readonly relayed: boolean
  /** unix seconds */
  readonly requestedAt: number
  /** What was shown, as a person named it: a renewal fetches it again. */
  readonly shown?: ShownEvidence | undefined
}

export interface ShownEvidence {
  /** file with the addresses of an allowlist, absolute */
  readonly list?: string | undefined
  /** absolute file or URL of an attestation */
  readonly attestation?: string | undefined
}

/** Who asks for which offer. */
export interface RequestKey {
  readonly client: Address
  readonly contract: Address
  readonly offer: number
}

interface SeenRecord extends Accepted {
  readonly path: readonly string[]
  /** ETags of the last ones accepted, newest last. */
  readonly recent: readonly Uint8Array[]
}

const MAX_RECENT = 64
const MAX_PATHS = 256

export class ClientState implements SeenStore {
  readonly #store: Store
  #turn: Promise<unknown> = Promise.resolve()

  constructor(store: Store) {
    this.#store = store
  }

  /** @param client only those of this address */
  async memberships(client?: Address): Promise<MembershipRecord[]> {
    const out: MembershipRecord[] = []
    for await (const [, value] of this.#store.range(prefixRange('member '))) {
      const record = decodeRecord<MembershipRecord>(value)
      if (client === undefined || record.client === client) out.push(record)
    }
    return out
  }

  async membership(client: Address, gid: Uint8Array): Promise<MembershipRecord | undefined> {
    const value = await this.#store.get(memberKey(client, gid))
    return value === undefined ? undefined : decodeRecord<MembershipRecord>(value)
  }

  /** Keeps a membership; what another command has learnt meanwhile is not lost. */
  saveMembership(record: MembershipRecord): Promise<void> {
    const key = memberKey(record.client, record.gid)
    return this.#exclusively(async (store) => {
      const value = await store.get(key)
      const stored = value === undefined ? undefined : decodeRecord<MembershipRecord>(value)
      const kept = stored === undefined ? record : { ...record, member: merged(stored.member, record.member) }
      await store.batch([{ type: 'put', key, value: encodeRecord(kept) }], { sync: true })
    })
  }

  async removeMembership(client: Address, gid: Uint8Array): Promise<void> {
    await this.#store.batch([{ type: 'del', key: memberKey(client, gid) }], { sync: true })
  }

  async requests(client: Address): Promise<RequestRecord[]> {
    const out: RequestRecord[] = []
    for await (const [, value] of this.#store.range(prefixRange(`request ${client} `))) out.push(decodeRecord(value))
    return out
  }

  /** Keeps what was asked for; one record for each contract and offer. */
  async saveRequest(record: RequestRecord): Promise<void> {
    const key = `request ${record.client} ${record.contract} ${record.offer}`
    await this.#store.batch([{ type: 'put', key, value: encodeRecord(record) }], { sync: true })
  }

  /** A transaction of a request whose outcome is not known, by the step that it is. */
  async openTransaction(key: RequestKey, step: string): Promise<OpenTransaction | undefined> {
    const value = await this.#store.get(sendingKey(key, step))
    return value === undefined ? undefined : decodeRecord<OpenTransaction>(value)
  }

  /** Durable when it resolves. @param transaction undefined: its outcome is known */
  async keepTransaction(key: RequestKey, step: string, transaction: OpenTransaction | undefined): Promise<void> {
    await this.#put(sendingKey(key, step), transaction)
  }

  /** Requests through a relay whose token does not stand yet. */
  async relayRecords(contract: Address, offer: number): Promise<RelayRecord[]> {
    const out: RelayRecord[] = []
    for await (const [, value] of this.#store.range(prefixRange(`relaying ${contract} ${offer} `))) {
      out.push(decodeRecord(value))
    }
    return out
  }

  /** Durable when it resolves. */
  async saveRelayRecord(record: RelayRecord): Promise<void> {
    await this.#put(relayingKey(record), record)
  }

  async removeRelayRecord(key: RequestKey): Promise<void> {
    await this.#put(relayingKey(key), undefined)
  }

  async accepted(device: Address, path: ResourcePath): Promise<Accepted | undefined> {
    return this.#seen(this.#store, device, path)
  }

  async wasAccepted(device: Address, path: ResourcePath, etag: Uint8Array): Promise<boolean> {
    const record = await this.#seen(this.#store, device, path)
    return record?.recent.some((e) => equalBytes(e, etag)) ?? false
  }

  accept(device: Address, path: ResourcePath, accepted: Accepted): Promise<void> {
    return this.#exclusively(async (store) => {
      const before = await this.#seen(store, device, path)
      if (before !== undefined && equalBytes(before.etag, accepted.etag)) return
      // Another command may have accepted a later one of the same incarnation since the decision was made.
      if (before !== undefined && compareBytes(before.sid, accepted.sid) === 0 && before.seq > accepted.seq) return
      const recent = [...(before?.recent ?? []), accepted.etag].slice(-MAX_RECENT)
      const { sid, seq, etag } = accepted
      const record: SeenRecord = { sid, seq, etag, path: [...path], recent }
      await store.batch([{ type: 'put', key: seenKey(device, path), value: encodeRecord(record) }])
    })
  }

  async paths(device: Address): Promise<readonly ResourcePath[]> {
    const out: ResourcePath[] = []
    for await (const [, value] of this.#store.range({ ...prefixRange(`seen ${device} `), limit: MAX_PATHS })) {
      out.push(decodeRecord<SeenRecord>(value).path)
    }
    return out
  }

  /**
   * A sequence number of this Sender ID that was never used and never will be again; durable when it resolves. Bound to
   * the clock, so that an old copy of this folder repeats none (protocol.md §4.2).
   * @param startMs wall clock when this program started: nothing is given out within that second
   * @returns the number, or how long to wait before asking again
   */
  takeSequence(
    gid: Uint8Array,
    sid: Uint8Array,
    startMs: number,
    nowMs: number,
  ): Promise<{ seq: number } | { waitMs: number }> {
    return this.#exclusively(async (store) => {
      const key = sequenceKey(gid, sid)
      const value = await store.get(key)
      const counter = new SeqCounter(value === undefined ? 0 : decodeRecord<number>(value), startMs)
      const step = counter.next(nowMs)
      if (step.do === 'wait') return { waitMs: step.ms }
      const seq = step.do === 'use' ? step.seq : step.limit - SEQ_RESERVE
      await store.batch([{ type: 'put', key, value: encodeRecord(seq + 1) }], { sync: true })
      return { seq }
    })
  }

  async #seen(store: Store, device: Address, path: ResourcePath): Promise<SeenRecord | undefined> {
    const value = await store.get(seenKey(device, path))
    return value === undefined ? undefined : decodeRecord<SeenRecord>(value)
  }

  async #put(key: string, value: object | undefined): Promise<void> {
    await this.#store.batch(
      [value === undefined ? { type: 'del', key } : { type: 'put', key, value: encodeRecord(value) }],
      {
        sync: true,
      },
    )
  }

  #exclusively<T>(work: (store: Store) => Promise<T>): Promise<T> {
    if (this.#store instanceof SharedStore) return this.#store.exclusively(work)
    const result = this.#turn.then(() => work(this.#store))
    this.#turn = result.catch(() => undefined)
    return result
  }
}

/** What both know: stretches of sessions of the one that is ahead, keys of both. */
function merged(stored: MemberState, own: MemberState): MemberState {
  const ahead = stored.session > own.session ? stored : own
  const mine = (p: MemberState['personals'][number]): boolean =>
    own.personals.some((q) => q.epoch === p.epoch && q.leaf === p.leaf)
  const personals = [...stored.personals.filter((p) => !mine(p)), ...own.personals]
  const keys = [...stored.keys.filter((k) => !own.keys.some((q) => q.session === k.session)), ...own.keys]
  return { ...ahead, used: Math.max(stored.used, own.used), personals, keys }
}

const sendingKey = (k: RequestKey, step: string): string => `sending ${k.client} ${k.contract} ${k.offer} ${step}`
const relayingKey = (k: RequestKey): string => `relaying ${k.contract} ${k.offer} ${k.client}`

function memberKey(client: Address, gid: Uint8Array): string {
  return `member ${client} ${gname(toGid(gid))}`
}

function seenKey(device: Address, path: ResourcePath): string {
  return `seen ${device} ${JSON.stringify(path)}`
}

function sequenceKey(gid: Uint8Array, sid: Uint8Array): string {
  return `seq ${gname(toGid(gid))} ${toHex(sid)}`
}
