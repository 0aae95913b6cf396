/**
 * Several Ethereum nodes as one: an answer counts when `agree` of them give it. The head is the newest block that so many
 * nodes have, so one that lags, lies, or follows another fork neither stops nor misleads a key server. For reading only.
 */
import { IotchainError } from '../protocol/errors.ts'
import { type Rpc, RpcError } from './rpc.ts'
import type { Hex } from './types.ts'

export interface AgreementOptions {
  readonly nodes: readonly Rpc[]
  /** how many have to agree, 1 to the number of nodes; more than half keeps any two decisions from contradicting */
  readonly agree: number
}

interface Block {
  readonly number: Hex
  readonly hash: Hex
}

const TAGS: readonly unknown[] = ['latest', 'safe', 'finalized']

export class AgreeingRpc implements Rpc {
  readonly name: string
  readonly #nodes: readonly Rpc[]
  readonly #agree: number

  /** @throws `chain/bad-agreement` */
  constructor({ nodes, agree }: AgreementOptions) {
    if (!(Number.isInteger(agree) && agree >= 1 && agree <= nodes.length)) {
      throw new IotchainError('chain/bad-agreement', `${agree} of ${nodes.length} nodes cannot agree`, {
        hint: 'Let at least 1 and at most as many nodes agree as are named; more than half is best.',
      })
    }
    this.#nodes = nodes
    this.#agree = agree
    this.name = `${agree} of ${nodes.map((n) => n.name).join(', ')}`
  }

  async call<T>(method: string, params: readonly unknown[] = []): Promise<T> {
    if (method === 'eth_getBlockByNumber' && TAGS.includes(params[0])) return (await this.#block(params)) as T
    if (method === 'net_peerCount') return this.#lowest(method, params) as Promise<T>
    if (method === 'eth_syncing') return (await this.#ask(method, params, (a) => (a === false ? 'no' : 'yes'))) as T
    return (await this.#ask(method, params, (answer) => JSON.stringify(answer))) as T
  }

  /** The newest block under a tag that enough nodes have, by height first and then by hash. */
  async #block(params: readonly unknown[]): Promise<Block | null> {
    const answers = await Promise.allSettled(
      this.#nodes.map((n) => n.call<Block | null>('eth_getBlockByNumber', params)),
    )
    const blocks = answers.flatMap((a) => (a.status === 'fulfilled' ? [a.value] : []))
    const heights = blocks.flatMap((b) => (b === null ? [] : [Number(b.number)])).sort((a, b) => b - a)
    if (blocks.length < this.#agree) throw this.#tooFew(answers)
    const height = heights[this.#agree - 1]
    if (height === undefined) return null
    return this.#ask('eth_getBlockByNumber', [`0x${height.toString(16)}`, ...params.slice(1)], hashOf) as Promise<Block>
  }

  /** The largest number that enough nodes reach. */
  async #lowest(method: string, params: readonly unknown[]): Promise<Hex> {
    const answers = await Promise.allSettled(this.#nodes.map((n) => n.call<Hex>(method, params)))
    const numbers = answers.flatMap((a) => (a.status === 'fulfilled' ? [a.value] : []))
    const found = numbers.sort((a, b) => Number(b) - Number(a))[this.#agree - 1]
    if (found === undefined) throw this.#tooFew(answers)
    return found
  }

  /** Asks all, and takes the first answer (or refusal) that enough of them give. */
  #ask(method: string, params: readonly unknown[], sameness: (answer: unknown) => string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const counts = new Map<string, number>()
      const outcomes: PromiseSettledResult<unknown>[] = []
      const count = (key: string, settle: () => void): void => {
        const n = (counts.get(key) ?? 0) + 1
        counts.set(key, n)
        if (n === this.#agree) settle()
        else if (outcomes.length === this.#nodes.length) reject(this.#disagreement(method, outcomes))
      }
      for (const node of this.#nodes) {
        node.call<unknown>(method, params).then(
          (value) => {
            outcomes.push({ status: 'fulfilled', value })
            count(`+${sameness(value)}`, () => resolve(value))
          },
          (reason: unknown) => {
            outcomes.push({ status: 'rejected', reason })
            // nodes word their refusals differently; the octets of a revert are the same everywhere
            const key = reason instanceof RpcError ? `-${reason.data ?? reason.rpcCode}` : `!${outcomes.length}`
            count(key, () => reject(reason))
          },
        )
      }
    })
  }

  #disagreement(method: string, outcomes: readonly PromiseSettledResult<unknown>[]): IotchainError {
    const answered = outcomes.filter((o) => o.status === 'fulfilled' || o.reason instanceof RpcError)
    if (answered.length < this.#agree) return this.#tooFew(outcomes)
    return new IotchainError(
      'chain/disagreement',
      `fewer than ${this.#agree} of ${this.#nodes.length} nodes agree on ${method}`,
      {
        hint: 'Nothing is decided meanwhile. See which node is behind, or on another fork, or lies.',
        retryAfterSeconds: 5,
      },
    )
  }

  #tooFew(outcomes: readonly PromiseSettledResult<unknown>[]): IotchainError {
    const cause = outcomes.find((o) => o.status === 'rejected')?.reason
    return new IotchainError(
      'chain/unreachable',
      `fewer than ${this.#agree} of ${this.#nodes.length} Ethereum nodes answer`,
      {
        hint: 'Start the others, or correct their addresses.',
        cause,
        retryAfterSeconds: 5,
      },
    )
  }
}

const hashOf = (block: unknown): string => (block === null ? 'none' : (block as Block).hash)
