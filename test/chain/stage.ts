/** A development chain with an owner, a client, a registered device and an AccessToken contract: what most tests start from. */
import { bindIntent, deployIntent, needsBinding, type PolicySpec } from '../../chain/deployments.ts'
import { registerIntent, setOfferIntent } from '../../chain/intents.ts'
import { ChainReader } from '../../chain/reader.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import type { Hex } from '../../chain/types.ts'
import { type Account, accountFromKey, createAccount } from '../../chain/wallet.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { registrationDigest } from '../../protocol/messages/registration.ts'
import { type Anvil, startAnvil } from '../../tools/anvil.ts'

export const CHAIN_ID = 20180415

export interface Stage {
  readonly anvil: Anvil
  readonly rpc: JsonRpc
  readonly owner: Account
  readonly client: Account
  readonly device: Account
  readonly registry: Address
  readonly contract: Address
  readonly reader: ChainReader
  senderOf(account: Account): TransactionSender
  /** Deploys a policy bound to `consumer` (default: the contract). */
  deployPolicy(spec: PolicySpec, consumer?: Address): Promise<Address>
  deployPolicyUnbound(spec: PolicySpec): Promise<Address>
  bind(policy: Address, consumer: Address): Promise<void>
  /** Offers it for claims 1, an hour. @returns the offer's number */
  offer(policy: Address, offer?: number): Promise<number>
  register(device: Account, contracts: readonly Address[]): Promise<void>
  mine(blocks: number): Promise<void>
  stop(): Promise<void>
}

/** @param given a development chain with the well-known accounts; default: an anvil of its own */
export async function createStage(given?: Anvil): Promise<Stage> {
  const anvil = given ?? (await startAnvil({ chainId: CHAIN_ID }))
  const rpc = new JsonRpc({ url: anvil.url })
  const owner = accountFromKey(anvil.keys[0] as string)
  const client = accountFromKey(anvil.keys[1] as string)
  const device = createAccount()
  const senderOf = (account: Account): TransactionSender =>
    new TransactionSender({
      rpc,
      chainId: CHAIN_ID,
      account,
      pollMs: 10,
      patienceSeconds: given === undefined ? 5 : 60,
    })
  const sender = senderOf(owner)
  const registry = (await sender.send(deployIntent({ kind: 'registry' }))).contract as Address
  const resource = device.address
  const contract = (await sender.send(deployIntent({ kind: 'access-token', owner: owner.address, resource })))
    .contract as Address
  let offers = 0
  const stage: Stage = {
    anvil,
    rpc,
    owner,
    client,
    device,
    registry,
    contract,
    reader: new ChainReader({ rpc, chainId: CHAIN_ID, registry, confirmations: 3 }),
    senderOf,
    async deployPolicy(spec, consumer = contract) {
      const address = await stage.deployPolicyUnbound(spec)
      if (needsBinding(spec.kind)) await stage.bind(address, consumer)
      return address
    },
    deployPolicyUnbound: async (spec) => (await sender.send(deployIntent(spec))).contract as Address,
    async bind(policy, consumer) {
      await sender.send(bindIntent(policy, consumer))
    },
    async offer(policy, offer = offers++) {
      const terms = { policy, resource, claims: 1, maxTtlSeconds: 3600, active: true }
      await sender.send(setOfferIntent(contract, offer, terms))
      return offer
    },
    async register(account, contracts) {
      const ticket = {
        device: account.address,
        owner: owner.address,
        signingKey: new Uint8Array(32).fill(0xb1),
        keyServer: new Uint8Array(32).fill(0xa1),
        uri: '',
        nonce: 0,
        deadline: 2 ** 40,
      }
      const digest = registrationDigest(
        { chainId: CHAIN_ID, registry: addressBytes(registry) },
        { ...ticket, device: addressBytes(account.address), owner: addressBytes(owner.address) },
      )
      const deviceSig = account.signDigest(digest)
      await sender.send(registerIntent(registry, { ...ticket, deviceSig }, contracts, 'coap://[::1]'))
    },
    mine: async (blocks) => {
      await rpc.call('anvil_mine', [`0x${blocks.toString(16)}` as Hex])
    },
    stop: () => anvil.stop(),
  }
  await stage.register(device, [contract])
  return stage
}
