/** LevelDB on this machine's disk (`classic-level`): atomic, optionally synced batches. */
import { mkdirSync } from 'node:fs'
import type { ClassicLevel } from 'classic-level'
import { IotchainError } from '../protocol/errors.ts'
import type { Store, StoreOperation, StoreRange } from './store.ts'

type Database = ClassicLevel<string, Uint8Array>

/** After a failed write LevelDB refuses all others until it is opened again: tried at most this often. */
const REOPEN_INTERVAL_MS = 1000

export interface LevelOptions {
  /** Octets of block cache. */
  readonly cacheBytes?: number
  readonly writeBufferBytes?: number
}

/**
 * Opens the store in `directory`, which is made (mode 0700) when it is not there.
 * @throws `store/locked` when another process has it open, `store/full`, `store/corrupt`, `store/failed`
 */
export async function openLevelStore(directory: string, options: LevelOptions = {}): Promise<Store> {
  const loaded = await import('classic-level')
  // In a bundle a CommonJS package has its exports under default alone.
  const Level = loaded.ClassicLevel ?? (loaded as unknown as { default: typeof loaded }).default.ClassicLevel
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw coded(cause, directory)
  }
  const database: Database = new Level<string, Uint8Array>(directory, {
    keyEncoding: 'utf8',
    valueEncoding: 'view',
    cacheSize: options.cacheBytes ?? 2 * 1024 * 1024,
    writeBufferSize: options.writeBufferBytes ?? 1024 * 1024,
  })
  try {
    await database.open()
  } catch (cause) {
    throw coded(cause, directory)
  }
  return new LevelStore(database, directory)
}

class LevelStore implements Store {
  readonly #database: Database
  readonly #directory: string
  #closed = false
  /** Set by a failed write, until LevelDB has been opened anew. */
  #sickSinceMs: number | undefined
  #reopening: Promise<void> | undefined

  constructor(database: Database, directory: string) {
    this.#database = database
    this.#directory = directory
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    await this.#ready()
    try {
      const value = await this.#database.get(key)
      // LevelDB answers Buffers; callers compare and spread plain octets.
      return value === undefined ? undefined : plainBytes(value)
    } catch (cause) {
      throw coded(cause, this.#directory)
    }
  }

  async batch(operations: readonly StoreOperation[], options: { readonly sync?: boolean } = {}): Promise<void> {
    if (operations.length === 0) return
    await this.#ready()
    if (this.#sickSinceMs !== undefined) await this.#reopen()
    try {
      await this.#database.batch(operations as StoreOperation[], { sync: options.sync ?? false } as object)
    } catch (cause) {
      if ((cause as { code?: unknown }).code === 'LEVEL_IO_ERROR') this.#sickSinceMs = performance.now()
      throw coded(cause, this.#directory)
    }
  }

  async *range(range: StoreRange): AsyncIterable<[string, Uint8Array]> {
    await this.#ready()
    try {
      const iterator = this.#database.iterator<string, Uint8Array>({
        ...range,
        keyEncoding: 'utf8',
        valueEncoding: 'view',
      })
      for await (const [key, value] of iterator) yield [key, plainBytes(value)]
    } catch (cause) {
      throw coded(cause, this.#directory)
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#reopening?.catch(() => undefined)
    await this.#database.close()
  }

  async #ready(): Promise<void> {
    if (this.#closed) throw new IotchainError('store/closed', 'the store is closed')
    await this.#reopening
    if (this.#database.status !== 'open') await this.#reopen()
  }

  /** Full disks get room again: a write after the failed one opens the database anew and goes on. */
  async #reopen(): Promise<void> {
    if (this.#reopening === undefined) {
      if (performance.now() - (this.#sickSinceMs ?? 0) < REOPEN_INTERVAL_MS) {
        throw new IotchainError('store/failed', `writes to ${this.#directory} are failing`, {
          hint: 'free some disk space and check the disk; the store is tried again by itself',
        })
      }
      this.#reopening = this.#database
        .close()
        .then(() => this.#database.open())
        .then(() => {
          this.#sickSinceMs = undefined
        })
        .finally(() => {
          this.#reopening = undefined
        })
    }
    try {
      await this.#reopening
    } catch (cause) {
      this.#sickSinceMs = performance.now()
      throw coded(cause, this.#directory)
    }
  }
}

/** LevelDB tells its reasons in the message only. */
function coded(error: unknown, directory: string): IotchainError {
  const reasons: unknown[] = []
  for (let e = error; e instanceof Error && reasons.length < 5; e = e.cause) reasons.push(e.message, codeOf(e))
  const text = reasons.join(' ')
  if (/LEVEL_LOCKED/.test(text)) {
    return new IotchainError('store/locked', `${directory} is in use by another process`, {
      cause: error,
      hint: 'stop the other daemon, or give this one a state folder of its own',
    })
  }
  if (/No space left|ENOSPC|EDQUOT|quota exceeded/i.test(text)) {
    return new IotchainError('store/full', `the disk that holds ${directory} is full`, {
      cause: error,
      hint: 'free some disk space; the store is tried again by itself',
    })
  }
  if (/LEVEL_CORRUPTION|Corruption/.test(text)) {
    return new IotchainError('store/corrupt', `the store in ${directory} is damaged`, {
      cause: error,
      hint: 'restore the state folder from a backup',
    })
  }
  if (/LEVEL_DATABASE_NOT_OPEN|LEVEL_ITERATOR_NOT_OPEN/.test(text) && !/LEVEL_IO_ERROR/.test(text)) {
    return new IotchainError('store/closed', 'the store is closed', { cause: error })
  }
  const denied = /Permission denied|EACCES|EROFS|Read-only/i.test(text)
  return new IotchainError('store/failed', `${directory} cannot be ${denied ? 'written' : 'used'}`, {
    cause: error,
    hint: denied ? 'check the owner and the mode of the folder' : 'check the disk and the state folder',
  })
}

function plainBytes(value: Uint8Array): Uint8Array {
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
}

function codeOf(error: Error): string {
  return String((error as { code?: unknown }).code ?? '')
}
