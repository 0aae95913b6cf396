/** Who wants to know when something changes: one fan-out for CoAP observers and event streams. */
export type ChangeListener = (path: string) => void

export class Changes {
  readonly #listeners = new Map<string, Set<ChangeListener>>()
  readonly #everything = new Set<ChangeListener>()

  /** @param path `/d/0x…/s/temp`, `/bc/0011223344556677` @returns unsubscribes */
  subscribe(path: string, listener: ChangeListener): () => void {
    let listeners = this.#listeners.get(path)
    if (listeners === undefined) {
      listeners = new Set()
      this.#listeners.set(path, listeners)
    }
    const set = listeners
    set.add(listener)
    return () => {
      set.delete(listener)
      if (set.size === 0 && this.#listeners.get(path) === set) this.#listeners.delete(path)
    }
  }

  /** True when somebody subscribed to this very path. */
  has(path: string): boolean {
    return this.#listeners.has(path)
  }

  subscribeToAll(listener: ChangeListener): () => void {
    this.#everything.add(listener)
    return () => this.#everything.delete(listener)
  }

  publish(path: string): void {
    for (const listener of this.#everything) listener(path)
    for (const listener of [...(this.#listeners.get(path) ?? [])]) listener(path)
  }
}
