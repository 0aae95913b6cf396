/** A transaction from intention to receipt: the words and values that sender.ts works with, and what can go wrong. */
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { revertError } from './revert.ts'
import { RpcError } from './rpc.ts'
import type { Hex } from './types.ts'

/** A transaction to be, in words and octets. */
export interface Intent {
  /** What it does, for progress and errors: "grant of 0x12… at device 0x34…" */
  readonly what: string
  /** undefined: creates a contract */
  readonly to: Address | undefined
  readonly data: Hex
  readonly value?: bigint
}

export interface Quote {
  readonly gas: bigint
  /** wei per gas that is paid at most */
  readonly gasPrice: bigint
  /** wei, at most: gas × gasPrice + value */
  readonly total: bigint
  readonly balance: bigint
}

export type SendProgress =
  /** Signed and about to leave: what a ledger has to keep so that a cut-off command can go on. */
  | { readonly phase: 'signed'; readonly hash: Hex; readonly raw: Hex }
  | { readonly phase: 'priced'; readonly quote: Quote }
  | { readonly phase: 'sent'; readonly hash: Hex }
  | {
      readonly phase: 'confirming'
      readonly hash: Hex
      readonly block: number
      readonly depth: number
      readonly of: number
    }

/** A transaction that may be on its way: what has to be kept of it to go on with it. */
export interface OpenTransaction {
  readonly raw: Hex
  /** Hashes of those with lower fees whose place it takes; one of them may be mined all the same. */
  readonly earlier?: readonly Hex[] | undefined
}

export interface SendOptions {
  /** Called, and waited for, before a signed transaction leaves; nothing is sent if it fails. */
  readonly beforeSending?: (transaction: OpenTransaction) => void | Promise<void>
  /** Blocks on top of the transaction's own before it is done; default 0: mined. */
  readonly confirmations?: number
  readonly onProgress?: (progress: SendProgress) => void
  readonly signal?: AbortSignal
}

export interface Receipt {
  readonly hash: Hex
  readonly block: number
  readonly gasUsed: bigint
  /** wei */
  readonly fee: bigint
  /** of a transaction that created a contract */
  readonly contract: Address | undefined
}

export interface RawReceipt {
  readonly status?: Hex
  readonly blockNumber: Hex
  readonly gasUsed: Hex
  readonly effectiveGasPrice?: Hex
  readonly contractAddress?: string | null
}

export function toReceipt(hash: Hex, r: RawReceipt): Receipt {
  const gasUsed = BigInt(r.gasUsed)
  return {
    hash,
    block: Number(r.blockNumber),
    gasUsed,
    fee: gasUsed * BigInt(r.effectiveGasPrice ?? '0x0'),
    contract: typeof r.contractAddress === 'string' ? (r.contractAddress.toLowerCase() as Address) : undefined,
  }
}

export function refused(intent: Intent, error: unknown, from: Address, balance: bigint): unknown {
  if (!(error instanceof RpcError)) return error
  if (
    /insufficient funds|insufficient balance|exceeds allowance|gas required exceeds/i.test(error.message) &&
    error.data === undefined
  ) {
    return noFunds(intent, from, balance, undefined)
  }
  if (error.data !== undefined || /revert/i.test(error.message)) return revertError(intent.what, error)
  return error
}

export function noFunds(intent: Intent, from: Address, balance: bigint, total: bigint | undefined): IotchainError {
  const needs = total === undefined ? 'more than that' : `up to ${total} wei`
  return new IotchainError('chain/no-funds', `${from} owns ${balance} wei, but the ${intent.what} costs ${needs}`, {
    hint: `Send some ether of this chain to ${from}, or use a funded key.`,
  })
}

export function notMined(intent: Intent, hash: Hex, patienceMs: number): IotchainError {
  return new IotchainError(
    'chain/not-mined',
    `the ${intent.what} was not mined within ${patienceMs / 1000} s (${hash})`,
    {
      hint: 'Is the chain producing blocks? The same command again goes on waiting for it; with --raise-fee it is sent again with a higher fee.',
    },
  )
}

/** A fee too low to take the place of the one before; nodes want a tenth more. */
export function raised(old: bigint, now: bigint): bigint {
  const more = (old * 9n) / 8n + 1n
  return more > now ? more : now
}

export function replaced(intent: Intent, hash: Hex): IotchainError {
  return new IotchainError(
    'chain/replaced',
    `another transaction of this account took the place of the ${intent.what} (${hash})`,
    {
      hint: 'Does another program use the same key? Run the command again.',
    },
  )
}

export const quantity = (value: bigint): Hex => `0x${value.toString(16)}`
