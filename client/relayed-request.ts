/**
 * A token for an address that owns nothing (IoTChain §III-C: the client's privacy): the client signs what it wants, and
 * the key server's relay pays the transaction, for a puzzle that it sets.
 */
import { type Condition, conditionOf, type Offer } from '../chain/offers.ts'
import type { ChainReader } from '../chain/reader.ts'
import { type Evidence, type Proof, proofFor, type RequestProgress } from '../chain/request.ts'
import type { JsonRpc } from '../chain/rpc.ts'
import { nonceOf, signTokenRequest } from '../chain/sponsor.ts'
import { checkPublisher } from '../chain/trust.ts'
import type { Token } from '../chain/types.ts'
import type { Account } from '../chain/wallet.ts'
import { fromHex, toHex } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { type RelayPuzzle, type RelayRequest, searchRelaySolution } from '../protocol/messages/relay.ts'
import type { KeyServerSession } from './keyserver-session.ts'

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
  readonly onProgress: (progress: RelayProgress) => void
  readonly signal: AbortSignal
}

/** The request may be sent until so long after it was signed. */
const DEADLINE_SECONDS = 900
const SLICE = 4096
const POLL_MS = 1000

/** @throws `client/…` from the key server, `chain/…`, `client/relay-payment` for an offer that wants to be paid */
export async function requestThroughRelay(
  options: RelayedRequestOptions,
): Promise<{ token: Token; transaction: string }> {
  const { session, reader, account, offer } = options
  const request = await signRequest(options)
  const { challenge, difficulty } = await session.relayTask()
  const solution = await solve({ ...request, challenge }, difficulty, options)
  const hash = await session.relay({ ...request, challenge, solution })
  const transaction = `0x${toHex(hash)}`
  options.onProgress({ phase: 'sent', hash: transaction as `0x${string}` })
  await confirmed(transaction, options)
  const [token] = await reader.atHead((head) =>
    reader.tokensOf(offer.contract, offer.resource, [account.address], head),
  )
  return { token: token as Token, transaction }
}

type SignedRequest = Omit<RelayRequest, 'challenge' | 'solution'>

async function signRequest(options: RelayedRequestOptions): Promise<SignedRequest> {
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
  return {
    contract: addressBytes(contract),
    client: addressBytes(account.address),
    offer: id,
    ttlSeconds,
    proof: fromHex(proof.octets),
    deadline,
    signature: signed.signature,
  }
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
