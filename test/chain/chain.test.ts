import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bindIntent, deployIntent } from '../../chain/deployments.ts'
import { grantIntent, registerIntent, revokeIntent, setOfferIntent } from '../../chain/intents.ts'
import { ChainReader } from '../../chain/reader.ts'
import { type RequestProgress, requestToken } from '../../chain/request.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import { accountFromKey, createAccount } from '../../chain/wallet.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { REGISTRATION, registrationDigest } from '../../protocol/messages/registration.ts'
import { type Anvil, startAnvil } from '../../tools/anvil.ts'

let anvil: Anvil
beforeAll(async () => {
  anvil = await startAnvil({ chainId: 20180415 })
})
afterAll(async () => anvil?.stop())

test('the whole way of a token', async () => {
  const rpc = new JsonRpc({ url: anvil.url })
  const owner = accountFromKey(anvil.keys[0] as string)
  const client = accountFromKey(anvil.keys[1] as string)
  const device = createAccount()
  const ownerSender = new TransactionSender({ rpc, chainId: anvil.chainId, account: owner, pollMs: 20 })
  const clientSender = new TransactionSender({ rpc, chainId: anvil.chainId, account: client, pollMs: 20 })
  const registry = (await ownerSender.send(deployIntent({ kind: 'registry' }))).contract as Address
  const contract = (
    await ownerSender.send(deployIntent({ kind: 'access-token', owner: owner.address, resource: device.address }))
  ).contract as Address
  const puzzle = (await ownerSender.send(deployIntent({ kind: 'puzzle', difficulty: 10 }))).contract as Address
  await ownerSender.send(bindIntent(puzzle, contract))
  await ownerSender.send(
    setOfferIntent(contract, 0, {
      policy: puzzle,
      resource: device.address,
      claims: 1,
      maxTtlSeconds: 3600,
      active: true,
    }),
  )
  const domain = { chainId: anvil.chainId, registry: addressBytes(registry) }
  const registration = {
    device: addressBytes(device.address),
    owner: addressBytes(owner.address),
    signingKey: randomBytes(32),
    keyServer: randomBytes(32),
    nonce: 0,
    deadline: 2 ** 40,
  }
  const deviceSig = device.signDigest(registrationDigest(domain, registration))
  expect(await device.signStruct(domain, REGISTRATION, { ...registration })).toEqual(deviceSig)
  await ownerSender.send(
    registerIntent(
      registry,
      {
        device: device.address,
        owner: owner.address,
        signingKey: registration.signingKey,
        keyServer: registration.keyServer,
        uri: '',
        nonce: 0,
        deadline: 2 ** 40,
        deviceSig,
      },
      [contract],
      'coap://x',
    ),
  )
  const reader = new ChainReader({ rpc, chainId: anvil.chainId, registry, confirmations: 3 })
  const seen: RequestProgress[] = []
  const granted = await requestToken({
    reader,
    sender: clientSender,
    contract,
    offer: 0,
    onProgress: (p) => seen.push(p),
  })
  console.log(granted, seen)
  await ownerSender.send(grantIntent(contract, [client.address], device.address, 60, 3))
  const r = await ownerSender.send(revokeIntent(contract, [client.address], device.address))
  console.log(r, await reader.atHead((h) => reader.tokensOf(contract, device.address, [client.address], h)))
  await expect(ownerSender.send(grantIntent(contract, [client.address], device.address, 60, 0))).rejects.toThrow(
    'claims are empty',
  )
})
