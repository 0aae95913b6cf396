/**
 * What the proxy keeps of devices' objects: the latest of each resource (in memory and in the store), past ones, packs
 * and tombstones. It stores what it is told to; `admission.ts` decides.
 */
import { compareBytes, fromHex, toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { decodeRecord, encodeRecord } from '../store/records.ts'
import { prefixRange, type Store, type StoreOperation } from '../store/store.ts'
import { WriteQueue } from './write-queue.ts'

/** One sealed object as it was received. */
export interface StoredObject {
  /** The octets, unchanged. */
  readonly bytes: Uint8Array
  /** First 8 octets of SHA-256 of `bytes`. */
  readonly etag: Uint8Array
  readonly gid: Uint8Array
  readonly session: number
  readonly sid: Uint8Array
  readonly seq: number
  /** Time of sealing, unix seconds. */
  readonly iat: number
}

/** `object`: a reading; `pack`: many readings of one session; `gone`: a tombstone. */
export type ObjectKind = 'object' | 'pack' | 'gone'

export interface ResourceState {
  readonly device: Address
  /** Percent-encoded path, `s/temp`. */
  readonly resource: string
  readonly latest: StoredObject | undefined
  /** The tombstone: nothing at or below its place in the order is taken any more. */
  readonly gone: StoredObject | undefined
}

export interface ArchiveLimits {
  readonly devices: number
  readonly resourcesPerDevice: number
  readonly historyBytesPerDevice: number
  readonly historyKeepSeconds: number
}

export interface PastEntry {
  readonly kind: 'object' | 'pack'
  readonly sid: Uint8Array
  readonly seq: number
  readonly iat: number
  readonly octets: number
}

interface DeviceState {
  readonly resources: Map<string, ResourceState>
  historyBytes: number
}

const SEQ_DIGITS = 13
const TIME_DIGITS = 12
const MAX_LISTED = 1000

export class ObjectArchive {
  readonly #store: Store
  readonly #queue: WriteQueue
  readonly #limits: ArchiveLimits
  readonly #devices = new Map<Address, DeviceState>()

  private constructor(store: Store, limits: ArchiveLimits) {
    this.#store = store
    this.#queue = new WriteQueue(store)
    this.#limits = limits
  }

  /** Reads the latest of every resource into memory. */
  static async open(store: Store, limits: ArchiveLimits): Promise<ObjectArchive> {
    const archive = new ObjectArchive(store, limits)
    for (const field of ['latest', 'gone'] as const) {
      for await (const [key, value] of store.range(prefixRange(`${field} `))) {
        const [, device, resource] = key.split(' ') as [string, Address, string]
        archive.#update(device, resource, { [field]: readObject(value) })
      }
    }
    for await (const [key, value] of store.range(prefixRange('size '))) {
      const device = archive.#devices.get(key.slice(5) as Address)
      if (device !== undefined) device.historyBytes = decodeRecord<number>(value)
    }
    return archive
  }

  get deviceCount(): number {
    return this.#devices.size
  }

  resource(device: Address, resource: string): ResourceState | undefined {
    return this.#devices.get(device)?.resources.get(resource)
  }

  devices(): IterableIterator<Address> {
    return this.#devices.keys()
  }

  /** The resources of a device that have a latest object. */
  resources(device: Address): ResourceState[] {
    return [...(this.#devices.get(device)?.resources.values() ?? [])].filter((r) => r.latest !== undefined)
  }

  /** @throws `proxy/quota` when one more device or resource would be too many */
  assertRoom(device: Address, resource: string): void {
    const state = this.#devices.get(device)
    if (state === undefined && this.#devices.size >= this.#limits.devices) {
      throw new IotchainError('proxy/quota', 'this proxy serves as many devices as it was told to', {
        retryAfterSeconds: 3600,
      })
    }
    if (
      state !== undefined &&
      !state.resources.has(resource) &&
      state.resources.size >= this.#limits.resourcesPerDevice
    ) {
      throw new IotchainError('proxy/quota', 'this device has as many resources here as it may have', {
        retryAfterSeconds: 3600,
      })
    }
  }

  /** Makes `object` the latest; the one before it becomes a past one. Visible when durable. */
  async putLatest(device: Address, resource: string, object: StoredObject): Promise<void> {
    const before = this.resource(device, resource)?.latest
    const operations: StoreOperation[] = [
      { type: 'put', key: `latest ${device} ${resource}`, value: writeObject(object) },
    ]
    const grown = before === undefined ? 0 : this.#addPast(operations, device, resource, 'object', before)
    await this.#commit(device, operations, grown)
    this.#update(device, resource, { latest: object })
    await this.#trim(device)
  }

  /** Keeps a past object or a pack. */
  async putPast(device: Address, resource: string, kind: 'object' | 'pack', object: StoredObject): Promise<void> {
    const operations: StoreOperation[] = []
    const grown = this.#addPast(operations, device, resource, kind, object)
    await this.#commit(device, operations, grown)
    if (this.resource(device, resource) === undefined) this.#update(device, resource, {})
    await this.#trim(device)
  }

  /** Deletes everything of the resource that `isBefore` names, and keeps the tombstone. */
  async putGone(
    device: Address,
    resource: string,
    tombstone: StoredObject,
    isBefore: (place: { readonly sid: Uint8Array; readonly seq: number }) => boolean,
  ): Promise<void> {
    const operations: StoreOperation[] = [
      { type: 'put', key: `gone ${device} ${resource}`, value: writeObject(tombstone) },
    ]
    let shrunk = 0
    for await (const [key, value] of this.#store.range(prefixRange(`time ${device} ${resource} `))) {
      const entry = readPast(key, value)
      if (!isBefore(entry)) continue
      operations.push(...deletions(device, resource, key, entry))
      shrunk += entry.octets
    }
    const latest = this.resource(device, resource)?.latest
    const drop = latest !== undefined && isBefore(latest)
    if (drop) operations.push({ type: 'del', key: `latest ${device} ${resource}` })
    await this.#commit(device, operations, -shrunk)
    this.#update(device, resource, drop ? { gone: tombstone, latest: undefined } : { gone: tombstone })
  }

  /** The past object or pack of exactly this place, or undefined. */
  async past(
    device: Address,
    resource: string,
    kind: 'object' | 'pack',
    sid: Uint8Array,
    seq: number,
  ): Promise<StoredObject | undefined> {
    const value = await this.#store.get(pastKey(device, resource, kind, sid, seq))
    return value === undefined ? undefined : readObject(value)
  }

  /** The newest pack with this sequence number, whatever its Sender ID. */
  async pack(device: Address, resource: string, seq: number): Promise<StoredObject | undefined> {
    let newest: StoredObject | undefined
    for await (const [, value] of this.#store.range(
      prefixRange(`pack ${device} ${resource} ${digits(seq, SEQ_DIGITS)}.`),
    )) {
      const object = readObject(value)
      if (newest === undefined || object.iat > newest.iat) newest = object
    }
    return newest
  }

  /** Past objects and packs sealed within [from, to] (unix seconds), oldest first, at most `limit`. */
  async list(device: Address, resource: string, from: number, to: number, limit = MAX_LISTED): Promise<PastEntry[]> {
    const prefix = `time ${device} ${resource} `
    const out: PastEntry[] = []
    const range = { gte: prefix + digits(from, TIME_DIGITS), lt: prefix + digits(to + 1, TIME_DIGITS), limit }
    for await (const [key, value] of this.#store.range(range)) out.push(readPast(key, value))
    return out
  }

  /** Forgets what is older than it has to be; called now and then. */
  async expire(nowSeconds: number): Promise<void> {
    const horizon = digits(nowSeconds - this.#limits.historyKeepSeconds, TIME_DIGITS)
    for (const [device, state] of this.#devices) {
      for (const resource of state.resources.keys()) {
        const prefix = `time ${device} ${resource} `
        await this.#drop(device, resource, { gte: prefix, lt: prefix + horizon, limit: MAX_LISTED })
      }
    }
  }

  idle(): Promise<void> {
    return this.#queue.idle()
  }

  #addPast(
    operations: StoreOperation[],
    device: Address,
    resource: string,
    kind: 'object' | 'pack',
    object: StoredObject,
  ): number {
    operations.push(
      { type: 'put', key: pastKey(device, resource, kind, object.sid, object.seq), value: writeObject(object) },
      {
        type: 'put',
        key: `time ${device} ${resource} ${digits(object.iat, TIME_DIGITS)} ${kind} ${placeOf(object.sid, object.seq)}`,
        value: encodeRecord(object.bytes.length),
      },
    )
    return object.bytes.length
  }

  async #commit(device: Address, operations: StoreOperation[], grown: number): Promise<void> {
    const state = this.#state(device)
    state.historyBytes = Math.max(0, state.historyBytes + grown)
    if (grown !== 0) operations.push({ type: 'put', key: `size ${device}`, value: encodeRecord(state.historyBytes) })
    try {
      await this.#queue.write(operations)
    } catch (error) {
      state.historyBytes = Math.max(0, state.historyBytes - grown)
      throw error
    }
  }

  /** Over the quota of a device: the oldest past objects of each resource go, in portions. */
  async #trim(device: Address): Promise<void> {
    const state = this.#state(device)
    while (state.historyBytes > this.#limits.historyBytesPerDevice) {
      const before = state.historyBytes
      for (const resource of state.resources.keys()) {
        const prefix = `time ${device} ${resource} `
        await this.#drop(device, resource, { ...prefixRange(prefix), limit: 16 })
      }
      if (state.historyBytes >= before) return
    }
  }

  async #drop(device: Address, resource: string, range: { gte: string; lt: string; limit: number }): Promise<void> {
    const operations: StoreOperation[] = []
    let shrunk = 0
    for await (const [key, value] of this.#store.range(range)) {
      const entry = readPast(key, value)
      operations.push(...deletions(device, resource, key, entry))
      shrunk += entry.octets
    }
    if (operations.length > 0) await this.#commit(device, operations, -shrunk)
  }

  #state(device: Address): DeviceState {
    let state = this.#devices.get(device)
    if (state === undefined) {
      state = { resources: new Map(), historyBytes: 0 }
      this.#devices.set(device, state)
    }
    return state
  }

  #update(device: Address, resource: string, change: Partial<Pick<ResourceState, 'latest' | 'gone'>>): void {
    const { resources } = this.#state(device)
    const before = resources.get(resource) ?? { device, resource, latest: undefined, gone: undefined }
    resources.set(resource, { ...before, ...change })
  }
}

