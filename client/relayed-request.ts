/**
 * A token for an address that owns nothing (IoTChain §III-C: the client's privacy): the client signs what it wants, and
 * the key server's relay pays the transaction, for a puzzle that it sets.
 */

import { type BlockName, type Evidence, isBlockGone, type Proof, proofFor } from '../chain/evidence.ts'
import { type Condition, conditionOf, type Offer } from '../chain/offers.ts'
import type { ChainReader } from '../chain/reader.ts'
import { PUZZLE_ATTEMPTS, puzzleLost, type RequestProgress } from '../chain/request.ts'
import type { JsonRpc } from '../chain/rpc.ts'
import { nonceOf, signTokenRequest } from '../chain/sponsor.ts'
import { checkPublisher } from '../chain/trust.ts'
import type { Token } from '../chain/types.ts'
import type { Account } from '../chain/wallet.ts'
import { fromHex, toHex } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { type RelayPuzzle, searchRelaySolution } from '../protocol/messages/relay.ts'
import type { KeyServerSession } from './keyserver-session.ts'
import type { RelayKeeper, SignedRequest } from './relay-record.ts'

export type RelayProgress =
  | RequestProgress
  | { readonly phase: 'relay-puzzle'; readonly tried: number; readonly expected: number }

export interface RelayedRequestOptions {
  readonly session: KeyServerSession
  readonly reader: ChainReader
  readonly rpc: JsonRpc
  readonly account: Account
  readonly clock: Clock
  readonly offer: Offer
  readonly ttlSeconds: number
  readonly evidence: Evidence
  readonly confirmations: number
  readonly allowContracts: readonly Address[]
  readonly keeper: RelayKeeper
  /** Called, and waited for, before a granted request counts as done. */
  readonly onGranted: (token: Token) => Promise<void>
  readonly onProgress: (progress: RelayProgress) => void
  readonly signal: AbortSignal
}

/** The request may be sent until so long after it was signed. */
const DEADLINE_SECONDS = 900
const SLICE = 4096
const POLL_MS = 1000

/** After so long a repeated request means what it says: another one. */
const SAME_REQUEST_SECONDS = 3600

export interface Relayed {
  readonly token: Token
  /** undefined: it was mined while nobody looked, and the relay has not said as what */
  readonly transaction: string | undefined
}

/** @throws `client/…` from the key server, `chain/…`, `client/relay-payment` for an offer that wants to be paid */
export async function requestThroughRelay(options: RelayedRequestOptions): Promise<Relayed> {
  const granted = (await goOn(options)) ?? (await ask(options))
  await options.onGranted(granted.token)
  await options.keeper.clear()
  return granted
}

/** A request that was cut off: the relay pays for it once, whether it had it before or not. */
async function goOn(options: RelayedRequestOptions): Promise<Relayed | undefined> {
  const { keeper, reader, offer, account, clock, onProgress } = options
  const record = await keeper.load()
  if (record?.signed === undefined) return undefined
  const { request, nonce } = record.signed
  onProgress({ phase: 'resumed' })
  const used = await reader.atHead((head) => nonceOf(reader, offer.contract, account.address, head))
  let { transaction } = record
  try {
    if (transaction === undefined && used === nonce && request.deadline > clock.nowMs() / 1000) {
      transaction = await handOver(request, nonce, options)
    }
    if (transaction === undefined && used === nonce) return undefined
    if (transaction !== undefined) await confirmed(transaction, options)
  } catch (error) {
    // what is refused now can be asked for anew; a relay that is busy or away is no refusal
    if (isIotchainError(error) && REFUSALS.has(error.code)) return undefined
    throw error
  }
  return reader.atHead(async (head) => {
    const [token] = await reader.tokensOf(offer.contract, offer.resource, [account.address], head)
    const stands = token !== undefined && token.expiresAt > head.timestamp
    return stands && head.timestamp - token.issuedAt <= SAME_REQUEST_SECONDS ? { token, transaction } : undefined
  })
}

const REFUSALS: ReadonlySet<string> = new Set(['client/forbidden', 'client/refused', 'client/relay-failed'])

async function ask(options: RelayedRequestOptions): Promise<Relayed> {
  const { reader, account, offer, rpc, onProgress } = options
  for (let attempt = 1; ; attempt++) {
    const { request, nonce, boundTo } = await signRequest(options)
    try {
      const transaction = await handOver(request, nonce, options)
      await confirmed(transaction, options)
      const [token] = await reader.atHead((head) =>
        reader.tokensOf(offer.contract, offer.resource, [account.address], head),
      )
      return { token: token as Token, transaction }
    } catch (error) {
      if (!isIotchainError(error) || !REFUSALS.has(error.code) || boundTo === undefined) throw error
      if (!(await isBlockGone(rpc, boundTo))) throw error
      if (attempt === PUZZLE_ATTEMPTS) throw puzzleLost(error)
      onProgress({ phase: 'puzzle-lost', block: boundTo.number, attempt, of: PUZZLE_ATTEMPTS })
    }
  }
}

