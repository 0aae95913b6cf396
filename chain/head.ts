/**
 * The newest head of a node, with everything that has to hold before a decision may rest on it: it answers, it is on
 * the right chain, it has caught up, it has company, and its newest block is young (IoTChain §III-E, threat "isolated node").
 */
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { isGenuine } from './header.ts'
import { type Rpc, RpcError } from './rpc.ts'
import { badProof } from './trie.ts'
import type { Confirmations, Head, Hex } from './types.ts'
import { wrongChain } from './vetting.ts'

export interface HeadSourceOptions {
  readonly rpc: Rpc
  readonly chainId: number
  readonly registry: Address
  readonly confirmations: Confirmations
  readonly maxHeadAgeSeconds?: number
  readonly expectPeers?: number
  readonly nowMs?: () => number
  /** The newest block has to hash to the hash that the node gives for it: where state is read from proofs. */
  readonly checkHeader?: boolean
  /** Run before the first head, and again after every failure: whatever else has to hold of this node. */
  readonly verify?: (rpc: Rpc) => Promise<void>
}

interface Block {
  readonly number: Hex
  readonly hash: Hex
  readonly parentHash: Hex
  readonly timestamp: Hex
  readonly difficulty?: Hex
}

const METHOD_NOT_FOUND = -32601

export class HeadSource {
  readonly #options: HeadSourceOptions
  readonly #nowMs: () => number
  #verified = false
  #inFlight: Promise<Head> | undefined
  #last: { head: Head; atMs: number } | undefined

  constructor(options: HeadSourceOptions) {
    this.#options = options
    this.#nowMs = options.nowMs ?? Date.now
  }

