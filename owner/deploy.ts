/** Deploys what an owner needs: registry, AccessToken contracts, policies; binds policies to their consumers. */
import { bindIntent, deployIntent, needsBinding, type PolicySpec } from '../chain/deployments.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { PolicyPlan } from './policy-text.ts'
import type { OwnerSession } from './session.ts'

/** The registry of the settings, or a new one of this owner's. */
export async function deployRegistry(session: OwnerSession): Promise<Address> {
  if (session.config.registry !== undefined) return session.config.registry
  return session.deploy('deploy registry', deployIntent({ kind: 'registry' }), (address) =>
    session.folder.note((s) => {
      s.registry = address
    }),
  )
}

/**
 * An AccessToken contract.
 *
 * @param name under which other commands find it
 * @param resource the device that the paper's one-argument calls speak of; may be the zero address
 */
export async function deployContract(session: OwnerSession, name: string, resource: Address): Promise<Address> {
  const intent = deployIntent({ kind: 'access-token', owner: session.account.address, resource })
  return session.deploy(`deploy contract ${name}`, intent, (address) =>
    session.folder.note((s) => {
      s.contracts[name] = address
    }),
  )
}

/**
 * A policy with all its parts, each bound to what it serves. The same plan at the same place is deployed once.
 *
 * @param consumer what asks the outermost policy: an AccessToken contract
 * @param place names it, e.g. `main/offer-0`
 */
export async function deployPolicy(
  session: OwnerSession,
  plan: PolicyPlan,
  consumer: Address,
  place: string,
): Promise<Address> {
  const { address, kind } = await put(session, plan, place)
  await bind(session, address, kind, consumer)
  return address
}

async function put(
  session: OwnerSession,
  plan: PolicyPlan,
  place: string,
): Promise<{ address: Address; kind: PolicySpec['kind'] }> {
  const parts: { address: Address; kind: PolicySpec['kind'] }[] = []
  if ('parts' in plan) {
    for (const [i, part] of plan.parts.entries()) parts.push(await put(session, part, `${place}/${i}`))
  }
  const spec: PolicySpec = 'leaf' in plan ? plan.leaf : { kind: plan.kind, parts: parts.map((p) => p.address) }
  const terms = JSON.stringify(spec, (_, value) => (typeof value === 'bigint' ? value.toString() : value))
  const address = await session.deploy(`deploy policy ${place} ${terms}`, deployIntent(spec), (at) =>
    session.folder.note((s) => {
      s.policies[place] = at
    }),
  )
  for (const part of parts) await bind(session, part.address, part.kind, address)
  return { address, kind: spec.kind }
}

async function bind(
  session: OwnerSession,
  policy: Address,
  kind: PolicySpec['kind'],
  consumer: Address,
): Promise<void> {
  if (needsBinding(kind)) await session.perform(`bind ${policy} ${consumer}`, bindIntent(policy, consumer), true)
}
