import { afterAll, beforeAll, expect, test } from 'vitest'
import { deployIntent } from '../../chain/deployments.ts'
import { grantIntent, revokeIntent } from '../../chain/intents.ts'
import { ChainReader } from '../../chain/reader.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import { type Account, accountFromKey } from '../../chain/wallet.ts'
import { ChainLogs } from '../../keyserver/chain-logs.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { type Anvil, startAnvil } from '../../tools/anvil.ts'

const DEVICE: Address = `0x${'dd'.repeat(20)}`
const OTHER: Address = `0x${'ee'.repeat(20)}`
let anvil: Anvil
let rpc: JsonRpc
let reader: ChainReader
let contract: Address
let owner: TransactionSender
let client: Account
let clientSender: TransactionSender

beforeAll(async () => {
  anvil = await startAnvil({ chainId: 20180415 })
  rpc = new JsonRpc({ url: anvil.url })
  const [first, second] = anvil.keys.map((key) => accountFromKey(key)) as [Account, Account]
  owner = new TransactionSender({ rpc, chainId: anvil.chainId, account: first, pollMs: 20 })
  clientSender = new TransactionSender({ rpc, chainId: anvil.chainId, account: second, pollMs: 20 })
  client = second
  const registry = (await owner.send(deployIntent({ kind: 'registry' }))).contract as Address
  const deploy = deployIntent({ kind: 'access-token', owner: first.address, resource: DEVICE })
  contract = (await owner.send(deploy)).contract as Address
  reader = new ChainReader({ rpc, chainId: anvil.chainId, registry, confirmations: 1 })
})
afterAll(() => anvil?.stop())

test('names whom the new blocks name, and nobody twice', async () => {
  const logs = new ChainLogs(rpc, reader.registry)
  expect(await logs.since(await reader.head())).toBeUndefined()
  await owner.send(grantIntent(contract, [client.address, OTHER], DEVICE, 3600, 1))
  await rpc.call('anvil_mine', ['0x3'])
  expect(await logs.since(await reader.head())).toEqual(new Map([[DEVICE, new Set([client.address, OTHER])]]))
  expect(await logs.since(await reader.head())).toEqual(new Map())
})

test('a block that was replaced counts too', async () => {
  const logs = new ChainLogs(rpc, reader.registry)
  await logs.since(await reader.head())
  await owner.send(revokeIntent(contract, [OTHER], DEVICE))
  expect(await logs.since(await reader.head())).toEqual(new Map([[DEVICE, new Set([OTHER])]]))
  await rpc.call('anvil_reorg', [1, []])
  expect(await logs.since(await reader.head())).toEqual(new Map([[DEVICE, new Set([OTHER])]]))
})

test('a gap of more than 128 blocks cannot be told', async () => {
  const logs = new ChainLogs(rpc, reader.registry)
  await logs.since(await reader.head())
  await rpc.call('anvil_mine', ['0x96'])
  expect(await logs.since(await reader.head())).toBeUndefined()
  await rpc.call('anvil_mine', ['0x2'])
  expect(await logs.since(await reader.head())).toEqual(new Map())
})

test('who took the token back', async () => {
  const logs = new ChainLogs(rpc, reader.registry)
  const serial = async () => {
    const head = await reader.head()
    return { head, serial: (await reader.tokensOf(contract, DEVICE, [client.address], head))[0]?.serial as number }
  }
  const self = async () => {
    const { head, serial: s } = await serial()
    return logs.revokedBySelf(contract, DEVICE, client.address, s, head)
  }
  await owner.send(grantIntent(contract, [client.address], DEVICE, 3600, 1))
  expect(await self()).toBe(false)
  await clientSender.send(revokeIntent(contract, [client.address], DEVICE))
  expect(await self()).toBe(true)
  await owner.send(grantIntent(contract, [client.address], DEVICE, 3600, 1))
  await owner.send(revokeIntent(contract, [client.address], DEVICE))
  expect(await self()).toBe(false)
})
