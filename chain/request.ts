/**
 * A client asks for a token: checks whose contract it is, reads what the policy wants, brings the proof, and sends the
 * request (IoTChain §III-C, steps 1 to 3). With a journal a request that was cut off goes on where it stopped.
 */
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { accessToken, erc20 } from './contracts.ts'
import { type Evidence, isBlockGone, type Proof, type PuzzleTried, proofFor } from './evidence.ts'
import { approveIntent, requestTokenIntent } from './intents.ts'
import { type Journal, NO_JOURNAL, resumeKept, sendKept } from './journal.ts'
import { type Ask, conditionOf, type Offer, offerOf } from './offers.ts'
import type { ChainReader } from './reader.ts'
import type { TransactionSender } from './sender.ts'
import { type Intent, noFunds, type OpenTransaction, type Receipt, type SendProgress } from './transaction.ts'
import { checkPublisher } from './trust.ts'
import type { Head, Hex, Token } from './types.ts'
import { readTransaction } from './wallet.ts'

export type RequestProgress =
  | SendProgress
  | PuzzleTried
  | { readonly phase: 'allowance'; readonly currency: Address; readonly amount: bigint }
  /** An earlier request that was cut off is gone on with. */
  | { readonly phase: 'resumed' }
  /** The block that the puzzle is bound to is no longer part of the chain: it is solved again. */
  | { readonly phase: 'puzzle-lost'; readonly block: number; readonly attempt: number; readonly of: number }

export interface TokenRequestOptions {
  readonly reader: ChainReader
  readonly sender: TransactionSender
  readonly contract: Address
  readonly offer: number
  /** default: as long as the offer allows */
  readonly ttlSeconds?: number | undefined
  readonly evidence?: Evidence
  /** blocks to wait for on top of the request's own; default 0 */
  readonly confirmations?: number
  /** contracts that are trusted although they are not of this release */
  readonly allowContracts?: readonly Address[]
  /** where transactions are kept until their outcome is known; default: nowhere */
  readonly journal?: Journal
  /** of a request that was cut off and is not mined yet: sends it again with a higher fee */
  readonly raiseFee?: boolean
  /** Called, and waited for, before a granted request counts as done: a cut between them does it again. */
  readonly onGranted?: (granted: GrantedToken) => Promise<void>
  readonly onProgress?: (progress: RequestProgress) => void
  readonly signal?: AbortSignal
}

export interface GrantedToken {
  readonly device: Address
  readonly contract: Address
  readonly token: Token
  readonly receipt: Receipt
  readonly paid: bigint
}

/** How often a puzzle is solved for one request while reorgs take the blocks that it is bound to. */
export const PUZZLE_ATTEMPTS = 3
/** After so long a repeated request means what it says: another one. */
const SAME_REQUEST_SECONDS = 3600
const STEP = 'request'

/** @throws `chain/no-offer`, `chain/offer-closed`, `chain/untrusted-contract`, `chain/needs-evidence`, `chain/reverted`, … */
export async function requestToken(options: TokenRequestOptions): Promise<GrantedToken> {
  const { journal = NO_JOURNAL } = options
  const granted = (await goOn(options, journal)) ?? (await ask(options, journal))
  await options.onGranted?.(granted)
  await journal.closed(STEP)
  return granted
}

/** What was sent before and cut off, followed to its end; undefined if there is none, or nothing came of it. */
async function goOn(options: TokenRequestOptions, journal: Journal): Promise<GrantedToken | undefined> {
  const { sender, contract, reader, onProgress } = options
  let paid = 0n
  const intentOf = (open: OpenTransaction): Intent => {
    const { data, value } = readTransaction(open.raw)
    paid = value
    onProgress?.({ phase: 'resumed' })
    return { ...requestTokenIntent(contract, options.offer, 0, '0x', value), data }
  }
  const receipt = await resumeKept(sender, intentOf, keeping(options, journal, STEP))
  if (receipt === undefined) return undefined
  const { token, device, now } = await reader.atHead(async (head) => {
    const { resource } = await offerOf(reader, contract, options.offer, head)
    const [found] = await reader.tokensOf(contract, resource, [sender.account.address], head)
    return { token: found as Token, device: resource, now: head.timestamp }
  })
  const stands = token.grantBlock === receipt.block && token.expiresAt > now
  if (stands && now - token.issuedAt <= SAME_REQUEST_SECONDS) return { device, contract, token, receipt, paid }
  await journal.closed(STEP)
  return undefined
}

async function ask(options: TokenRequestOptions, journal: Journal): Promise<GrantedToken> {
  const { sender, onProgress } = options
  for (let attempt = 1; ; attempt++) {
    const prepared = await prepare(options)
    const { boundTo } = prepared.proof
    try {
      return await send(options, journal, prepared)
    } catch (error) {
      if (!isIotchainError(error) || error.code !== 'chain/reverted' || boundTo === undefined) throw error
      if (!(await isBlockGone(sender.rpc, boundTo))) throw error
      if (attempt === PUZZLE_ATTEMPTS) throw puzzleLost(error)
      onProgress?.({ phase: 'puzzle-lost', block: boundTo.number, attempt, of: PUZZLE_ATTEMPTS })
    }
  }
}

