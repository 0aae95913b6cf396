import { describe, expect, test } from 'vitest'
import { deployIntent } from '../../chain/deployments.ts'
import { grantIntent } from '../../chain/intents.ts'
import { ChainReader } from '../../chain/reader.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import { accountFromKey } from '../../chain/wallet.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { findGeth, startGethDev } from '../../tools/geth-dev.ts'

const found = findGeth()
if ('skipped' in found) console.log(`skipped: ${found.skipped}`)

describe.skipIf('skipped' in found)('geth in development mode', () => {
  test('stands in for anvil: a block a second, funded accounts, the gas that public networks charge, storage proofs', async () => {
    const chain = await startGethDev({ chainId: 20180415, blockTimeSeconds: 1 })
    try {
      const { url, chainId } = chain
      const account = accountFromKey(chain.keys[0] as string)
      const rpc = new JsonRpc({ url })
      const sender = new TransactionSender({ rpc, chainId, account, pollMs: 100 })
      const registry = (await sender.send(deployIntent({ kind: 'registry' }))).contract as Address
      const { address: owner } = account
      const contract = (await sender.send(deployIntent({ kind: 'access-token', owner, resource: owner })))
        .contract as Address
      const grant = await sender.send(grantIntent(contract, [owner], owner, 600, 1), { confirmations: 3 })
      expect(grant.gasUsed).toBeLessThan(55_000n)
      const reader = new ChainReader({ rpc, chainId, registry, confirmations: 3 })
      const proven = new ChainReader({ rpc, chainId, registry, confirmations: 3, proofs: true })
      const head = await reader.head()
      const [token] = await reader.tokensOf(contract, owner, [owner], head)
      expect(token).toMatchObject({ claims: 1, serial: 1, grantBlock: grant.block })
      expect(await proven.tokensOf(contract, owner, [owner], head)).toEqual([token])
    } finally {
      await chain.stop()
    }
  })
})
