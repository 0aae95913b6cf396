/** What a contract said when it refused, in a sentence for a person. */
import { IotchainError } from '../protocol/errors.ts'
import {
  allOfAbi,
  allowlistAbi,
  anyOfAbi,
  attestationAbi,
  etherPaymentAbi,
  holderAbi,
  puzzleAbi,
  quotaAbi,
  tokenPaymentAbi,
} from './abi.ts'
import { Codec, type Decoded } from './codec.ts'
import { accessToken, deviceRegistry, erc20Errors } from './contracts.ts'
import type { RpcError } from './rpc.ts'
import type { Hex } from './types.ts'

const policies = [
  puzzleAbi,
  allowlistAbi,
  attestationAbi,
  etherPaymentAbi,
  tokenPaymentAbi,
  quotaAbi,
  holderAbi,
  allOfAbi,
  anyOfAbi,
]

interface ErrorSource {
  decodeError(data: Hex): Decoded | undefined
  errorName(selector: string): string | undefined
}
let sources: readonly ErrorSource[] | undefined
const allSources = (): readonly ErrorSource[] => {
  sources ??= [accessToken, deviceRegistry, ...policies.map((abi) => new Codec(abi as typeof puzzleAbi)), erc20Errors]
  return sources
}

type Sentence = (args: Readonly<Record<string, unknown>>) => string
const time = (seconds: unknown): string => {
  const n = Number(seconds)
  return n > 8.64e12 ? 'for ever' : new Date(n * 1000).toISOString().replace('.000', '')
}

/** Each error of our contracts. What is not here is named as the contract names it. */
const SENTENCES: Readonly<Record<string, Sentence>> = {
  AccessControlUnauthorizedAccount: (a) => `account ${a['account']} does not have the role that this needs`,
  ZeroAddress: () => 'an address is missing',
  NoClaims: () => 'a token without a right makes no sense: claims are empty',
  NoTime: () => 'the time is zero',
  SerialsExhausted: () => 'this client has used up the serial numbers of this contract',
  NotYours: (a) => `only client ${a['client']} itself or an authorization server may delete that token`,
  Barred: (a) => `the client is barred until ${time(a['until'])}`,
  NoSuchOffer: (a) => `there is no offer ${a['offer']}`,
  OfferClosed: (a) => `offer ${a['offer']} is closed`,
  TtlTooLong: (a) => `the offer grants at most ${a['maxTtl']} s`,
  Expired: (a) => `it was signed to be sent before ${time(a['deadline'])}`,
  BadSignature: () => 'the signature is not that of the account it names',
  OutOfPolicyGas: () => 'the gas limit leaves too little for the policy',
  ReentrancyGuardReentrantCall: () => 'the policy tried to call back',
  NotOwner: (a) => `the device belongs to ${a['owner'] ?? 'somebody else'}`,
  AlreadyRegistered: (a) => `the device is registered already, by ${a['owner']}`,
  NotActive: () => 'the device has been deactivated',
  NotOffered: () => 'the device was not offered to this account',
  TooManyContracts: () => 'a device may name 8 contracts at most',
  UriTooLong: () => 'the uri is longer than 256 octets',
  ZeroKey: () => 'a key is missing',
  BadDeviceSignature: () =>
    'the device has not signed this (owner, keys, nonce and deadline have to be the ones it signed)',
  NotSolved: () => 'the puzzle is not solved',
  AlreadyUsed: () => 'this solution of the puzzle has been used',
  UnknownBlock: () => 'the solution of the puzzle is older than 256 blocks',
  BadProof: () => 'the proof is malformed',
  NotListed: () => 'the client is not on the list',
  UnknownIssuer: (a) => `attestations of ${a['issuer'] ?? 'this issuer'} are not accepted`,
  TooShort: () => 'the attestation ends before the token would',
  WrongAmount: (a) => (a['price'] === undefined ? 'that is not the price' : `the price is ${a['price']} wei`),
  UnexpectedValue: () => 'it costs nothing, but money was sent',
  NotConsumer: () => 'the policy is bound to another contract, or to none yet',
  ClientExhausted: () => 'the client has used up its quota for now',
  Exhausted: () => 'the quota of all clients is used up for now',
  NotHolder: () => 'the client does not hold the asset that is asked for',
  WrongProofs: () => 'there has to be one proof for each part',
  NoSuchPart: () => 'there is no such part',
  ERC20InsufficientAllowance: () => 'the client has not allowed the policy to take the price',
  ERC20InsufficientBalance: () => 'the client owns less than the price',
}

export interface Refusal {
  /** The error's name in the contract, if it is known. */
  readonly name: string | undefined
  readonly sentence: string
}

/** Reads the octets of a revert; undefined or empty octets too. */
export function explainRevert(data: Hex | undefined): Refusal {
  if (data === undefined || data === '0x') return { name: undefined, sentence: 'no reason was given' }
  const text = decodeText(data)
  if (text !== undefined) return { name: 'Error', sentence: text }
  for (const source of allSources()) {
    const found = source.decodeError(data)
    if (found === undefined) continue
    if (found.name === 'PolicyRefused') return explainPolicy(found.args['reason'] as Hex)
    return { name: found.name, sentence: SENTENCES[found.name]?.(found.args) ?? found.name }
  }
  return { name: undefined, sentence: `for a reason that is not known here (${data.slice(0, 10)})` }
}

/** The 32 octets that are left of a policy's reason: its selector, and what of the arguments still fitted. */
function explainPolicy(reason: Hex): Refusal {
  if (/^0x0*$/.test(reason)) {
    return {
      name: 'PolicyRefused',
      sentence: 'the policy refused without a reason (it ran out of gas, or is no policy)',
    }
  }
  const selector = reason.slice(0, 10)
  const name = allSources()
    .map((s) => s.errorName(selector))
    .find((n) => n !== undefined)
  if (name === undefined) return { name: 'PolicyRefused', sentence: `the policy refused (${selector})` }
  return { name, sentence: `the policy refused: ${SENTENCES[name]?.({}) ?? name}` }
}

/** Error(string) and Panic(uint256), which Solidity itself throws. */
function decodeText(data: Hex): string | undefined {
  if (data.startsWith('0x4e487b71'))
    return `the contract stopped with panic ${Number(data.slice(-2)) || data.slice(-4)}`
  if (!data.startsWith('0x08c379a0')) return undefined
  const length = Number.parseInt(data.slice(74, 138), 16)
  if (!(length <= 1000)) return undefined
  const octets = data.slice(138, 138 + 2 * length).match(/../g) ?? []
  return String.fromCharCode(...octets.map((o) => Number.parseInt(o, 16))).replaceAll(/[^\x20-\x7e]/g, '?')
}

/** The error for a call or a transaction that a contract refused. */
export function revertError(what: string, error: RpcError | Hex | undefined): IotchainError {
  const data = typeof error === 'object' ? error.data : error
  const refusal = explainRevert(data)
  return new IotchainError('chain/reverted', `${what} was refused: ${refusal.sentence}`, {
    hint: refusal.name === undefined ? undefined : `The contract's own word for it is ${refusal.name}.`,
    cause: error,
  })
}
