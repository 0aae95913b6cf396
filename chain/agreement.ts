/**
 * Several Ethereum nodes as one: an answer counts when `agree` of them give it. The head is the newest block that so many
 * nodes have, so one that lags, lies, or follows another fork neither stops nor misleads a key server; it is named. What
 * proves itself (storage proofs, headers) is taken from the first node whose answer passes. For reading only.
 */
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { isGenuine } from './header.ts'
import { type Rpc, RpcError } from './rpc.ts'
import type { Hex } from './types.ts'

/**
 * What can be wrong with one node. `behind`: it lacks, or refuses, what the others have; `bad-proof`: what it shows does
 * not hash to what it should; `unfit`: it is on another chain, or gives no proofs.
 */
export type FaultKind = 'unreachable' | 'slow' | 'behind' | 'differs' | 'bad-proof' | 'unfit'

export interface NodeFault {
  readonly node: string
  readonly kind: FaultKind
  readonly method: string
  readonly error?: unknown
}

export interface AgreementOptions {
  readonly nodes: readonly Rpc[]
  /** how many have to agree, 1 to the number of nodes; more than half keeps any two decisions from contradicting */
  readonly agree: number
  /** Blocks have to hash to the hash that a node gives for them; default false. */
  readonly checkHeaders?: boolean
  /** How long others are waited for once enough have answered, default 1 s. */
  readonly patienceMs?: number
  /** Told of each node that fails, lags or contradicts; may be called often. */
  readonly onfault?: (fault: NodeFault) => void
}

interface Block {
  readonly number: Hex
  readonly hash: Hex
}

interface Answer {
  readonly node: Rpc
  readonly value?: unknown
  readonly error?: unknown
}

const TAGS: readonly unknown[] = ['latest', 'safe', 'finalized']
/** Fields of blocks and logs that are compared and handed on; nodes add others of their own. */
const BLOCK = ['number', 'hash', 'parentHash', 'timestamp', 'stateRoot', 'difficulty']
const LOG = ['address', 'topics', 'data', 'blockNumber', 'blockHash', 'transactionHash', 'logIndex']
/** So far the head may fall back, when the nodes that answer lag or a fork is cut off: a liar must not bring old state back. */
const SETBACK = 3
/** For so long a node that showed something false is asked last. */
const SHUN_MS = 60_000
const METHOD_NOT_FOUND = -32601

export class AgreeingRpc implements Rpc {
  readonly name: string
  readonly #o: AgreementOptions
  readonly #nodes: readonly Rpc[]
  readonly #agree: number
  /** nodes that kept the others waiting: nobody waits for them until they are in time again */
  readonly #slow = new Set<Rpc>()
  readonly #shunned = new Map<Rpc, number>()
  /** the newest block that was agreed upon */
  #tip: Block | undefined

  /** @throws `chain/bad-agreement` */
  constructor(options: AgreementOptions) {
    const { nodes, agree } = options
    if (!(Number.isInteger(agree) && agree >= 1 && agree <= nodes.length)) {
      throw new IotchainError('chain/bad-agreement', `${agree} of ${nodes.length} nodes cannot agree`, {
        hint: 'Let at least 1 and at most as many nodes agree as are named; more than half is best.',
      })
    }
    this.#o = options
    this.#nodes = nodes
    this.#agree = agree
    this.name = `${agree} of ${nodes.map((n) => n.name).join(', ')}`
  }