/** Solves the relay's puzzle and gives it the request. @returns the transaction's hash */
async function handOver(request: SignedRequest, nonce: number, options: RelayedRequestOptions): Promise<string> {
  const { session, keeper, onProgress } = options
  const { challenge, difficulty } = await session.relayTask()
  const solution = await solve({ ...request, challenge }, difficulty, options)
  const signed = { request, nonce }
  await keeper.save({ signed })
  const hash = `0x${toHex(await session.relay({ ...request, challenge, solution }))}` as const
  await keeper.save({ signed, transaction: hash })
  onProgress({ phase: 'sent', hash })
  return hash
}

async function signRequest(
  options: RelayedRequestOptions,
): Promise<{ request: SignedRequest; nonce: number; boundTo: BlockName | undefined }> {
  const { reader, account, offer, ttlSeconds, evidence, clock, onProgress, signal } = options
  const deadline = Math.floor(clock.nowMs() / 1000) + DEADLINE_SECONDS
  const { proof, nonce } = await reader.atHead(async (head) => {
    await checkPublisher(reader, offer.resource, offer.contract, head, options.allowContracts)
    const ask = { client: account.address, offer, ttlSeconds, caller: account.address }
    const condition = await conditionOf(reader, ask, head)
    refusePayments(condition)
    const context = { ask, head, reader, consumer: offer.contract, evidence, onProgress, signal }
    const [made, next] = await Promise.all([
      proofFor(condition, context),
      nonceOf(reader, offer.contract, account.address, head),
    ])
    return { proof: made satisfies Proof, nonce: next }
  })
  const { contract, id } = offer
  const terms = { chainId: reader.chainId, contract, offer: id, ttlSeconds, proof: proof.octets, nonce, deadline }
  const signed = await signTokenRequest(account, terms)
  const request = {
    contract: addressBytes(contract),
    client: addressBytes(account.address),
    offer: id,
    ttlSeconds,
    proof: fromHex(proof.octets),
    deadline,
    signature: signed.signature,
  }
  return { request, nonce, boundTo: proof.boundTo }
}

/** A relay pays for gas, not for the price of an offer. */
function refusePayments(condition: Condition): void {
  if (condition.kind === 'payment-ether' || condition.kind === 'payment-token') {
    throw new IotchainError(
      'client/relay-payment',
      'an offer that has to be paid cannot be asked for through a relay',
      {
        hint: 'use a funded key without --fresh, or take another offer',
      },
    )
  }
  if (condition.kind === 'all-of') condition.parts.forEach(refusePayments)
}

async function solve(puzzle: RelayPuzzle, difficulty: number, options: RelayedRequestOptions): Promise<Uint8Array> {
  for (let tried = 0; ; tried += SLICE) {
    const solution = searchRelaySolution(puzzle, difficulty, tried, SLICE)
    if (solution !== undefined) return solution
    options.onProgress({ phase: 'relay-puzzle', tried: tried + SLICE, expected: 2 ** difficulty })
    await new Promise((resolve) => setImmediate(resolve))
    options.signal.throwIfAborted()
  }
}

async function confirmed(hash: string, options: RelayedRequestOptions): Promise<void> {
  const { rpc, reader, confirmations, signal, onProgress, clock } = options
  const until = clock.monotonicMs() + DEADLINE_SECONDS * 1000
  for (;;) {
    const receipt = await rpc.call<{ blockNumber: string; status?: string } | null>('eth_getTransactionReceipt', [hash])
    if (receipt?.status === '0x0') {
      throw new IotchainError('client/relay-failed', 'the relayed request was mined and failed', {
        hint: 'something changed after the relay had tried it: run the command again',
      })
    }
    if (receipt !== null) {
      const block = Number(receipt.blockNumber)
      const depth = (await reader.head()).number - block
      onProgress({
        phase: 'confirming',
        hash: hash as `0x${string}`,
        block,
        depth: Math.min(depth, confirmations),
        of: confirmations,
      })
      if (depth >= confirmations) return
    } else if (clock.monotonicMs() > until) {
      throw new IotchainError('client/relay-failed', 'the relayed request was not mined in time', {
        hint: 'the chain may be slow: run the command again, the relay sends nothing twice',
      })
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    signal.throwIfAborted()
  }
}
