/** One of several nodes, the next when it is gone: for sending transactions, where no agreement is needed. */
import { isIotchainError } from '../protocol/errors.ts'
import type { Rpc } from './rpc.ts'

export class FailoverRpc implements Rpc {
  readonly #nodes: readonly Rpc[]
  #at = 0

  /** @param nodes at least one */
  constructor(nodes: readonly Rpc[]) {
    this.#nodes = nodes
  }

  get name(): string {
    return this.#node.name
  }

  /** Asks the node that answered last; while it is gone or unfit, the others in turn. @throws what the last one threw */
  async call<T>(method: string, params: readonly unknown[] = []): Promise<T> {
    for (let tries = 1; ; tries++) {
      const at = this.#at
      try {
        return await this.#node.call<T>(method, params)
      } catch (error) {
        if (!isIotchainError(error) || error.code === 'chain/rpc' || tries === this.#nodes.length) throw error
        // another request may have moved on already
        if (this.#at === at) this.#at = (at + 1) % this.#nodes.length
      }
    }
  }

  get #node(): Rpc {
    return this.#nodes[this.#at] as Rpc
  }
}
