/** What an AccessToken contract offers, and what each policy wants, read at one block. */
import type { Abi } from 'abitype'
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { allOfAbi, allowlistAbi, attestationAbi, holderAbi, puzzleAbi, quotaAbi, tokenPaymentAbi } from './abi.ts'
import { Codec } from './codec.ts'
import { accessToken, policy as anyPolicy } from './contracts.ts'
import { RELEASE } from './deployments.ts'
import type { ChainReader } from './reader.ts'
import type { Head, Hex } from './types.ts'

export interface Offer {
  readonly id: number
  readonly contract: Address
  readonly policy: Address
  readonly resource: Address
  /** uint32 */
  readonly claims: number
  readonly maxTtlSeconds: number
  readonly active: boolean
}

/** Who asks for what, as the contract will put it to the policy. */
export interface Ask {
  readonly client: Address
  readonly offer: Offer
  readonly ttlSeconds: number
  /** who sends the transaction: the client, or a relay */
  readonly caller: Address
}

interface Stands {
  readonly address: Address
  /** Its code is that of this release; otherwise what it says of itself proves nothing. */
  readonly ours: boolean
}

export type Condition = Stands &
  (
    | { readonly kind: 'open' | 'quota' }
    | { readonly kind: 'puzzle'; readonly difficulty: number; readonly consumer: Address }
    | { readonly kind: 'allowlist'; readonly root: Hex }
    | { readonly kind: 'attestation'; readonly statement: Hex }
    | { readonly kind: 'payment-ether'; readonly amount: bigint }
    | {
        readonly kind: 'payment-token'
        readonly currency: Address
        readonly amount: bigint
        readonly consumer: Address
      }
    | { readonly kind: 'holder'; readonly asset: Address; readonly minimum: bigint }
    | { readonly kind: 'all-of' | 'any-of'; readonly parts: readonly Condition[] }
    | { readonly kind: 'unknown'; readonly name: string }
  )

/** Composites inside composites, at most. */
const MAX_DEPTH = 4
const MAX_OFFERS = 256

const puzzle = new Codec(puzzleAbi)
const allowlist = new Codec(allowlistAbi)
const attestation = new Codec(attestationAbi)
const payment = new Codec(tokenPaymentAbi)
const holder = new Codec(holderAbi)
const composite = new Codec(allOfAbi)
export const quotaCodec = new Codec(quotaAbi)

/** All offers of a contract, at most 256. @throws `chain/bad-answer` if there is no such contract */
export async function offersOf(reader: ChainReader, contract: Address, head: Head): Promise<Offer[]> {
  const count = Math.min(await reader.read(accessToken, contract, 'offerCount', [], head), MAX_OFFERS)
  return Promise.all(Array.from({ length: count }, (_, id) => offerOf(reader, contract, id, head)))
}

/** @throws `chain/no-offer` */
export async function offerOf(reader: ChainReader, contract: Address, id: number, head: Head): Promise<Offer> {
  const count = await reader.read(accessToken, contract, 'offerCount', [], head)
  if (!(id >= 0 && id < count)) {
    throw new IotchainError('chain/no-offer', `contract ${contract} has no offer ${id}`, {
      hint: count === 0 ? 'It offers nothing yet.' : `Its offers are numbered 0 to ${count - 1}.`,
    })
  }
  const o = await reader.read(accessToken, contract, 'offerOf', [id], head)
  return {
    id,
    contract,
    policy: o.policy,
    resource: o.resource,
    claims: Number(o.claims),
    maxTtlSeconds: Number(o.maxTtl),
    active: o.active,
  }
}

/** What a policy wants for this request. */
export async function conditionOf(reader: ChainReader, ask: Ask, head: Head): Promise<Condition> {
  return conditionAt(reader, ask.offer.policy, ask, head, 0)
}

async function conditionAt(reader: ChainReader, at: Address, ask: Ask, head: Head, depth: number): Promise<Condition> {
  const get = <const A extends Abi>(codec: Codec<A>, name: string): Promise<unknown> =>
    reader.read(codec, at, name as never, [] as never, head)
  const [name, hash] = await Promise.all([
    reader.read(anyPolicy, at, 'kind', [], head).catch(() => ''),
    reader.codeHash(at, head),
  ])
  const stands = { address: at, ours: name in RELEASE && RELEASE[name as 'open'].code.codeHash === hash }
  const unknown: Condition = { ...stands, kind: 'unknown', name: name.slice(0, 40).replaceAll(/[^\x20-\x7e]/g, '?') }
  if (!stands.ours) return unknown
  switch (name) {
    case 'open':
    case 'quota':
      return { ...stands, kind: name }
    case 'puzzle': {
      const [difficulty, consumer] = await Promise.all([get(puzzle, 'difficulty'), get(puzzle, 'consumer')])
      return { ...stands, kind: name, difficulty: difficulty as number, consumer: consumer as Address }
    }
    case 'allowlist':
      return { ...stands, kind: name, root: (await get(allowlist, 'root')) as Hex }
    case 'attestation':
      return { ...stands, kind: name, statement: (await get(attestation, 'statement')) as Hex }
    case 'payment-ether':
      return { ...stands, kind: name, amount: await amountOf(reader, at, ask, head) }
    case 'payment-token': {
      const [currency, consumer] = await Promise.all([get(payment, 'currency'), get(payment, 'consumer')])
      const amount = await amountOf(reader, at, ask, head)
      return { ...stands, kind: name, currency: currency as Address, amount, consumer: consumer as Address }
    }
    case 'holder': {
      const [asset, minimum] = await Promise.all([get(holder, 'asset'), get(holder, 'minimum')])
      return { ...stands, kind: name, asset: asset as Address, minimum: minimum as bigint }
    }
    case 'all-of':
    case 'any-of': {
      if (depth >= MAX_DEPTH) return unknown
      const parts = (await get(composite, 'parts')) as Address[]
      return {
        ...stands,
        kind: name,
        parts: await Promise.all(parts.map((part) => conditionAt(reader, part, ask, head, depth + 1))),
      }
    }
    default:
      return unknown
  }
}

function amountOf(reader: ChainReader, at: Address, ask: Ask, head: Head): Promise<bigint> {
  return reader.read(payment, at, 'amountOf', [askTuple(ask)], head)
}

/** The struct `Ask` of the contracts. */
function askTuple(ask: Ask) {
  const { offer, client, caller, ttlSeconds } = ask
  return {
    client,
    resource: offer.resource,
    accessToken: offer.contract,
    caller,
    offer: offer.id,
    ttl: BigInt(ttlSeconds),
    claims: `0x${offer.claims.toString(16).padStart(8, '0')}` as Hex,
  }
}

/** One line for people: "all of (a puzzle of 16 bits; 5 wei)". */
export function describeCondition(c: Condition): string {
  switch (c.kind) {
    case 'open':
      return 'open to everybody'
    case 'quota':
      return 'as long as the quota lasts'
    case 'puzzle':
      return `a puzzle of ${c.difficulty} bits`
    case 'allowlist':
      return 'clients on a list'
    case 'attestation':
      return 'an attestation'
    case 'payment-ether':
      return `${c.amount} wei`
    case 'payment-token':
      return `${c.amount} units of ${c.currency}`
    case 'holder':
      return `holders of at least ${c.minimum} of ${c.asset}`
    case 'all-of':
    case 'any-of':
      return `${c.kind === 'all-of' ? 'all' : 'any'} of (${c.parts.map(describeCondition).join('; ')})`
    case 'unknown':
      return `a policy that this release does not know${c.name === '' ? '' : ` (${c.name})`}`
  }
}