  /** @throws see `ChainView.head` */
  head(maxAgeMs: number): Promise<Head> {
    const age = this.#last === undefined ? Number.POSITIVE_INFINITY : this.#nowMs() - this.#last.atMs
    if (this.#last !== undefined && age >= 0 && age < maxAgeMs) return Promise.resolve(this.#last.head)
    this.#inFlight ??= this.#read().finally(() => {
      this.#inFlight = undefined
    })
    return this.#inFlight
  }

  async #read(): Promise<Head> {
    try {
      const head = await this.#check()
      this.#last = { head, atMs: this.#nowMs() }
      return head
    } catch (error) {
      // the node that answers next may be another one
      this.#verified = false
      this.#last = undefined
      throw error
    }
  }

  async #check(): Promise<Head> {
    const { rpc, chainId, registry, confirmations, expectPeers = 0 } = this.#options
    const verifying = !this.#verified
    const [chain, block, syncing, peers, settled, code] = await Promise.all([
      rpc.call<Hex>('eth_chainId'),
      rpc.call<Block>('eth_getBlockByNumber', ['latest', false]),
      unknownIfAbsent(rpc.call<unknown>('eth_syncing')),
      expectPeers > 0 ? unknownIfAbsent(rpc.call<Hex>('net_peerCount')) : undefined,
      typeof confirmations === 'string' ? this.#settled(confirmations) : undefined,
      verifying ? rpc.call<Hex>('eth_getCode', [registry, 'latest']) : undefined,
    ])
    if (Number(chain) !== chainId) {
      throw wrongChain(rpc.name, Number(chain), chainId)
    }
    this.#checkBlock(block)
    this.#checkFitness(block, syncing, peers)
    if (settled === 'none') throw noFinality(rpc.name, String(confirmations), Number(block.difficulty ?? 0) > 0)
    if (verifying) {
      if (code === '0x') throw noRegistry(registry, rpc.name)
      await this.#options.verify?.(rpc)
      this.#verified = true
    }
    return {
      number: Number(block.number),
      hash: block.hash,
      parentHash: block.parentHash,
      timestamp: Number(block.timestamp),
      safe: confirmations === 'safe' ? settled : undefined,
      finalized: confirmations === 'finalized' ? settled : undefined,
    }
  }

  #checkBlock(block: unknown): void {
    const { rpc, checkHeader } = this.#options
    const { number, hash, parentHash, timestamp } = (block ?? {}) as Record<string, unknown>
    const isBlock = [number, timestamp].every((n) => /^0x[0-9a-f]{1,13}$/i.test(String(n)))
    if (!isBlock || ![hash, parentHash].every((h) => /^0x[0-9a-f]{64}$/.test(String(h)))) {
      throw new IotchainError('chain/bad-answer', `the node at ${rpc.name} shows a block that makes no sense`, {
        hint: 'Is that address an Ethereum node?',
        retryAfterSeconds: 30,
      })
    }
    // several nodes have each been asked for the whole header; what they agree on is a part of it
    if (checkHeader === true && rpc.checked === undefined && !isGenuine(block)) {
      throw badProof('has a header that does not hash to the block')
    }
  }

  #checkFitness(block: Block, syncing: unknown, peers: Hex | undefined): void {
    const { rpc, expectPeers = 0, maxHeadAgeSeconds = 180 } = this.#options
    if (syncing !== undefined && syncing !== false) {
      throw new IotchainError('chain/syncing', `the node at ${rpc.name} is still catching up with its network`, {
        hint: 'Wait until it has; nothing is decided on old blocks.',
        retryAfterSeconds: 30,
      })
    }
    if (peers !== undefined && Number(peers) < expectPeers) {
      throw new IotchainError(
        'chain/peers',
        `the node at ${rpc.name} has ${Number(peers)} peers, fewer than the ${expectPeers} expected`,
        { hint: 'Check its network, or lower expectPeers.', retryAfterSeconds: 30 },
      )
    }
    const age = Math.floor(this.#nowMs() / 1000) - Number(block.timestamp)
    if (age > maxHeadAgeSeconds) {
      throw new IotchainError(
        'chain/stale',
        `the newest block of the node at ${rpc.name} is ${age} s old, more than the ${maxHeadAgeSeconds} s allowed`,
        { hint: 'Is the network producing blocks, and is this clock right?', retryAfterSeconds: 15 },
      )
    }
  }

  async #settled(tag: 'safe' | 'finalized'): Promise<number | 'none'> {
    const { rpc } = this.#options
    const block = await rpc.call<Block | null>('eth_getBlockByNumber', [tag, false]).catch((error: unknown) => {
      if (error instanceof RpcError) return null
      throw error
    })
    return block === null ? 'none' : Number(block.number)
  }
}

export function noRegistry(registry: Address, name: string): IotchainError {
  return new IotchainError('chain/no-registry', `there is no contract at ${registry} on the chain behind ${name}`, {
    hint: 'Correct the address of the DeviceRegistry, or deploy it with `iotchain owner deploy`.',
    retryAfterSeconds: 30,
  })
}

/** @param isSealed by proof of authority or work (a block's difficulty is above zero): such a chain never has any */
function noFinality(name: string, tag: string, isSealed: boolean): IotchainError {
  if (isSealed) {
    return new IotchainError('chain/never-final', `the chain behind ${name} has no finality: no block is ever ${tag}`, {
      hint: 'Set chain.confirmations to a number of confirmations.',
      retryAfterSeconds: 60,
    })
  }
  return new IotchainError('chain/no-finality', `the chain behind ${name} has no ${tag} block`, {
    hint: 'On a young proof-of-stake chain, wait; otherwise set chain.confirmations to a number of confirmations.',
    retryAfterSeconds: 30,
  })
}

/** A contract stands there, and refuses what every DeviceRegistry answers. */
export function notRegistry(registry: Address, name: string, cause: unknown): IotchainError {
  return new IotchainError('chain/no-registry', `the contract at ${registry} behind ${name} is no DeviceRegistry`, {
    hint: 'Correct the address of the DeviceRegistry; the resource owner knows it.',
    retryAfterSeconds: 30,
    cause,
  })
}

/** Nodes know different methods; one that does not know this one has said nothing. */
async function unknownIfAbsent<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof RpcError && error.rpcCode === METHOD_NOT_FOUND) return undefined
    throw error
  }
}
