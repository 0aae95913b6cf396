/** What an owner does day by day: offers, registers devices, grants, revokes, bars, appoints. */

import { accessToken } from '../chain/contracts.ts'
import {
  acceptIntent,
  barIntent,
  deactivateIntent,
  grantIntent,
  type OfferTerms,
  type Role,
  registerIntent,
  revokeIntent,
  roleIntent,
  setOfferIntent,
  transferIntent,
  updateContractsIntent,
  updateIntent,
} from '../chain/intents.ts'
import { offerOf } from '../chain/offers.ts'
import type { DeviceEntry } from '../chain/types.ts'
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { RegistrationTicket } from '../protocol/messages/registration.ts'
import { deployPolicy } from './deploy.ts'
import type { PolicyPlan } from './policy-text.ts'
import type { OwnerSession } from './session.ts'

/** Clients in one transaction: about 30 000 gas each, well below a block's limit. */
const BULK = 200

export interface OfferOptions {
  readonly contract: Address
  /** number of the offer; default: the next free one */
  readonly offer?: number | undefined
  readonly plan: PolicyPlan
  readonly device: Address
  /** uint32 */
  readonly claims: number
  readonly maxTtlSeconds: number
}

/** Deploys the policy where it does not stand yet, and makes or changes the offer. */
export async function setOffer(session: OwnerSession, o: OfferOptions): Promise<{ offer: number; policy: Address }> {
  const offer = o.offer ?? (await nextOffer(session, o.contract))
  const policy = await deployPolicy(session, o.plan, o.contract, `${o.contract}/offer-${offer}`)
  const terms: OfferTerms = {
    policy,
    resource: o.device,
    claims: o.claims,
    maxTtlSeconds: o.maxTtlSeconds,
    active: true,
  }
  await session.perform(
    `offer ${o.contract} ${offer} ${JSON.stringify(terms)}`,
    setOfferIntent(o.contract, offer, terms),
  )
  return { offer, policy }
}

/** Closes an offer, or opens it again, on its old terms. */
export async function switchOffer(
  session: OwnerSession,
  contract: Address,
  offer: number,
  active: boolean,
): Promise<void> {
  const reader = session.reader()
  const now = await reader.atHead((head) => offerOf(reader, contract, offer, head))
  if (now.active === active) return
  const { policy, resource, claims, maxTtlSeconds } = now
  const terms: OfferTerms = { policy, resource, claims, maxTtlSeconds, active }
  await session.perform(`offer ${contract} ${offer} ${JSON.stringify(terms)}`, setOfferIntent(contract, offer, terms))
}

async function nextOffer(session: OwnerSession, contract: Address): Promise<number> {
  const reader = session.reader()
  return reader.atHead((head) => reader.read(accessToken, contract, 'offerCount', [], head))
}

/**
 * Registers a device by the ticket that it signed, or updates its entry if it is registered as this owner's already.
 *
 * @throws `owner/wrong-owner` if the device signed for another account, `chain/reverted`
 */
export async function registerDevice(
  session: OwnerSession,
  ticket: RegistrationTicket,
  contracts: readonly Address[],
  uri: string,
): Promise<'registered' | 'updated' | 'unchanged'> {
  if (ticket.owner !== session.account.address) {
    throw new IotchainError(
      'owner/wrong-owner',
      `the device signed for owner ${ticket.owner}, but this is ${session.account.address}`,
      {
        hint: 'Run `iotchain-device registration --owner` with this address again.',
      },
    )
  }
  const entry = await entryOf(session, ticket.device)
  if (entry?.active === true && entry.owner === session.account.address) {
    if (agrees(entry, ticket, contracts, uri)) return 'unchanged'
    if (same(entry.signingKey, ticket.signingKey) && same(entry.keyServer, ticket.keyServer)) {
      await updateDevice(session, ticket.device, { contracts, uri })
      return 'updated'
    }
    checkNonce(entry, ticket, session)
    await session.perform(
      `update ${ticket.device} ${ticket.nonce}`,
      updateIntent(session.registry, ticket, contracts, uri),
    )
    return 'updated'
  }
  if (entry !== undefined) checkNonce(entry, ticket, session)
  await session.perform(
    `register ${ticket.device} ${ticket.nonce}`,
    registerIntent(session.registry, ticket, contracts, uri),
  )
  return 'registered'
}