function digits(value: number, width: number): string {
  return String(Math.max(0, Math.floor(value)))
    .padStart(width, '0')
    .slice(-width)
}

function placeOf(sid: Uint8Array, seq: number): string {
  return `${digits(seq, SEQ_DIGITS)}.${toHex(sid)}`
}

function pastKey(device: Address, resource: string, kind: 'object' | 'pack', sid: Uint8Array, seq: number): string {
  return `${kind} ${device} ${resource} ${placeOf(sid, seq)}`
}

function deletions(device: Address, resource: string, timeKey: string, entry: PastEntry): StoreOperation[] {
  return [
    { type: 'del', key: timeKey },
    { type: 'del', key: pastKey(device, resource, entry.kind, entry.sid, entry.seq) },
  ]
}

function readPast(key: string, value: Uint8Array): PastEntry {
  const [, , , iat, kind, place] = key.split(' ') as [string, string, string, string, 'object' | 'pack', string]
  const [seq, sid] = place.split('.') as [string, string]
  return { kind, sid: fromHex(sid), seq: Number(seq), iat: Number(iat), octets: decodeRecord<number>(value) }
}

type Row = [
  bytes: Uint8Array,
  etag: Uint8Array,
  gid: Uint8Array,
  session: number,
  sid: Uint8Array,
  seq: number,
  iat: number,
]

function writeObject(o: StoredObject): Uint8Array {
  return encodeRecord([o.bytes, o.etag, o.gid, o.session, o.sid, o.seq, o.iat] satisfies Row)
}

function readObject(value: Uint8Array): StoredObject {
  const [bytes, etag, gid, session, sid, seq, iat] = decodeRecord<Row>(value)
  return { bytes, etag, gid, session, sid, seq, iat }
}

/** True for the same place in the same incarnation. */
export function samePlace(a: { sid: Uint8Array; seq: number }, b: { sid: Uint8Array; seq: number }): boolean {
  return a.seq === b.seq && compareBytes(a.sid, b.sid) === 0
}
