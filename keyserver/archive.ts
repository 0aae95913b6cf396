/** Bounds the archive of broadcasts of each group: everything in the window stays, and of what is older so many octets. */
import { prefixRange, type StoreOperation } from '../store/store.ts'
import type { Group } from './group.ts'
import { del, Key, type Storage } from './storage.ts'

interface Entry {
  readonly session: number
  readonly octets: number
}

export class Archive {
  readonly #storage: Storage
  readonly #maxOctets: number
  /** group name → sizes, oldest first; read from the store at the first broadcast after a start */
  readonly #sizes = new Map<string, Entry[]>()

  constructor(storage: Storage, maxOctets: number) {
    this.#storage = storage
    this.#maxOctets = maxOctets
  }

  /** After each broadcast: drops what is too much, oldest first, never a session of the window. */
  async trim(group: Group): Promise<void> {
    const { name, newest } = group
    if (newest === undefined) return
    let entries = this.#sizes.get(name)
    if (entries === undefined) {
      entries = await this.#read(name)
      this.#sizes.set(name, entries)
    } else if (entries.at(-1)?.session !== newest.session) {
      entries.push({ session: newest.session, octets: newest.bytes.length })
    }
    const oldestKept = group.manager.windowStart
    let total = 0
    for (const { session, octets } of entries) if (session < oldestKept) total += octets
    const operations: StoreOperation[] = []
    const dropped: Entry[] = []
    while (total > this.#maxOctets && entries[0] !== undefined && entries[0].session < oldestKept) {
      const entry = entries.shift() as Entry
      total -= entry.octets
      dropped.push(entry)
      operations.push(del(Key.broadcast(name, entry.session)))
    }
    if (operations.length === 0) return
    try {
      await this.#storage.store.batch(operations)
    } catch (error) {
      // a disk that refuses now: they are dropped after the next broadcast
      entries.unshift(...dropped)
      throw error
    }
  }

  async #read(name: string): Promise<Entry[]> {
    const entries: Entry[] = []
    const prefix = `bc/${name}/`
    for await (const [key, bytes] of this.#storage.store.range(prefixRange(prefix))) {
      entries.push({ session: Number.parseInt(key.slice(prefix.length), 16), octets: bytes.length })
    }
    return entries
  }
}
