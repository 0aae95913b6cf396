/**
 * A state folder that several commands share. LevelDB serves one process at a time, and a person runs `watch` in one
 * window and `read` in another: so the folder is opened for a piece of work and released when it has been idle.
 */
import { isIotchainError } from '../protocol/errors.ts'
import { openLevelStore } from '../store/level.ts'
import type { Store, StoreOperation, StoreRange } from '../store/store.ts'

export interface SharedStoreOptions {
  /** Released after so long without work. */
  readonly idleMs?: number
  /** How long to wait for another process that has the folder open. */
  readonly patienceMs?: number
  readonly open?: (directory: string) => Promise<Store>
}

/**
 * The store in `directory`. Between two calls another process may have written: read, decide and write inside one
 * `exclusively`.
 */
export class SharedStore implements Store {
  readonly #directory: string
  readonly #idleMs: number
  readonly #patienceMs: number
  readonly #open: (directory: string) => Promise<Store>
  #store: Store | undefined
  #opening: Promise<Store> | undefined
  #users = 0
  #idle: NodeJS.Timeout | undefined
  #releasing: Promise<void> = Promise.resolve()
  #turn: Promise<unknown> = Promise.resolve()

  constructor(directory: string, options: SharedStoreOptions = {}) {
    this.#directory = directory
    this.#idleMs = options.idleMs ?? 20
    this.#patienceMs = options.patienceMs ?? 10_000
    this.#open = options.open ?? openLevelStore
  }

  get(key: string): Promise<Uint8Array | undefined> {
    return this.#use((store) => store.get(key))
  }

  batch(operations: readonly StoreOperation[], options?: { readonly sync?: boolean }): Promise<void> {
    return this.#use((store) => store.batch(operations, options))
  }

  async *range(range: StoreRange): AsyncIterable<[string, Uint8Array]> {
    // Collected before it is handed out: the folder is not held while the caller works on an entry.
    const entries = await this.#use(async (store) => {
      const all: [string, Uint8Array][] = []
      for await (const entry of store.range(range)) all.push(entry)
      return all
    })
    yield* entries
  }

  /** Runs `work` while neither this nor another process writes: for read-decide-write. Not re-entrant. */
  exclusively<T>(work: (store: Store) => Promise<T>): Promise<T> {
    const result = this.#turn.then(() => this.#use(work))
    this.#turn = result.catch(() => undefined)
    return result
  }

  async close(): Promise<void> {
    clearTimeout(this.#idle)
    await this.#turn
    this.#release()
    await this.#releasing
  }

  async #use<T>(work: (store: Store) => Promise<T>): Promise<T> {
    clearTimeout(this.#idle)
    this.#users++
    try {
      return await work(await this.#acquire())
    } finally {
      this.#users--
      if (this.#users === 0) {
        clearTimeout(this.#idle)
        this.#idle = setTimeout(() => this.#release(), this.#idleMs)
      }
    }
  }

  async #acquire(): Promise<Store> {
    if (this.#store !== undefined) return this.#store
    this.#opening ??= this.#openPatiently()
      .then((store) => {
        this.#store = store
        return store
      })
      .finally(() => {
        this.#opening = undefined
      })
    return this.#opening
  }

  async #openPatiently(): Promise<Store> {
    await this.#releasing
    const deadline = performance.now() + this.#patienceMs
    for (let waitMs = 5; ; waitMs = Math.min(waitMs * 2, 200)) {
      try {
        return await this.#open(this.#directory)
      } catch (error) {
        if (!isIotchainError(error) || error.code !== 'store/locked' || performance.now() > deadline) throw error
        await new Promise((resolve) => setTimeout(resolve, waitMs))
      }
    }
  }

  #release(): void {
    const store = this.#store
    if (store === undefined || this.#users > 0) return
    this.#store = undefined
    this.#releasing = store.close().catch(() => undefined)
  }
}
