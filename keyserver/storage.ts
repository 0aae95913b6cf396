/**
 * What the key server keeps, and under which keys. All numbers in keys are fixed-width hex, so that ranges are in
 * order. Whatever leaves the key server was written by a synced batch of these operations before.
 */
import type { AdmissionRecord } from '../chain/rule.ts'
import type { DeviceEntry } from '../chain/types.ts'
import type { AeadAlgorithm } from '../protocol/crypto/suite.ts'
import type {
  ManagerChanges,
  ManagerHead,
  ManagerState,
  Membership,
  SessionRecord,
} from '../protocol/groups/manager-state.ts'
import type { Address } from '../protocol/messages/address.ts'
import { decodeRecord, encodeRecord } from '../store/records.ts'
import { prefixRange, type Store, type StoreOperation } from '../store/store.ts'

export interface GroupRecord {
  readonly device: Address
  readonly bit: number
  /** unix seconds */
  readonly createdAt: number
  /** COSE algorithm of its objects, fixed for its life */
  readonly aead: AeadAlgorithm
}

export interface SenderIdRecord {
  readonly sid: Uint8Array
  /** unix seconds of issue */
  readonly from: number
}

export interface DeviceRecord {
  readonly device: Address
  /** owner named by the enrolment code; undefined for a device whose certificate came from elsewhere */
  readonly enrolledOwner?: Address | undefined
  /** registry entry last admitted (chain rule) */
  readonly entry?: DeviceEntry | undefined
  /** encoded COSE_Key of the object-signing key that it proved last */
  readonly coseKey?: Uint8Array | undefined
  /** SHA-256 and end (unix seconds) of the certificate that it joined with last */
  readonly certificate?: { readonly sha256: Uint8Array; readonly serial: string; readonly notAfter: number } | undefined
  /** gname → Sender IDs in order of issue */
  readonly senderIds: Readonly<Record<string, readonly SenderIdRecord[]>>
}

export interface ClientRecord {
  /** contract → what was admitted last */
  readonly admissions: Readonly<Record<Address, AdmissionRecord>>
  /** encoded COSE_Key of its command key, and its Sender IDs by group */
  readonly commandKey?: Uint8Array | undefined
  readonly senderIds?: Readonly<Record<string, readonly SenderIdRecord[]>> | undefined
}

export interface CredentialRecord {
  readonly bytes: Uint8Array
  readonly role?: 'w' | undefined
  readonly iat: number
  readonly exp: number
  /** newest Sender ID by group name */
  readonly senderIds: Readonly<Record<string, Uint8Array>>
  /** hash over what it says beside the times: another one is due when this changes */
  readonly content: string
}

/** A device certificate that this key server issued. */
export interface CertificateRecord {
  /** hex, lower case */
  readonly serial: string
  readonly device: Address
  readonly owner: Address | undefined
  /** DER of the request and of the certificate */
  readonly csr: Uint8Array
  readonly certificate: Uint8Array
  /** unix seconds */
  readonly notAfter: number
}

/** An enrolment code that has been used, and by whom. */
export interface CodeUseRecord {
  readonly csrHash: string
  readonly device: Address
  readonly serial: string
  /** unix seconds */
  readonly at: number
}

/** A relayed token request: counted against the day from before it is sent. */
export interface RelayRecord {
  /** unix seconds */
  readonly at: number
  readonly client: Address
  /** decimal: what it costs at most, once mined what it did cost */
  readonly wei: string
  /** of the transaction, once it is sent */
  readonly hash: string | undefined
}

export interface RevocationRecord {
  /** unix seconds */
  readonly at: number
}

export interface StoredGroup {
  readonly name: string
  readonly record: GroupRecord
  readonly state: ManagerState
}

const hex8 = (n: number): string => n.toString(16).padStart(8, '0')
const hex12 = (n: number): string => n.toString(16).padStart(12, '0')

export const Key = {
  meta: 'meta',
  chain: 'chain',
  group: (g: string): string => `group/${g}/record`,
  head: (g: string): string => `group/${g}/head`,
  member: (g: string, number: number): string => `member/${g}/${hex8(number)}`,
  session: (g: string, session: number): string => `session/${g}/${hex8(session)}`,
  broadcast: (g: string, session: number): string => `bc/${g}/${hex8(session)}`,
  secret: (g: string, epoch: number): string => `em/${g}/${hex8(epoch)}`,
  device: (d: Address): string => `device/${d}`,
  client: (d: Address, c: Address): string => `client/${d}/${c}`,
  certificates: (d: Address): string => `cert/${d}/`,
  certificate: (d: Address, serial: string): string => `cert/${d}/${serial}`,
  codeUse: (identity: string): string => `code/${identity}`,
  relay: (digest: string): string => `relay/${digest}`,
  revoked: (serial: string): string => `revoked/${serial}`,
  credential: (d: Address, subject: Address, iat: number): string => `cred/${d}/${subject}/${hex12(iat)}`,
}

export function putRecord(key: string, value: unknown): StoreOperation {
  return { type: 'put', key, value: encodeRecord(value) }
}

export function del(key: string): StoreOperation {
  return { type: 'del', key }
}

/** The operations that make a manager's changes durable; epoch secrets apart. */
export function groupOperations(name: string, changes: ManagerChanges): StoreOperation[] {
  const operations: StoreOperation[] = [putRecord(Key.head(name), changes.head)]
  for (const m of changes.memberships) operations.push(putRecord(Key.member(name, m.number), m))
  for (const n of changes.droppedMemberships) operations.push(del(Key.member(name, n)))
  for (const s of changes.sessions) operations.push(putRecord(Key.session(name, s.session), s))
  for (const s of changes.droppedSessions) operations.push(del(Key.session(name, s)), del(Key.broadcast(name, s)))
  const { broadcast } = changes
  if (broadcast !== undefined) {
    operations.push({ type: 'put', key: Key.broadcast(name, broadcast.session), value: broadcast.bytes })
  }
  return operations
}

/** Reads and typed writes over the store. */
export class Storage {
  readonly store: Store

  constructor(store: Store) {
    this.store = store
  }

  async get<T>(key: string): Promise<T | undefined> {
    const octets = await this.store.get(key)
    return octets === undefined ? undefined : decodeRecord<T>(octets)
  }

  async *records<T>(prefix: string): AsyncIterable<[string, T]> {
    for await (const [key, octets] of this.store.range(prefixRange(prefix))) yield [key, decodeRecord<T>(octets)]
  }

  /** Durable when it resolves. @throws `store/…`: nothing of it was written */
  async commit(operations: readonly StoreOperation[]): Promise<void> {
    await this.store.batch(operations, { sync: true })
  }

  async *groups(): AsyncIterable<StoredGroup> {
    for await (const [key, record] of this.records<GroupRecord>('group/')) {
      const [, name, kind] = key.split('/') as [string, string, string]
      if (kind !== 'record') continue
      const head = await this.get<ManagerHead>(Key.head(name))
      if (head === undefined) continue
      const memberships = await collect<Membership>(this.records(`member/${name}/`))
      const sessions = await collect<SessionRecord>(this.records(`session/${name}/`))
      yield { name, record, state: { head, memberships, sessions } }
    }
  }

  broadcast(name: string, session: number): Promise<Uint8Array | undefined> {
    return this.store.get(Key.broadcast(name, session))
  }
}

async function collect<T>(records: AsyncIterable<[string, T]>): Promise<T[]> {
  const out: T[] = []
  for await (const [, value] of records) out.push(value)
  return out
}
