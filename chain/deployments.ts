/** The contracts of this release: their code, how they are deployed, which policies have to be bound. */
import type { Address } from '../protocol/messages/address.ts'
import {
  accessTokenAbi,
  allOfAbi,
  allowlistAbi,
  anyOfAbi,
  attestationAbi,
  deviceRegistryAbi,
  etherPaymentAbi,
  holderAbi,
  openAbi,
  puzzleAbi,
  quotaAbi,
  tokenPaymentAbi,
} from './abi.ts'
import {
  accessTokenCode,
  allOfCode,
  allowlistCode,
  anyOfCode,
  attestationCode,
  type ContractCode,
  deviceRegistryCode,
  etherPaymentCode,
  holderCode,
  openCode,
  puzzleCode,
  quotaCode,
  tokenPaymentCode,
} from './bytecode.ts'
import { Codec } from './codec.ts'
import type { Intent } from './transaction.ts'
import type { Hex } from './types.ts'

/** What can be deployed, with the constructor's arguments. */
export type Deployment =
  | { readonly kind: 'registry' }
  | { readonly kind: 'access-token'; readonly owner: Address; readonly resource: Address }
  | PolicySpec

/** A policy as an owner describes it; parts of composites are addresses of policies that stand already. */
export type PolicySpec =
  | { readonly kind: 'open' }
  | { readonly kind: 'puzzle'; readonly difficulty: number }
  | { readonly kind: 'allowlist'; readonly owner: Address; readonly root: Hex }
  | {
      readonly kind: 'attestation'
      readonly owner: Address
      readonly statement: Hex
      readonly issuers: readonly Address[]
    }
  | { readonly kind: 'payment-ether'; readonly payee: Address; readonly fixed: bigint; readonly perSecond: bigint }
  | {
      readonly kind: 'payment-token'
      readonly currency: Address
      readonly payee: Address
      readonly fixed: bigint
      readonly perSecond: bigint
    }
  | { readonly kind: 'quota'; readonly periodSeconds: number; readonly perClient: number; readonly total: number }
  | { readonly kind: 'holder'; readonly asset: Address; readonly minimum: bigint }
  | { readonly kind: 'all-of' | 'any-of'; readonly parts: readonly Address[] }

interface Release {
  readonly name: string
  readonly code: ContractCode
  readonly abi: readonly unknown[]
}

/** Each kind of contract of this release. */
export const RELEASE: Readonly<Record<Deployment['kind'], Release>> = {
  registry: { name: 'DeviceRegistry', code: deviceRegistryCode, abi: deviceRegistryAbi },
  'access-token': { name: 'AccessToken', code: accessTokenCode, abi: accessTokenAbi },
  open: { name: 'Open', code: openCode, abi: openAbi },
  puzzle: { name: 'Puzzle', code: puzzleCode, abi: puzzleAbi },
  allowlist: { name: 'Allowlist', code: allowlistCode, abi: allowlistAbi },
  attestation: { name: 'Attestation', code: attestationCode, abi: attestationAbi },
  'payment-ether': { name: 'EtherPayment', code: etherPaymentCode, abi: etherPaymentAbi },
  'payment-token': { name: 'TokenPayment', code: tokenPaymentCode, abi: tokenPaymentAbi },
  quota: { name: 'Quota', code: quotaCode, abi: quotaAbi },
  holder: { name: 'Holder', code: holderCode, abi: holderAbi },
  'all-of': { name: 'AllOf', code: allOfCode, abi: allOfAbi },
  'any-of': { name: 'AnyOf', code: anyOfCode, abi: anyOfAbi },
}

/** Policies that record something, and composites: they serve one consumer, to be bound once. */
export function needsBinding(kind: PolicySpec['kind']): boolean {
  return !['open', 'allowlist', 'attestation', 'holder'].includes(kind)
}

export function deployIntent(what: Deployment): Intent {
  const { name, code, abi } = RELEASE[what.kind]
  const args = new Codec(abi as typeof puzzleAbi).encodeDeploy(constructorArguments(what))
  return { what: `deployment of ${name}`, to: undefined, data: `${code.creation}${args.slice(2)}` }
}

function constructorArguments(what: Deployment): readonly unknown[] {
  switch (what.kind) {
    case 'registry':
    case 'open':
      return []
    case 'access-token':
      return [what.owner, what.resource]
    case 'puzzle':
      return [what.difficulty]
    case 'allowlist':
      return [what.owner, what.root]
    case 'attestation':
      return [what.owner, what.statement, what.issuers]
    case 'payment-ether':
      return [what.payee, what.fixed, what.perSecond]
    case 'payment-token':
      return [what.currency, what.payee, what.fixed, what.perSecond]
    case 'quota':
      return [what.periodSeconds, what.perClient, what.total]
    case 'holder':
      return [what.asset, what.minimum]
    case 'all-of':
    case 'any-of':
      return [what.parts]
  }
}

const boundPolicy = new Codec(puzzleAbi)
/** Fixes the one caller that a policy serves. */
export function bindIntent(policy: Address, consumer: Address): Intent {
  return {
    what: `binding of policy ${policy} to ${consumer}`,
    to: policy,
    data: boundPolicy.encode('bind', [consumer]),
  }
}
