/**
 * Signed credentials (CWT): which key and which Sender IDs are a device's, or a commanding client's. Renewed when half
 * of their life is over, so that neighbours overlap; kept as long as the broadcasts of their time.
 */

import { equalBytes, toHex } from '../protocol/bytes.ts'
import { encodeCbor } from '../protocol/cbor.ts'
import type { Clock } from '../protocol/clock.ts'
import { publicKeyOf, thumbprint } from '../protocol/cose/key.ts'
import type { CryptoSuite, SigningKey } from '../protocol/crypto/suite.ts'
import { clientMemberId, deviceMemberId } from '../protocol/groups/gid.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { CREDENTIAL_SECONDS, issueCredential } from '../protocol/objects/credential.ts'
import { coversTime } from '../protocol/objects/verify.ts'
import type { StoreOperation } from '../store/store.ts'
import type { Gate } from './gate.ts'
import type { Group } from './group.ts'
import { neededSenderIds, type SenderIdsByGroup } from './sender-id-records.ts'
import { type CredentialRecord, del, Key, putRecord, type SenderIdRecord, type Storage } from './storage.ts'

/** Octets of credentials in one reply: a message has at most 64 KiB. */
const REPLY_OCTETS = 48 * 1024

/** Seconds before half of its life at which a credential is renewed. */
const RENEW_AHEAD = 300

export interface CredentialSubject {
  /** the device whose group it is for: also the folder of the store */
  readonly device: Address
  /** the device itself, or a client that commands it */
  readonly subject: Address
  readonly role?: 'w' | undefined
  /** encoded COSE_Key */
  readonly coseKey: Uint8Array
  readonly senderIds: SenderIdsByGroup
  /** unix seconds: not valid beyond this */
  readonly until?: number | undefined
}

export interface CredentialsOptions {
  readonly suite: CryptoSuite
  readonly signingKey: SigningKey
  readonly storage: Storage
  readonly clock: Clock
  /** iss */
  readonly issuer: string
  /** How long expired credentials are kept, seconds: the life of the archive. */
  readonly retentionSeconds: number
}

export class Credentials {
  readonly #o: CredentialsOptions
  /** device → subject → credentials that have not expired, oldest first */
  readonly #live = new Map<Address, Map<Address, CredentialRecord[]>>()

  constructor(options: CredentialsOptions) {
    this.#o = options
  }

  async load(): Promise<void> {
    const now = this.#now()
    for await (const [key, record] of this.#o.storage.records<CredentialRecord>('cred/')) {
      const [, device, subject] = key.split('/') as [string, Address, Address]
      if (record.exp > now) this.#list(device, subject).push(record)
    }
  }