export function puzzleLost(cause: unknown): IotchainError {
  return new IotchainError(
    'chain/puzzle-lost',
    `the blocks that the puzzle was bound to were taken back ${PUZZLE_ATTEMPTS} times, or became too old`,
    { hint: 'The chain is being reorganised, or the puzzle takes long here: run the command again later.', cause },
  )
}

/** An account that owns nothing learns it before it has searched for a solution. */
async function checkFunds({ sender }: TokenRequestOptions, offer: number): Promise<void> {
  const { rpc, account } = sender
  const [balance, price] = await Promise.all([
    rpc.call<Hex>('eth_getBalance', [account.address, 'latest']),
    rpc.call<Hex>('eth_gasPrice'),
  ])
  if (BigInt(balance) > 0n || BigInt(price) === 0n) return
  throw noFunds(requestTokenIntent(account.address, offer, 0, '0x', 0n), account.address, 0n, undefined)
}

interface Prepared {
  readonly offer: Offer
  readonly ttlSeconds: number
  readonly proof: Proof
}

async function prepare(options: TokenRequestOptions): Promise<Prepared> {
  const { reader, sender, contract } = options
  const client = sender.account.address
  return reader.atHead(async (head) => {
    const offer = await offerOf(reader, contract, options.offer, head)
    const ttlSeconds = checkedTtl(offer, options.ttlSeconds)
    await checkPublisher(reader, offer.resource, contract, head, options.allowContracts)
    const request: Ask = { client, offer, ttlSeconds, caller: client }
    const condition = await conditionOf(reader, request, head)
    await checkFunds(options, offer.id)
    const proof = await proofFor(condition, { ...options, ask: request, head, consumer: contract })
    return { offer, ttlSeconds, proof }
  })
}

async function send(
  options: TokenRequestOptions,
  journal: Journal,
  { offer, ttlSeconds, proof }: Prepared,
): Promise<GrantedToken> {
  const { reader, sender, contract } = options
  for (const allowance of proof.allowances) await allow(options, journal, allowance)
  const intent = requestTokenIntent(contract, offer.id, ttlSeconds, proof.octets, proof.value)
  const receipt = await sendKept(sender, intent, keeping(options, journal, STEP))
  const client = sender.account.address
  const [token] = await reader.atHead((head) => reader.tokensOf(contract, offer.resource, [client], head))
  return { device: offer.resource, contract, token: token as Token, receipt, paid: proof.value }
}

/** Lets a policy take its price, unless it may already. */
async function allow(
  options: TokenRequestOptions,
  journal: Journal,
  { currency, spender, amount }: Proof['allowances'][number],
): Promise<void> {
  const { reader, sender, onProgress } = options
  const kept = { ...keeping(options, journal, `allowance ${spender}`), confirmations: 0 }
  const intent = approveIntent(currency, spender, amount)
  await resumeKept(sender, () => intent, kept)
  const allowed = (head: Head): Promise<bigint> =>
    reader.read(erc20, currency, 'allowance', [sender.account.address, spender], head)
  if ((await reader.atHead(allowed)) < amount) {
    await checkCoins(options, currency, amount)
    onProgress?.({ phase: 'allowance', currency, amount })
    await sendKept(sender, intent, kept)
  }
  await journal.closed(kept.step)
}

/** Whoever has too little of a currency learns it before an allowance costs a fee. */
async function checkCoins({ reader, sender }: TokenRequestOptions, currency: Address, amount: bigint): Promise<void> {
  const { address } = sender.account
  const owned = await reader.atHead((head) => reader.read(erc20, currency, 'balanceOf', [address], head))
  if (owned >= amount) return
  throw new IotchainError(
    'chain/no-funds',
    `${address} owns ${owned} units of ${currency}, but the offer costs ${amount}`,
    {
      hint: `Get some of that currency for ${address}, or take another offer.`,
    },
  )
}

function keeping(options: TokenRequestOptions, journal: Journal, step: string) {
  const { confirmations = 0, raiseFee, onProgress, signal } = options
  return { journal, step, confirmations, raiseFee, ...(onProgress && { onProgress }), ...(signal && { signal }) }
}

function checkedTtl(offer: Offer, wished: number | undefined): number {
  if (!offer.active) {
    throw new IotchainError('chain/offer-closed', `offer ${offer.id} of ${offer.contract} is closed`, {
      hint: 'Ask the resource owner, or take another offer.',
    })
  }
  if (wished !== undefined && !(wished > 0 && wished <= offer.maxTtlSeconds)) {
    throw new IotchainError('chain/bad-ttl', `the offer grants 1 to ${offer.maxTtlSeconds} s, not ${wished} s`, {
      hint: `Ask for at most ${offer.maxTtlSeconds} s.`,
    })
  }
  return wished ?? offer.maxTtlSeconds
}

/** True if the client is barred from grants at a device now. */
export async function barredUntil(
  reader: ChainReader,
  contract: Address,
  client: Address,
  device: Address,
  head: Head,
): Promise<number> {
  return Number(await reader.read(accessToken, contract, 'barredUntil', [client, device], head))
}