  async call<T>(method: string, params: readonly unknown[] = []): Promise<T> {
    if (method === 'eth_getBlockByNumber' && TAGS.includes(params[0])) return (await this.#tagged(params)) as T
    if (method === 'net_peerCount') return (await this.#enough(method, params)) as T
    if (method === 'eth_getLogs' && isOfBlock(params[0])) return (await this.#union(method, params)) as T
    return (await this.#vote(method, params)) as T
  }

  /**
   * What proves itself: nodes are asked one after the other until an answer passes; one that lets wait is not waited for.
   * @param check returns what the answer is good for, or throws
   * @throws what the most telling of the nodes came to
   */
  checked<T>(method: string, params: readonly unknown[], check: (answer: unknown) => T): Promise<T> {
    const now = performance.now()
    const last = (node: Rpc): boolean => this.#slow.has(node) || (this.#shunned.get(node) ?? 0) > now
    const waiting = [...this.#nodes.filter((n) => !last(n)), ...this.#nodes.filter(last)]
    return new Promise<T>((resolve, reject) => {
      const failures: unknown[] = []
      let running = 0
      let done = false
      const next = (): void => {
        const node = done ? undefined : waiting.shift()
        if (node === undefined) {
          if (!done && running === 0) reject(mostTelling(failures))
          return
        }
        running++
        let moved = false
        const move = (): void => {
          if (moved) return
          moved = true
          next()
        }
        const timer = setTimeout(move, this.#patienceMs)
        node
          .call<unknown>(method, params)
          .then(check)
          .then(
            (value) => {
              done = true
              resolve(value)
            },
            (error: unknown) => {
              running--
              failures.push(error)
              this.#blame(node, method, error)
              if (moved && running === 0) next()
              else move()
            },
          )
          .finally(() => clearTimeout(timer))
      }
      next()
    })
  }

  get #patienceMs(): number {
    return this.#o.patienceMs ?? 1000
  }

  /** The newest block under a tag that enough nodes have, by height first and then by content. */
  async #tagged(params: readonly unknown[]): Promise<Block | null> {
    const answers = await this.#several('eth_getBlockByNumber', params)
    const blocks = answers.flatMap((a) => ('value' in a ? [a.value as Block | null] : []))
    if (blocks.length < this.#agree) throw this.#tooFew(answers)
    const heights = blocks.flatMap((b) => (b === null ? [] : [Number(b.number)])).sort((a, b) => b - a)
    const height = heights[this.#agree - 1]
    if (height === undefined) return null
    if (params[0] !== 'latest') return this.#at(height, params)
    const tip = this.#tip
    const floor = Math.max(0, Number(tip?.number ?? 0) - SETBACK)
    if (tip !== undefined && height < floor) throw this.#setback(height, tip)
    const block = await this.#newestCommon(height, floor)
    if (tip === undefined || Number(block.number) >= Number(tip.number)) this.#tip = block
    return block
  }

  /** While nodes stand on two forks, what they have in common is a few blocks below. */
  async #newestCommon(height: number, floor: number): Promise<Block> {
    for (let n = height; ; n--) {
      try {
        return await this.#at(n, ['latest', false])
      } catch (error) {
        const isFork = isIotchainError(error) && error.code === 'chain/disagreement'
        if (!isFork || n <= floor || n <= height - SETBACK) throw error
      }
    }
  }

  #at(height: number, params: readonly unknown[]): Promise<Block> {
    return this.#vote('eth_getBlockByNumber', [`0x${height.toString(16)}`, ...params.slice(1)]) as Promise<Block>
  }

  /** The largest number that enough nodes reach. */
  async #enough(method: string, params: readonly unknown[]): Promise<Hex> {
    const answers = await this.#several(method, params)
    const numbers = answers.flatMap((a) => ('value' in a ? [a.value as Hex] : []))
    const found = numbers.sort((a, b) => Number(b) - Number(a))[this.#agree - 1]
    if (found === undefined) throw this.#tooFew(answers)
    return found
  }

  /** Logs only find candidates: what any node names is looked at, so that one that keeps them back achieves nothing. */
  async #union(method: string, params: readonly unknown[]): Promise<unknown[]> {
    const answers = await this.#several(method, params)
    const lists = answers.flatMap((a) => (Array.isArray(a.value) ? [a.value as unknown[]] : []))
    if (lists.length === 0) throw this.#tooFew(answers)
    const all = new Map<string, unknown>()
    for (const log of lists.flat()) {
      const slim = only(log, LOG)
      all.set(JSON.stringify(slim), slim)
    }
    return [...all.values()]
  }

  /** What the nodes say, once all have, or enough of them and the others let wait too long. */
  #several(method: string, params: readonly unknown[]): Promise<Answer[]> {
    return new Promise((resolve) => {
      const answers: Answer[] = []
      const missing = new Set(this.#nodes)
      let timer: NodeJS.Timeout | undefined
      let done = false
      const finish = (): void => {
        if (done) return
        done = true
        clearTimeout(timer)
        for (const node of missing) {
          if (!this.#slow.has(node)) this.#blame(node, method, undefined, 'slow')
          this.#slow.add(node)
        }
        resolve(answers)
      }
      this.#askAll(method, params, (answer) => {
        if (!done) this.#slow.delete(answer.node)
        missing.delete(answer.node)
        if (done) return
        answers.push(answer)
        if (isNoVote(answer.error)) this.#blame(answer.node, method, answer.error)
        const enough = answers.filter((a) => !isNoVote(a.error)).length >= this.#agree
        if (missing.size === 0 || (enough && [...missing].every((n) => this.#slow.has(n)))) finish()
        else if (enough) timer ??= setTimeout(finish, this.#patienceMs)
      })
    })
  }

  /** The first answer (or refusal) that enough of the nodes give; those that say otherwise are named. */
  #vote(method: string, params: readonly unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const votes = new Map<string, Answer[]>()
      let winner: string | undefined
      let outstanding = this.#nodes.length
      const judge = (key: string, answer: Answer): void => {
        if (key !== winner && !isNoVote(answer.error)) {
          this.#blame(answer.node, method, answer.error, contradiction(method, answer))
        }
      }
      this.#askAll(method, params, (answer) => {
        outstanding--
        if (isNoVote(answer.error)) this.#blame(answer.node, method, answer.error)
        const key = keyOf(method, answer)
        const same = votes.get(key) ?? []
        votes.set(key, same)
        same.push(answer)
        if (winner !== undefined) return judge(key, answer)
        if (same.length === this.#agree && !key.startsWith('!')) {
          winner = key
          if (answer.error === undefined) resolve(only(answer.value, fieldsOf(method)))
          else reject(answer.error)
          for (const [other, answers] of votes) for (const a of answers) judge(other, a)
        } else if (mostVotes(votes) + outstanding < this.#agree) {
          winner = '!'
          reject(this.#disagreement(method, [...votes], outstanding))
        }
      })
    })
  }

  /** One call of `told` for each node; nothing that a node says throws. */
  #askAll(method: string, params: readonly unknown[], told: (answer: Answer) => void): void {
    for (const node of this.#nodes) {
      node.call<unknown>(method, params).then(
        (value) => {
          const isBlock = method.startsWith('eth_getBlockBy') && value !== null
          if (isBlock && !isBlockLike(value, this.#o.checkHeaders === true)) told({ node, error: falseHeader(node) })
          else told({ node, value })
        },
        (error: unknown) => {
          // what a node does not know it says nothing about
          const isUnknown = error instanceof RpcError && error.rpcCode === METHOD_NOT_FOUND
          told(isUnknown && method === 'eth_syncing' ? { node, value: false } : { node, error })
        },
      )
    }
  }

  #blame(node: Rpc, method: string, error: unknown, kind: FaultKind = kindOf(error)): void {
    if (kind === 'bad-proof') this.#shunned.set(node, performance.now() + SHUN_MS)
    this.#o.onfault?.({ node: node.name, kind, method, ...(error !== undefined && { error }) })
  }

  /** @param outstanding nodes that have not answered yet; whatever they say, too few agree */
  #disagreement(
    method: string,
    votes: readonly (readonly [string, readonly Answer[]])[],
    outstanding: number,
  ): unknown {
    const answers = votes.flatMap(([, a]) => a)
    const voters = answers.filter((a) => !isNoVote(a.error)).length
    if (voters + outstanding < this.#agree) return this.#tooFew(answers)
    const sides = votes.filter(([key]) => !key.startsWith('!')).map(([, a]) => a.map((x) => x.node.name).join(' and '))
    return new IotchainError(
      'chain/disagreement',
      `fewer than ${this.#agree} of ${this.#nodes.length} nodes agree on ${method}: ${sides.join(' against ')}`,
      {
        hint: 'Nothing is decided meanwhile. See which node is behind, or on another fork, or lies.',
        retryAfterSeconds: 5,
      },
    )
  }

  #setback(height: number, tip: Block): IotchainError {
    return new IotchainError(
      'chain/disagreement',
      `the nodes that answer are at block ${height}, behind ${Number(tip.number)}, which was agreed upon before`,
      {
        hint: 'Wait until enough of them have caught up. If the chain began anew, start the key server again.',
        retryAfterSeconds: 5,
      },
    )
  }

  #tooFew(answers: readonly Answer[]): unknown {
    const refusals = answers.flatMap((a) => (a.error instanceof RpcError ? [a.error] : []))
    if (refusals.length >= this.#agree) return refusals[0]
    // nodes that answer and are the wrong ones: too many of them, and waiting does not help
    const unfit = answers.flatMap((a) => (kindOf(a.error) === 'unfit' ? [a.error] : []))
    if (unfit.length > this.#nodes.length - this.#agree) return unfit[0]
    return new IotchainError(
      'chain/unreachable',
      `fewer than ${this.#agree} of ${this.#nodes.length} Ethereum nodes answer`,
      {
        hint: 'Start the others, or correct their addresses.',
        cause: answers.find((a) => a.error !== undefined)?.error,
        retryAfterSeconds: 5,
      },
    )
  }
}

function mostVotes(votes: ReadonlyMap<string, readonly Answer[]>): number {
  let most = 0
  for (const [key, { length }] of votes) if (!key.startsWith('!')) most = Math.max(most, length)
  return most
}

const isOfBlock = (filter: unknown): boolean => typeof filter === 'object' && filter !== null && 'blockHash' in filter

const fieldsOf = (method: string): readonly string[] | undefined =>
  method.startsWith('eth_getBlockBy') ? BLOCK : method === 'eth_getLogs' ? LOG : undefined

/** An object, or a list of them, with these fields alone. */
function only(value: unknown, fields: readonly string[] | undefined): unknown {
  if (fields === undefined || typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((v) => only(v, fields))
  return Object.fromEntries(fields.map((f) => [f, (value as Record<string, unknown>)[f]]))
}

/** The same for answers that say the same. Nodes word refusals differently; the octets of a revert are the same everywhere. */
function keyOf(method: string, { value, error }: Answer): string {
  if (error === undefined) {
    if (method === 'eth_syncing') return value === false ? '+no' : '+yes'
    return `+${JSON.stringify(only(value, fieldsOf(method)))?.toLowerCase()}`
  }
  return error instanceof RpcError ? `-${error.data ?? error.rpcCode}` : '!'
}

/** A block that a node lacks is no lie, nor that it is catching up. */
const contradiction = (method: string, { value }: Answer): FaultKind =>
  value === null || value === undefined || method === 'eth_syncing' ? 'behind' : 'differs'

function kindOf(error: unknown): FaultKind {
  if (error instanceof RpcError) return 'behind'
  if (!isIotchainError(error)) return 'unreachable'
  if (error.code === 'chain/reorged') return 'behind'
  if (error.code === 'chain/bad-proof') return 'bad-proof'
  return error.code === 'chain/unreachable' ? 'unreachable' : 'unfit'
}

/** A node that could not be asked, or whose word is worth nothing. */
const isNoVote = (error: unknown): boolean => error !== undefined && !(error instanceof RpcError)

function isBlockLike(value: unknown, genuine: boolean): boolean {
  const { number, hash } = (value ?? {}) as { number?: unknown; hash?: unknown }
  if (!/^0x[0-9a-f]{1,13}$/i.test(String(number)) || !/^0x[0-9a-f]{64}$/i.test(String(hash))) return false
  return !genuine || isGenuine(value)
}

const falseHeader = (node: Rpc): IotchainError =>
  new IotchainError('chain/bad-proof', `the node at ${node.name} shows a header that does not hash to its block`, {
    hint: 'The node is broken or lies: use another one.',
  })

/** Of several failures the one that says most: a block that is gone is read again; a proof that does not hold is a lie. */
function mostTelling(failures: readonly unknown[]): unknown {
  const code = (error: unknown): string => (isIotchainError(error) ? error.code : '')
  const order = ['chain/reorged', 'chain/rpc', 'chain/bad-proof']
  for (const wanted of order) {
    const found = failures.find((f) => code(f) === wanted)
    if (found !== undefined) return found
  }
  return failures[0]
}