  /** True if the thumbprint is that of the key. */
  isFor(thumb: Uint8Array | undefined, coseKey: Uint8Array): boolean {
    return thumb !== undefined && equalBytes(thumb, thumbprint(this.#o.suite, coseKey))
  }

  /** The operation that writes a new credential if one is due; adopt it after the commit. */
  prepare(subject: CredentialSubject): { operation: StoreOperation; adopt: () => void } | undefined {
    const now = this.#now()
    const groups = this.#groupsOf(subject.senderIds, now)
    if (groups.size === 0) return undefined
    const exp = Math.min(now + CREDENTIAL_SECONDS, subject.until ?? Number.MAX_SAFE_INTEGER)
    if (exp <= now) return undefined
    const content = toHex(
      this.#o.suite.sha256(
        encodeCbor([
          subject.coseKey,
          subject.role ?? '',
          [...groups].map(([g, s]) => [g, s.map((x) => [x.sid, x.from])]),
        ]),
      ),
    )
    const newest = this.#list(subject.device, subject.subject).at(-1)
    if (newest !== undefined && newest.content === content) {
      const early = now < renewAt(newest)
      const tooLong = subject.until !== undefined && subject.until < newest.exp
      if (!tooLong && (early || exp <= newest.exp)) return undefined
    }
    const bytes = issueCredential(
      this.#o.suite,
      {
        issuer: this.#o.issuer,
        subject: subject.subject,
        role: subject.role,
        iat: now,
        exp,
        publicKey: publicKeyOf(subject.coseKey),
        groups,
      },
      this.#o.signingKey,
    )
    const senderIds: Record<string, Uint8Array> = {}
    for (const [name, grants] of groups) senderIds[name] = (grants.at(-1) as SenderIdRecord).sid
    const record: CredentialRecord = { bytes, iat: now, exp, senderIds, content, role: subject.role }
    return {
      operation: putRecord(Key.credential(subject.device, subject.subject, now), record),
      adopt: () => {
        const list = this.#list(subject.device, subject.subject)
        if (list.at(-1)?.iat === now) list.pop()
        list.push(record)
      },
    }
  }

  /** Issues those that are due; `gate` keeps out whoever changes the subjects' records meanwhile. */
  async renew(subjects: () => readonly CredentialSubject[], gate: Gate): Promise<void> {
    if (subjects().every((s) => this.prepare(s) === undefined)) return
    await gate.run(async () => {
      const due = subjects().flatMap((s) => this.prepare(s) ?? [])
      if (due.length > 0) await this.#o.storage.commit(due.map((d) => d.operation))
      for (const { adopt } of due) adopt()
    })
  }

  /**
   * Credentials of a group that have not expired: the device's, and on request those of its commanders. Of somebody
   * who is out there is none: not even the archive's past is vouched for to new readers without `listAt`.
   */
  list(group: Group, withClients: boolean): CredentialRecord[] {
    const now = this.#now()
    const found: CredentialRecord[] = []
    for (const [subject, records] of this.#live.get(group.device) ?? []) {
      while (records[0] !== undefined && records[0].exp <= now) records.shift()
      const newest = records.at(-1)
      if (newest === undefined || (newest.role !== undefined && !withClients)) continue
      const octets = addressBytes(subject)
      if (!group.isMember(newest.role === undefined ? deviceMemberId(octets) : clientMemberId(octets))) continue
      found.push(...records.filter((record) => group.name in record.senderIds))
    }
    return capped(found)
  }

  /** The newest credential of one subject, if it is good now. */
  newest(device: Address, subject: Address, group: string): Uint8Array | undefined {
    const record = this.#live.get(device)?.get(subject)?.at(-1)
    return record !== undefined && record.exp > this.#now() && group in record.senderIds ? record.bytes : undefined
  }

  /** Credentials of the device that cover objects sealed at a moment of the past (protocol.md §4.4). */
  async listAt(device: Address, group: string, at: number): Promise<CredentialRecord[]> {
    const found: CredentialRecord[] = []
    for await (const [, record] of this.#o.storage.records<CredentialRecord>(`cred/${device}/${device}/`)) {
      if (coversTime(record, at) && group in record.senderIds) found.push(record)
    }
    return capped(found)
  }

  /** Drops what nobody can need any more. */
  async prune(): Promise<void> {
    const before = this.#now() - this.#o.retentionSeconds
    const operations: StoreOperation[] = []
    for await (const [key, record] of this.#o.storage.records<CredentialRecord>('cred/')) {
      if (record.exp < before) operations.push(del(key))
    }
    if (operations.length > 0) await this.#o.storage.commit(operations)
  }

  #groupsOf(senderIds: CredentialSubject['senderIds'], now: number): Map<string, readonly SenderIdRecord[]> {
    const kept = new Map<string, readonly SenderIdRecord[]>()
    for (const [name, all] of Object.entries(senderIds)) {
      if (all.length > 0) kept.set(name, neededSenderIds(all, now, this.#o.retentionSeconds))
    }
    return new Map([...kept].sort(([a], [b]) => (a < b ? -1 : 1)))
  }

  #list(device: Address, subject: Address): CredentialRecord[] {
    let subjects = this.#live.get(device)
    if (subjects === undefined) {
      subjects = new Map()
      this.#live.set(device, subjects)
    }
    let list = subjects.get(subject)
    if (list === undefined) {
      list = []
      subjects.set(subject, list)
    }
    return list
  }

  #now(): number {
    return Math.floor(this.#o.clock.nowMs() / 1000)
  }
}

/** A little before half of its life: half of it is then left however late the look comes (sessions.ts). */
function renewAt({ iat, exp }: CredentialRecord): number {
  const life = exp - iat
  return iat + life / 2 - Math.min(RENEW_AHEAD, life / 8)
}

/** The newest ones that fit into one message, oldest first. */
function capped(records: CredentialRecord[]): CredentialRecord[] {
  let room = REPLY_OCTETS
  const kept: CredentialRecord[] = []
  for (const record of [...records].sort((a, b) => b.iat - a.iat)) {
    room -= record.bytes.length
    if (room < 0) break
    kept.unshift(record)
  }
  return kept
}
