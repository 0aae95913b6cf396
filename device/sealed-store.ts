/**
 * Sealed objects on this device: the newest of each resource, to be served, and those that the proxy has not taken
 * yet, in the order of their numbers. Writes are gathered (each 5 s or 64 KiB) to spare SD cards; what reaches the
 * proxy before that is never written to the queue. The queue is a ring: the oldest go first, counted.
 */
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { decodeRecord, encodeRecord } from '../store/records.ts'
import { prefixRange, type Store, type StoreOperation } from '../store/store.ts'
import type { SealedObject } from './sealed-object.ts'

const COMMIT_MS = 5000
const COMMIT_OCTETS = 64 * 1024
/** Worn SD cards take many seconds for a write, not minutes. */
const HANGING_MS = 120_000
/** Objects that are kept in memory for the uploader; beyond it, it reads them from the disk. */
const MEMORY_OBJECTS = 512

export interface QueuedObject {
  readonly path: string
  readonly seq: number
  readonly iat: number
  readonly signed: Uint8Array
  /** Never a resource's newest: a pack, a tombstone. */
  readonly past: boolean
}

export interface SealedStoreOptions {
  readonly store: Store
  readonly log: Logger
  /** Write each object before it is served. */
  readonly strict: boolean
  /** Objects that may wait for the proxy; 0 where there is none. */
  readonly queueCapacity: number
}

export class SealedStore {
  readonly #options: SealedStoreOptions
  readonly #latest = new Map<string, SealedObject>()
  readonly #dirty = new Map<string, SealedObject>()
  /** Queued objects in memory, by number; those in `#written` are on disk too. */
  readonly #queue = new Map<number, QueuedObject>()
  readonly #unwritten = new Set<number>()
  readonly #deletions = new Set<number>()
  #diskQueued = 0
  #octets = 0
  #timer: NodeJS.Timeout | undefined
  #commit: Promise<void> = Promise.resolve()
  #closed = false
  #writingSinceMs: number | undefined
  /** Objects that fell out of the ring. */
  dropped = 0
  /** The error of the last commit, undefined when it went well. */
  lastError: unknown

  private constructor(options: SealedStoreOptions) {
    this.#options = options
  }

  static async open(options: SealedStoreOptions): Promise<SealedStore> {
    const self = new SealedStore(options)
    for await (const [, value] of options.store.range(prefixRange('o/'))) {
      try {
        const object = decodeRecord<SealedObject>(value)
        self.#latest.set(object.path, object)
      } catch (error) {
        options.log.warn({ err: error }, 'a stored object cannot be read: left out')
      }
    }
    for await (const _ of options.store.range(prefixRange('u/'))) self.#diskQueued++
    return self
  }

  /**
   * True when a write does not come back: a new process may have better luck. One that fails at once (a full or a
   * read-only disk) is tried again here; a restart would only lose what memory holds.
   */
  hangs(nowMs = performance.now()): boolean {
    return this.#writingSinceMs !== undefined && nowMs - this.#writingSinceMs > HANGING_MS
  }

  /** The newest object of a resource. */
  latest(path: string): SealedObject | undefined {
    return this.#latest.get(path)
  }

  /** Objects that wait for the proxy. */
  get queued(): number {
    return this.#diskQueued - this.#deletions.size + this.#unwritten.size
  }

