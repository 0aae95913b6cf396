/** Many small durable writes at once cost one disk synchronisation: what arrives while one runs goes into the next. */
import type { Store, StoreOperation } from '../store/store.ts'

interface Waiting {
  readonly operations: readonly StoreOperation[]
  readonly done: () => void
  readonly failed: (error: unknown) => void
}

export class WriteQueue {
  readonly #store: Store
  #waiting: Waiting[] = []
  #running: Promise<void> | undefined

  constructor(store: Store) {
    this.#store = store
  }

  /** Resolves when the disk has all of `operations`, which take effect together and in the order of the calls. */
  write(operations: readonly StoreOperation[]): Promise<void> {
    return new Promise<void>((done, failed) => {
      this.#waiting.push({ operations, done, failed })
      this.#running ??= this.#run()
    })
  }

  /** Resolves when nothing is left to write. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  async #run(): Promise<void> {
    // A turn of the event loop first, so that a burst of datagrams shares the first synchronisation too.
    await new Promise<void>((resolve) => setImmediate(resolve))
    while (this.#waiting.length > 0) {
      const batch = this.#waiting
      this.#waiting = []
      try {
        await this.#store.batch(
          batch.flatMap((w) => w.operations),
          { sync: true },
        )
        for (const w of batch) w.done()
      } catch (error) {
        for (const w of batch) w.failed(error)
      }
    }
    this.#running = undefined
  }
}
