/**
 * A client asks for a token: checks whose contract it is, reads what the policy wants, brings the proof (solves the
 * puzzle, allows the payment, shows the attestation), and sends the request (IoTChain §III-C, steps 1 to 3).
 */
import { AbiCoder } from 'ethers'
import { toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { accessToken, erc20 } from './contracts.ts'
import { approveIntent, requestTokenIntent } from './intents.ts'
import { merkleTree } from './merkle.ts'
import { type Ask, type Condition, conditionOf, describeCondition, type Offer, offerOf } from './offers.ts'
import { type PuzzleProgress, solvePuzzle } from './puzzle.ts'
import type { ChainReader } from './reader.ts'
import type { TransactionSender } from './sender.ts'
import type { Receipt, SendProgress } from './transaction.ts'
import { checkPublisher } from './trust.ts'
import type { Head, Hex, Token } from './types.ts'

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

export type RequestProgress =
  | SendProgress
  | ({ readonly phase: 'puzzle' } & PuzzleProgress)
  | { readonly phase: 'allowance'; readonly currency: Address; readonly amount: bigint }

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

/** @throws `chain/no-offer`, `chain/offer-closed`, `chain/untrusted-contract`, `chain/needs-evidence`, `chain/reverted`, … */
export async function requestToken(options: TokenRequestOptions): Promise<GrantedToken> {
  const { reader, sender, contract, onProgress, signal } = options
  const client = sender.account.address
  const { offer, proof } = await reader.atHead(async (head) => {
    const found = await offerOf(reader, contract, options.offer, head)
    const ttlSeconds = checkedTtl(found, options.ttlSeconds)
    await checkPublisher(reader, found.resource, contract, head, options.allowContracts)
    const ask: Ask = { client, offer: found, ttlSeconds, caller: client }
    const condition = await conditionOf(reader, ask, head)
    return {
      offer: { ...found, ttlSeconds },
      proof: await proofFor(condition, { ...options, ask, head, consumer: contract }),
    }
  })
  for (const a of proof.allowances) {
    const head = await reader.head()
    if ((await reader.read(erc20, a.currency, 'allowance', [client, a.spender], head)) >= a.amount) continue
    onProgress?.({ phase: 'allowance', currency: a.currency, amount: a.amount })
    await sender.send(approveIntent(a.currency, a.spender, a.amount), { ...(signal && { signal }) })
  }
  const intent = requestTokenIntent(contract, offer.id, offer.ttlSeconds, proof.octets, proof.value)
  const receipt = await sender.send(intent, {
    confirmations: options.confirmations ?? 0,
    ...(onProgress && { onProgress }),
    ...(signal && { signal }),
  })
  const [token] = await reader.atHead((head) => reader.tokensOf(contract, offer.resource, [client], head))
  return { device: offer.resource, contract, token: token as Token, receipt, paid: proof.value }
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

export interface ProofContext {
  readonly ask: Ask
  readonly head: Head
  readonly reader: ChainReader
  readonly consumer: Address
  readonly evidence?: Evidence
  readonly onProgress?: (progress: RequestProgress) => void
  readonly signal?: AbortSignal
}

export interface Proof {
  readonly octets: Hex
  /** wei to send along */
  readonly value: bigint
  readonly allowances: readonly { readonly currency: Address; readonly spender: Address; readonly amount: bigint }[]
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
      return simple(await solution(condition.address, condition.consumer, condition.difficulty, context))
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

async function solution(policy: Address, consumer: Address, difficulty: number, context: ProofContext): Promise<Hex> {
  const { ask, head, onProgress, signal, reader } = context
  const { client, offer } = ask
  return solvePuzzle(
    {
      chainId: reader.chainId,
      policy,
      consumer,
      accessToken: offer.contract,
      client,
      resource: offer.resource,
      offer: offer.id,
      block: head,
      difficulty,
    },
    { ...(onProgress && { onProgress: (p) => onProgress({ phase: 'puzzle', ...p }) }), ...(signal && { signal }) },
  )
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
