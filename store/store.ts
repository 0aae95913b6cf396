/**
 * The one interface behind which records are kept: an ordered map from text keys to octets with atomic batches.
 * LevelDB today (`level.ts`), memory in tests (`memory.ts`). Keys sort by their UTF-8 octets.
 */
export type StoreOperation =
  | { readonly type: 'put'; readonly key: string; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: string }

export interface StoreRange {
  readonly gte?: string
  readonly gt?: string
  readonly lt?: string
  readonly lte?: string
  /** Highest key first. */
  readonly reverse?: boolean
  /** At most so many entries. */
  readonly limit?: number
}

export interface Store {
  /** The octets under `key`, a copy the caller owns; undefined when there are none. */
  get(key: string): Promise<Uint8Array | undefined>
  /**
   * All operations or none, also across a power cut. With `sync` the promise resolves only when the disk has them.
   * Batches take effect in the order of the calls.
   * @throws `store/full`, `store/failed`, `store/closed`; after an error nothing of the batch is visible
   */
  batch(operations: readonly StoreOperation[], options?: { readonly sync?: boolean }): Promise<void>
  /** Entries of a range from a snapshot taken at the first step. */
  range(range: StoreRange): AsyncIterable<[string, Uint8Array]>
  close(): Promise<void>
}

/** The range of all keys that begin with `prefix`. */
export function prefixRange(prefix: string): { gte: string; lt: string } {
  const last = prefix.length - 1
  if (last < 0) return { gte: '', lt: '\u{10ffff}' }
  return { gte: prefix, lt: prefix.slice(0, last) + String.fromCharCode(prefix.charCodeAt(last) + 1) }
}
