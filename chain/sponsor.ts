/** Requests that a relay pays for: what the client signs, and what has to be true of it (EIP-712, AccessToken.sol). */
import { fromHex } from '../protocol/bytes.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { domainSeparator, hashStruct, type StructType, typedDigest } from '../protocol/messages/eip712.ts'
import { keccak256 } from './account.ts'
import { accessToken } from './contracts.ts'
import type { SponsoredRequest } from './intents.ts'
import type { ChainReader } from './reader.ts'
import type { Head, Hex } from './types.ts'
import type { Account } from './wallet.ts'

export const TOKEN_REQUEST: StructType = {
  name: 'TokenRequest',
  fields: [
    { name: 'client', type: 'address' },
    { name: 'offer', type: 'uint256' },
    { name: 'ttl', type: 'uint64' },
    { name: 'proofHash', type: 'bytes32' },
    { name: 'nonce', type: 'uint256' },
    { name: 'deadline', type: 'uint256' },
  ],
}

export interface TokenRequestTerms {
  readonly chainId: number
  readonly contract: Address
  readonly offer: number
  readonly ttlSeconds: number
  readonly proof: Hex
  /** `nonceOf` the client in that contract */
  readonly nonce: number
  /** unix seconds */
  readonly deadline: number
}

/** The 32 octets that a client signs. */
export function tokenRequestDigest(client: Address, terms: TokenRequestTerms): Uint8Array {
  const domain = domainSeparator({ chainId: terms.chainId, registry: addressBytes(terms.contract) })
  return typedDigest(domain, hashStruct(TOKEN_REQUEST, valuesOf(client, terms)))
}

export async function signTokenRequest(account: Account, terms: TokenRequestTerms): Promise<SponsoredRequest> {
  const domain = { chainId: terms.chainId, registry: addressBytes(terms.contract) }
  const signature = await account.signStruct(domain, TOKEN_REQUEST, valuesOf(account.address, terms))
  const { offer, ttlSeconds, proof, deadline } = terms
  return { client: account.address, offer, ttlSeconds, proof, deadline, signature }
}

/** The nonce that a client's next sponsored request has to carry. */
export async function nonceOf(reader: ChainReader, contract: Address, client: Address, head: Head): Promise<number> {
  return Number(await reader.read(accessToken, contract, 'nonces', [client], head))
}

function valuesOf(client: Address, t: TokenRequestTerms) {
  return {
    client: addressBytes(client),
    offer: t.offer,
    ttl: t.ttlSeconds,
    proofHash: fromHex(keccak256(t.proof)),
    nonce: t.nonce,
    deadline: t.deadline,
  }
}