/** Changes contracts and uri only; needs nothing of the device. @throws `owner/not-yours` */
export async function updateDevice(
  session: OwnerSession,
  device: Address,
  change: { contracts?: readonly Address[] | undefined; uri?: string | undefined },
): Promise<DeviceEntry> {
  const entry = await ownEntry(session, device)
  const contracts = change.contracts ?? entry.contracts
  const uri = change.uri ?? entry.uri
  const key = `update ${device} ${contracts.join(',')} ${uri}`
  await session.perform(key, updateContractsIntent(session.registry, entry, contracts, uri))
  return { ...entry, contracts, uri }
}

export async function transferDevice(session: OwnerSession, device: Address, newOwner: Address): Promise<void> {
  await ownEntry(session, device)
  await session.perform(`transfer ${device} ${newOwner}`, transferIntent(session.registry, device, newOwner))
}

export async function acceptDevice(session: OwnerSession, device: Address): Promise<void> {
  await session.perform(`accept ${device}`, acceptIntent(session.registry, device))
}

export async function deactivateDevice(session: OwnerSession, device: Address): Promise<void> {
  await ownEntry(session, device)
  await session.perform(`deactivate ${device}`, deactivateIntent(session.registry, device))
}

export interface Grant {
  readonly contract: Address
  readonly clients: readonly Address[]
  readonly device: Address
  readonly ttlSeconds: number
  /** uint32 */
  readonly claims: number
}

/** Grants to each client, 200 in one transaction. */
export async function grant(session: OwnerSession, g: Grant): Promise<void> {
  for (const chunk of inBulk(g.clients)) {
    const key = `grant ${g.contract} ${g.device} ${g.claims} ${g.ttlSeconds} ${chunk.join(',')}`
    await session.perform(key, grantIntent(g.contract, chunk, g.device, g.ttlSeconds, g.claims))
  }
}

/** Takes the tokens of each client away. */
export async function revoke(
  session: OwnerSession,
  contract: Address,
  clients: readonly Address[],
  device: Address,
): Promise<void> {
  for (const chunk of inBulk(clients)) {
    await session.perform(`revoke ${contract} ${device} ${chunk.join(',')}`, revokeIntent(contract, chunk, device))
  }
}

/** @param until unix seconds; 0 lifts the bar */
export async function bar(
  session: OwnerSession,
  contract: Address,
  client: Address,
  device: Address,
  until: number,
): Promise<void> {
  await session.perform(`bar ${contract} ${device} ${client} ${until}`, barIntent(contract, client, device, until))
}

/** Appoints or dismisses an authorization server, or another owner. */
export async function setRole(
  session: OwnerSession,
  contract: Address,
  role: Role,
  account: Address,
  held: boolean,
): Promise<void> {
  await session.perform(`role ${contract} ${role} ${account} ${held}`, roleIntent(contract, role, account, held))
}

async function entryOf(session: OwnerSession, device: Address): Promise<DeviceEntry | undefined> {
  const reader = session.reader()
  return reader.atHead((head) => reader.deviceOf(device, head))
}

async function ownEntry(session: OwnerSession, device: Address): Promise<DeviceEntry> {
  const entry = await entryOf(session, device)
  if (entry?.active === true && entry.owner === session.account.address) return entry
  const state =
    entry === undefined ? 'is not registered' : entry.active ? `belongs to ${entry.owner}` : 'has been deactivated'
  throw new IotchainError('owner/not-yours', `device ${device} ${state}`, {
    hint: 'List your devices with `iotchain owner list`.',
  })
}

function checkNonce(entry: DeviceEntry, ticket: RegistrationTicket, session: OwnerSession): void {
  if (entry.nonce === ticket.nonce) return
  throw new IotchainError(
    'owner/old-ticket',
    `this registration was signed with nonce ${ticket.nonce}, but the registry expects ${entry.nonce}`,
    {
      hint: `Run \`iotchain-device registration --nonce ${entry.nonce}\` for owner ${session.account.address} again.`,
    },
  )
}

const same = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((v, i) => v === b[i])

function agrees(entry: DeviceEntry, ticket: RegistrationTicket, contracts: readonly Address[], uri: string): boolean {
  return (
    same(entry.signingKey, ticket.signingKey) &&
    same(entry.keyServer, ticket.keyServer) &&
    entry.uri === uri &&
    entry.contracts.join() === contracts.join()
  )
}

function inBulk(clients: readonly Address[]): Address[][] {
  const unique = [...new Set(clients)]
  const chunks: Address[][] = []
  for (let at = 0; at < unique.length; at += BULK) chunks.push(unique.slice(at, at + BULK))
  return chunks
}