  /**
   * Takes an object: as the newest of its resource, and into the queue. Resolves at once, or, with `strict`, when it
   * is on the disk.
   */
  async add(object: SealedObject, options: { readonly latest: boolean }): Promise<void> {
    if (options.latest) {
      this.#latest.set(object.path, object)
      this.#dirty.set(object.path, object)
      this.#octets += object.signed.length + object.encrypt0.length
    }
    if (this.#options.queueCapacity > 0) {
      const { path, seq, iat, signed } = object
      this.#queue.set(seq, { path, seq, iat, signed, past: !options.latest })
      this.#unwritten.add(seq)
      this.#octets += signed.length
      if (this.#queue.size > MEMORY_OBJECTS) this.#forgetOldestWritten()
    }
    if (this.#options.strict || this.#octets >= COMMIT_OCTETS) await this.commit()
    else this.#schedule()
  }

  /** The first queued object that is in memory and was sealed at `minIat` or later, to be a resource's newest. */
  live(minIat: number): QueuedObject | undefined {
    for (const object of this.#queue.values()) if (!object.past && object.iat >= minIat) return object
    return undefined
  }

  /** The oldest queued objects, at most `limit`, without those that `live(minIat)` gives. */
  async backlog(limit: number, minIat = Number.POSITIVE_INFINITY): Promise<QueuedObject[]> {
    const found: QueuedObject[] = []
    const isLive = (object: QueuedObject): boolean =>
      !object.past && object.iat >= minIat && this.#queue.has(object.seq)
    let unreadable = false
    for await (const [key, value] of this.#options.store.range({
      ...prefixRange('u/'),
      limit: limit + this.#deletions.size,
    })) {
      if (this.#deletions.has(seqOfKey(key))) continue
      const object = this.#read(key, value)
      if (object === undefined) unreadable = true
      else if (!isLive(object)) found.push(object)
      if (found.length === limit) return found
    }
    // they stood in the place of others, which have to be looked at now
    if (unreadable && found.length === 0) return this.backlog(limit, minIat)
    for (const seq of this.#unwritten) {
      if (found.length === limit) break
      const object = this.#queue.get(seq)
      if (object !== undefined && !isLive(object)) found.push(object)
    }
    return found
  }

  /** The proxy has it, or will never take it. */
  done(object: QueuedObject): void {
    this.#queue.delete(object.seq)
    if (this.#unwritten.delete(object.seq)) return
    this.#deletions.add(object.seq)
    this.#schedule()
  }

  /** Drops the newest object of a resource, and what of it waits for the proxy. */
  async forget(path: string): Promise<void> {
    this.#latest.delete(path)
    this.#dirty.delete(path)
    await this.commit()
    const { store } = this.#options
    for await (const [key, value] of store.range(prefixRange('u/'))) {
      const object = this.#read(key, value)
      if (object === undefined) continue
      if (object.path === path || object.path.startsWith(`${path}/`)) this.done(object)
    }
    await store.batch([{ type: 'del', key: `o/${path}` }])
  }

  /** Writes what is not written yet, durably. Errors are logged, kept in `lastError`, and tried again. */
  async commit(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    // One that failed, e.g. because the disk could not be read, must not keep all that follow from being written.
    this.#commit = this.#commit.catch(() => undefined).then(() => this.#write())
    await this.#commit
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.commit()
    clearTimeout(this.#timer)
  }

  async #write(): Promise<void> {
    const { store, log } = this.#options
    const latest = [...this.#dirty.values()]
    const fresh = [...this.#unwritten]
    const deleted = [...this.#deletions]
    this.#octets = 0
    const operations: StoreOperation[] = [
      ...latest.map((o) => ({ type: 'put', key: `o/${o.path}`, value: encodeRecord(o) }) as const),
      ...fresh.map((seq) => ({ type: 'put', key: queueKey(seq), value: encodeRecord(this.#queue.get(seq)) }) as const),
      ...deleted.map((seq) => ({ type: 'del', key: queueKey(seq) }) as const),
    ]
    if (operations.length === 0) return
    try {
      this.#writingSinceMs = performance.now()
      await store.batch(operations, { sync: true })
      this.lastError = undefined
    } catch (error) {
      this.lastError = error
      log.limited('commit', 'error', { err: error }, 'sealed objects could not be stored; they stay in memory')
      this.#trimMemory()
      this.#schedule()
      return
    } finally {
      this.#writingSinceMs = undefined
    }
    for (const object of latest) if (this.#dirty.get(object.path) === object) this.#dirty.delete(object.path)
    for (const seq of deleted) this.#deletions.delete(seq)
    for (const seq of fresh) {
      // Taken by the proxy while it was being written: it has to go again.
      if (!this.#unwritten.delete(seq)) this.#deletions.add(seq)
    }
    this.#diskQueued += fresh.length - deleted.length
    if (this.#deletions.size > 0) this.#schedule()
    await this.#dropOldest()
  }

  /** A record of the queue. One that cannot be read is taken out: nothing else shall wait for it. */
  #read(key: string, value: Uint8Array): QueuedObject | undefined {
    const seq = seqOfKey(key)
    try {
      const object = decodeRecord<QueuedObject | undefined>(value)
      if (object?.seq === seq && typeof object.path === 'string' && object.signed instanceof Uint8Array) return object
      throw new IotchainError('store/corrupt', 'a record of the local store is not what it should be')
    } catch (error) {
      this.#options.log.limited('queue-record', 'warn', { seq, err: error }, 'a queued object cannot be read: left out')
      this.#deletions.add(seq)
      this.#schedule()
      return undefined
    }
  }

  /** The ring: makes room on the disk. */
  async #dropOldest(): Promise<void> {
    const over = this.#diskQueued - this.#deletions.size - this.#options.queueCapacity
    if (over <= 0) return
    const oldest = await this.backlog(over)
    for (const object of oldest) this.done(object)
    this.dropped += oldest.length
    this.#options.log.limited(
      'queue-full',
      'warn',
      { dropped: this.dropped },
      'the proxy has been away too long: the oldest objects are dropped',
    )
  }

  /** With a disk that takes nothing, memory is bounded too. */
  #trimMemory(): void {
    for (const seq of this.#unwritten) {
      if (this.#unwritten.size <= MEMORY_OBJECTS) return
      this.#unwritten.delete(seq)
      this.#queue.delete(seq)
      this.dropped++
    }
  }

  #forgetOldestWritten(): void {
    for (const seq of this.#queue.keys()) {
      if (this.#unwritten.has(seq)) continue
      this.#queue.delete(seq)
      return
    }
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#closed) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.commit().catch((error: unknown) => {
        if (!isIotchainError(error)) this.#options.log.error({ err: error }, 'storing sealed objects failed')
      })
    }, COMMIT_MS)
  }
}

/** Twelve hex digits hold 48 bits: keys sort as numbers do. */
function queueKey(seq: number): string {
  return `u/${seq.toString(16).padStart(12, '0')}`
}

function seqOfKey(key: string): number {
  return Number.parseInt(key.slice(2), 16)
}
