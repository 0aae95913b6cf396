/** Every call of the product that changes the chain, as an `Intent`: what it does in words, and its octets. */
import { toHex } from '../protocol/bytes.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { RegistrationTicket } from '../protocol/messages/registration.ts'
import { accessToken, deviceRegistry, erc20 } from './contracts.ts'
import type { Intent } from './transaction.ts'
import type { Hex } from './types.ts'

const claimsHex = (claims: number): Hex => `0x${(claims >>> 0).toString(16).padStart(8, '0')}`
const octets = (bytes: Uint8Array): Hex => `0x${toHex(bytes)}`

export interface OfferTerms {
  readonly policy: Address
  readonly resource: Address
  /** uint32 */
  readonly claims: number
  readonly maxTtlSeconds: number
  readonly active: boolean
}

export function setOfferIntent(contract: Address, offer: number, terms: OfferTerms): Intent {
  const args = [
    offer,
    terms.policy,
    terms.resource,
    claimsHex(terms.claims),
    BigInt(terms.maxTtlSeconds),
    terms.active,
  ] as const
  return { what: `offer ${offer} of ${contract}`, to: contract, data: accessToken.encode('setOffer', args) }
}

export function grantIntent(
  contract: Address,
  clients: readonly Address[],
  device: Address,
  ttlSeconds: number,
  claims: number,
): Intent {
  const [one] = clients
  const ttl = BigInt(ttlSeconds)
  return clients.length === 1 && one !== undefined
    ? {
        what: `grant to ${one}`,
        to: contract,
        data: accessToken.encode('addToken', [one, device, ttl, claimsHex(claims)]),
      }
    : {
        what: `grant to ${clients.length} clients`,
        to: contract,
        data: accessToken.encode('addTokens', [clients, device, ttl, claimsHex(claims)]),
      }
}

export function revokeIntent(contract: Address, clients: readonly Address[], device: Address): Intent {
  const [one] = clients
  return clients.length === 1 && one !== undefined
    ? { what: `revocation of ${one}`, to: contract, data: accessToken.encode('deleteToken', [one, device]) }
    : {
        what: `revocation of ${clients.length} clients`,
        to: contract,
        data: accessToken.encode('deleteTokens', [clients, device]),
      }
}

/** @param until unix seconds; 0 lifts the bar */
export function barIntent(contract: Address, client: Address, device: Address, until: number): Intent {
  const what = until === 0 ? `lifting of the bar of ${client}` : `bar of ${client}`
  return { what, to: contract, data: accessToken.encode('barClient', [client, device, BigInt(until)]) }
}

export type Role = 'owner' | 'authorization-server'

/** keccak256("AUTHORIZATION_SERVER"); the owner's role is zero (DEFAULT_ADMIN_ROLE). */
export const ROLE_IDS: Readonly<Record<Role, Hex>> = {
  owner: `0x${'00'.repeat(32)}`,
  'authorization-server': '0xdcde1c10b13436ca05d8609f291b601b41e16b60459f3cd55ad278c93a2468b3',
}

export function roleIntent(contract: Address, role: Role, account: Address, held: boolean): Intent {
  const data = accessToken.encode(held ? 'grantRole' : 'revokeRole', [ROLE_IDS[role], account])
  return { what: `${held ? 'appointment' : 'dismissal'} of ${account} as ${role}`, to: contract, data }
}

export function registerIntent(
  registry: Address,
  ticket: RegistrationTicket,
  contracts: readonly Address[],
  uri: string,
): Intent {
  return {
    what: `registration of device ${ticket.device}`,
    to: registry,
    data: deviceRegistry.encode('register', registrationArgs(ticket, contracts, uri)),
  }
}

/** With the device's signature: keys may change. */
export function updateIntent(
  registry: Address,
  ticket: RegistrationTicket,
  contracts: readonly Address[],
  uri: string,
): Intent {
  return {
    what: `update of device ${ticket.device}`,
    to: registry,
    data: deviceRegistry.encode('update', registrationArgs(ticket, contracts, uri)),
  }
}

/** Without it: contracts and uri only; the keys are those that stand in the registry. */
export function updateContractsIntent(
  registry: Address,
  entry: { readonly device: Address; readonly signingKey: Uint8Array; readonly keyServer: Uint8Array },
  contracts: readonly Address[],
  uri: string,
): Intent {
  const args = [entry.device, octets(entry.signingKey), octets(entry.keyServer), contracts, uri, 0n, '0x'] as const
  return { what: `update of device ${entry.device}`, to: registry, data: deviceRegistry.encode('update', args) }
}

export function transferIntent(registry: Address, device: Address, newOwner: Address): Intent {
  return {
    what: `transfer of device ${device} to ${newOwner}`,
    to: registry,
    data: deviceRegistry.encode('transfer', [device, newOwner]),
  }
}

export function acceptIntent(registry: Address, device: Address): Intent {
  return { what: `taking over of device ${device}`, to: registry, data: deviceRegistry.encode('accept', [device]) }
}

export function deactivateIntent(registry: Address, device: Address): Intent {
  return { what: `deactivation of device ${device}`, to: registry, data: deviceRegistry.encode('deactivate', [device]) }
}

export function requestTokenIntent(
  contract: Address,
  offer: number,
  ttlSeconds: number,
  proof: Hex,
  value: bigint,
): Intent {
  const data = accessToken.encode('requestToken', [offer, BigInt(ttlSeconds), proof])
  return { what: `request for offer ${offer}`, to: contract, data, value }
}

export interface SponsoredRequest {
  readonly client: Address
  readonly offer: number
  readonly ttlSeconds: number
  readonly proof: Hex
  readonly deadline: number
  readonly signature: Uint8Array
}

export function requestTokenForIntent(contract: Address, r: SponsoredRequest, value: bigint): Intent {
  const args = [r.client, r.offer, BigInt(r.ttlSeconds), r.proof, BigInt(r.deadline), octets(r.signature)] as const
  return {
    what: `request for offer ${r.offer} on behalf of ${r.client}`,
    to: contract,
    data: accessToken.encode('requestTokenFor', args),
    value,
  }
}

/** Lets a payment policy take `amount` of an ERC-20 currency. */
export function approveIntent(currency: Address, spender: Address, amount: bigint): Intent {
  return {
    what: `allowance of ${amount} for ${spender}`,
    to: currency,
    data: erc20.encode('approve', [spender, amount]),
  }
}

/** Plain ether. */
export function payIntent(to: Address, value: bigint): Intent {
  return { what: `payment of ${value} wei to ${to}`, to, data: '0x', value }
}

function registrationArgs(ticket: RegistrationTicket, contracts: readonly Address[], uri: string) {
  const { device, signingKey, keyServer, deadline, deviceSig } = ticket
  return [device, octets(signingKey), octets(keyServer), contracts, uri, BigInt(deadline), octets(deviceSig)] as const
}
