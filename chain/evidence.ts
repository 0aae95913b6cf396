/** What a client shows to a policy: solves the puzzle, allows the payment, brings the list or the attestation. */
import { AbiCoder } from 'ethers'
import { toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { merkleTree } from './merkle.ts'
import { type Ask, type Condition, describeCondition } from './offers.ts'
import { type PuzzleProgress, solvePuzzle } from './puzzle.ts'
import type { ChainReader } from './reader.ts'
import type { Rpc } from './rpc.ts'
import type { Head, Hex } from './types.ts'

/** What a client can show besides computing and paying. */
export interface Evidence {
  /** the addresses of an allowlist */
  readonly list?: readonly Address[] | undefined
  readonly attestation?:
    | { readonly issuer: Address; readonly expiresAt: number; readonly signature: Uint8Array }
    | undefined
  /** which part of an any-of to satisfy; default: the first that needs nothing that is missing here */
  readonly part?: number | undefined
  /** wei (or units of a currency) that may be spent at most; default 0 */
  readonly payAtMost?: bigint | undefined
}

export interface ProofContext {
  readonly ask: Ask
  readonly head: Head
  readonly reader: ChainReader
  readonly consumer: Address
  readonly evidence?: Evidence
  readonly onProgress?: (progress: PuzzleTried) => void
  readonly signal?: AbortSignal
}

export type PuzzleTried = { readonly phase: 'puzzle' } & PuzzleProgress

export interface Proof {
  readonly octets: Hex
  /** wei to send along */
  readonly value: bigint
  readonly allowances: readonly { readonly currency: Address; readonly spender: Address; readonly amount: bigint }[]
  /** The block that the solution of a puzzle in it is bound to: it holds only while that block is part of the chain. */
  readonly boundTo?: BlockName | undefined
}

export type BlockName = Pick<Head, 'number' | 'hash'>

/** Blocks that a contract can look back at (BLOCKHASH). */
const BLOCK_WINDOW = 256

/** True if a reorg took the block, or it is too old for a contract to know its hash. */
export async function isBlockGone(rpc: Rpc, block: BlockName): Promise<boolean> {
  type Block = { readonly hash: Hex; readonly number: Hex } | null
  const [now, newest] = await Promise.all([
    rpc.call<Block>('eth_getBlockByNumber', [`0x${block.number.toString(16)}`, false]),
    rpc.call<Block>('eth_getBlockByNumber', ['latest', false]),
  ])
  return now?.hash !== block.hash || Number(newest?.number) - block.number >= BLOCK_WINDOW
}

const coder = AbiCoder.defaultAbiCoder()
const simple = (octets: string, value = 0n): Proof => ({ octets: octets as Hex, value, allowances: [] })

/** Brings what a condition wants. @throws `chain/needs-evidence`, `chain/too-dear`, `chain/unknown-policy`, `chain/not-listed` */
export async function proofFor(condition: Condition, context: ProofContext): Promise<Proof> {
  const { ask, evidence = {} } = context
  switch (condition.kind) {
    case 'open':
    case 'quota':
    case 'holder':
      return simple('0x')
    case 'puzzle':
      return solution(condition.address, condition.consumer, condition.difficulty, context)
    case 'allowlist': {
      if (evidence.list === undefined) throw needs('the list of clients of this offer')
      return simple(coder.encode(['bytes32[]'], [merkleTree(evidence.list).proofOf(ask.client)]))
    }
    case 'attestation': {
      const a = evidence.attestation
      if (a === undefined) throw needs('an attestation')
      return simple(coder.encode(['address', 'uint64', 'bytes'], [a.issuer, a.expiresAt, `0x${toHex(a.signature)}`]))
    }
    case 'payment-ether':
      checkPrice(condition.amount, 'wei', evidence)
      return simple('0x', condition.amount)
    case 'payment-token': {
      checkPrice(condition.amount, `units of ${condition.currency}`, evidence)
      const { currency, amount, address: spender } = condition
      return { octets: '0x', value: 0n, allowances: [{ currency, spender, amount }] }
    }
    case 'all-of': {
      const proofs: Proof[] = []
      for (const part of condition.parts) proofs.push(await proofFor(part, context))
      return {
        octets: coder.encode(['bytes[]'], [proofs.map((p) => p.octets)]) as Hex,
        value: proofs.reduce((sum, p) => sum + p.value, 0n),
        allowances: proofs.flatMap((p) => p.allowances),
        boundTo: proofs.find((p) => p.boundTo !== undefined)?.boundTo,
      }
    }
    case 'any-of': {
      const index = evidence.part ?? condition.parts.findIndex((part) => canShow(part, evidence))
      const part = condition.parts[index]
      if (part === undefined) throw needs(describeCondition(condition))
      const inner = await proofFor(part, context)
      return { ...inner, octets: coder.encode(['uint256', 'bytes'], [index, inner.octets]) as Hex }
    }
    case 'unknown':
      throw new IotchainError('chain/unknown-policy', `the policy at ${condition.address} is not of this release`, {
        hint: 'Ask the resource owner what it wants, or use a newer release.',
      })
  }
}

function canShow(c: Condition, evidence: Evidence): boolean {
  switch (c.kind) {
    case 'unknown':
      return false
    case 'allowlist':
      return evidence.list !== undefined
    case 'attestation':
      return evidence.attestation !== undefined
    case 'payment-ether':
    case 'payment-token':
      return c.amount <= (evidence.payAtMost ?? 0n)
    case 'all-of':
      return c.parts.every((p) => canShow(p, evidence))
    case 'any-of':
      return c.parts.some((p) => canShow(p, evidence))
    default:
      return true
  }
}

async function solution(policy: Address, consumer: Address, difficulty: number, context: ProofContext): Promise<Proof> {
  const { ask, head, onProgress, signal, reader } = context
  const { client, offer } = ask
  // A node tries a transaction out in the newest block itself, and a block does not know its own hash: the one before it.
  const block = { number: head.number - 1, hash: head.parentHash }
  const octets = await solvePuzzle(
    {
      chainId: reader.chainId,
      policy,
      consumer,
      accessToken: offer.contract,
      client,
      resource: offer.resource,
      offer: offer.id,
      block,
      difficulty,
    },
    { ...(onProgress && { onProgress: (p) => onProgress({ phase: 'puzzle', ...p }) }), ...(signal && { signal }) },
  )
  return { ...simple(octets), boundTo: block }
}

function checkPrice(amount: bigint, unit: string, evidence: Evidence): void {
  if (amount <= (evidence.payAtMost ?? 0n)) return
  throw new IotchainError('chain/too-dear', `the offer costs ${amount} ${unit}`, {
    hint: `Agree to it by allowing at least that much (--pay ${amount}).`,
  })
}

function needs(what: string): IotchainError {
  return new IotchainError('chain/needs-evidence', `the offer asks for ${what}`, {
    hint: 'Bring it, or take another offer.',
  })
}
