/**
 * Is a node the one that is meant? Asked before its first word counts, and again after each failure: what answers next at
 * the same address may be another one.
 */
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { type ChainDescriptor, checkAgainst } from './descriptor.ts'
import { isGenuine } from './header.ts'
import { StateProofs } from './proof.ts'
import type { Rpc } from './rpc.ts'
import { badProof } from './trie.ts'
import type { Head, Hex } from './types.ts'

export interface Expectations {
  readonly chainId: number
  readonly registry: Address
  readonly descriptor?: ChainDescriptor | undefined
  /** It has to serve storage proofs. */
  readonly proofs?: boolean
}

/** @throws `chain/wrong-chain`, `chain/impostor`, `chain/no-proofs`, `chain/bad-proof`, `chain/unreachable` */
export async function vetNode(rpc: Rpc, { chainId, registry, descriptor, proofs }: Expectations): Promise<void> {
  const id = Number(await rpc.call<Hex>('eth_chainId'))
  if (id !== chainId) throw wrongChain(rpc.name, id, chainId)
  if (descriptor !== undefined) await checkAgainst(descriptor, rpc)
  if (proofs === true) await tryProofs(rpc, registry)
}

export function wrongChain(name: string, id: number, wanted: number): IotchainError {
  return new IotchainError('chain/wrong-chain', `the node at ${name} is on chain ${id}, not on ${wanted}`, {
    hint: 'Point rpcUrl at a node of the right network, or correct chainId.',
    retryAfterSeconds: 60,
  })
}

/** A block may be replaced between two requests; three times in a row it is not. */
async function tryProofs(rpc: Rpc, registry: Address): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      const block = await rpc.call<unknown>('eth_getBlockByNumber', ['latest', false])
      if (!isGenuine(block)) throw badProof('has a header that does not hash to the block')
      await new StateProofs(rpc).codeHash(registry, { hash: block['hash'] as Hex } as Head)
      return
    } catch (error) {
      const mayPass = isIotchainError(error) && ['chain/reorged', 'chain/rpc'].includes(error.code)
      if (!mayPass || attempt === 3) throw error
    }
  }
}

/** How long a node that failed is not asked again. */
const PAUSE_MS = { unreachable: 2_000, unfit: 15_000 }

/** A node that is asked only while it is the one that is meant. */
export class VettedRpc implements Rpc {
  readonly name: string
  readonly #rpc: Rpc
  readonly #vet: (rpc: Rpc) => Promise<void>
  #vetted: Promise<void> | undefined
  #refusal: { readonly error: unknown; readonly untilMs: number } | undefined

  /** @param name told apart from other nodes at the same host */
  constructor(rpc: Rpc, vet: (rpc: Rpc) => Promise<void>, name = rpc.name) {
    this.#rpc = rpc
    this.#vet = vet
    this.name = name
  }

  /** Why it is not asked; undefined: it is, or has not been yet. */
  get refusal(): unknown {
    return this.#refusal?.error
  }

  async call<T>(method: string, params: readonly unknown[] = []): Promise<T> {
    await this.#ready()
    try {
      return await this.#rpc.call<T>(method, params)
    } catch (error) {
      if (isAway(error)) this.#refuse(error)
      throw error
    }
  }

  /** @throws why the node is not to be believed, or not there */
  #ready(): Promise<void> {
    if (this.#refusal !== undefined && performance.now() < this.#refusal.untilMs) {
      return Promise.reject(this.#refusal.error)
    }
    this.#vetted ??= this.#vet(this.#rpc).then(
      () => {
        this.#refusal = undefined
      },
      (error: unknown) => {
        this.#refuse(error)
        throw error
      },
    )
    return this.#vetted
  }

  #refuse(error: unknown): void {
    this.#vetted = undefined
    const pause = isAway(error) ? PAUSE_MS.unreachable : PAUSE_MS.unfit
    this.#refusal = { error, untilMs: performance.now() + pause }
  }
}

const isAway = (error: unknown): boolean => !isIotchainError(error) || error.code === 'chain/unreachable'
