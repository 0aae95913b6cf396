import { IotchainError } from '../protocol/errors.ts'
import type { Store, StoreOperation, StoreRange } from './store.ts'

/** A store that forgets at the end of the process: for tests, and for tools that keep nothing. */
export function openMemoryStore(): Store {
  const entries = new Map<string, Uint8Array>()
  let sorted: string[] | undefined
  let closed = false

  function assertOpen(): void {
    if (closed) throw new IotchainError('store/closed', 'the store is closed')
  }

  return {
    async get(key) {
      assertOpen()
      return entries.get(key)?.slice()
    },
    async batch(operations: readonly StoreOperation[]) {
      assertOpen()
      sorted = undefined
      for (const operation of operations) {
        if (operation.type === 'put') entries.set(operation.key, operation.value.slice())
        else entries.delete(operation.key)
      }
    },
    async *range(range: StoreRange) {
      assertOpen()
      sorted ??= [...entries.keys()].sort(compareUtf8)
      const keys = sorted.filter((key) => inRange(key, range))
      if (range.reverse === true) keys.reverse()
      const snapshot = keys.slice(0, range.limit ?? keys.length).map((key) => [key, entries.get(key)?.slice()] as const)
      for (const [key, value] of snapshot) if (value !== undefined) yield [key, value]
    },
    async close() {
      closed = true
    },
  }
}

function inRange(key: string, range: StoreRange): boolean {
  return (
    (range.gte === undefined || compareUtf8(key, range.gte) >= 0) &&
    (range.gt === undefined || compareUtf8(key, range.gt) > 0) &&
    (range.lt === undefined || compareUtf8(key, range.lt) < 0) &&
    (range.lte === undefined || compareUtf8(key, range.lte) <= 0)
  )
}

/** UTF-16 code units order supplementary characters before U+E000; LevelDB compares the UTF-8 octets. */
function compareUtf8(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
