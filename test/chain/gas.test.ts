import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'
import { bindIntent, deployIntent } from '../../chain/deployments.ts'
import {
  barIntent,
  grantIntent,
  registerIntent,
  requestTokenForIntent,
  revokeIntent,
  setOfferIntent,
} from '../../chain/intents.ts'
import { ChainReader } from '../../chain/reader.ts'
import { requestToken } from '../../chain/request.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import { signTokenRequest } from '../../chain/sponsor.ts'
import { encodeTokensOf } from '../../chain/token-codec.ts'
import type { Hex } from '../../chain/types.ts'
import { accountFromKey, createAccount } from '../../chain/wallet.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { registrationDigest } from '../../protocol/messages/registration.ts'
import { startAnvil } from '../../tools/anvil.ts'

const ROOT = resolve(import.meta.dirname, '../..')

/** Addresses without zero octets, so that calldata costs what it usually does. */
const addressOf = (i: number): Address =>
  `0x${Buffer.alloc(20, 0x11 + (i % 200))
    .toString('hex')
    .slice(0, 36)}${(4096 + i).toString(16)}` as Address

async function measure(hardfork: string): Promise<Map<string, number>> {
  const anvil = await startAnvil({ hardfork })
  const gas = new Map<string, number>()
  try {
    const rpc = new JsonRpc({ url: anvil.url })
    const { chainId } = anvil
    const owner = accountFromKey(anvil.keys[0] as string)
    const client = accountFromKey(anvil.keys[1] as string)
    const device = createAccount()
    const sender = new TransactionSender({ rpc, chainId, account: owner, pollMs: 5 })
    const note = async (name: string, intent: Parameters<typeof sender.send>[0]): Promise<Address> => {
      const receipt = await sender.send(intent)
      gas.set(name, Number(receipt.gasUsed))
      return receipt.contract as Address
    }
    const registry = await note('deploy DeviceRegistry', deployIntent({ kind: 'registry' }))
    const contract = await note(
      'deploy AccessToken',
      deployIntent({ kind: 'access-token', owner: owner.address, resource: device.address }),
    )
    const r = {
      device: addressBytes(device.address),
      owner: addressBytes(owner.address),
      signingKey: new Uint8Array(32).fill(1),
      keyServer: new Uint8Array(32).fill(2),
      nonce: 0,
      deadline: 4e9,
    }
    const deviceSig = device.signDigest(registrationDigest({ chainId, registry: addressBytes(registry) }, r))
    await note(
      'register (one contract)',
      registerIntent(
        registry,
        { ...r, device: device.address, owner: owner.address, uri: '', deviceSig },
        [contract],
        'coap://[2001:db8::1]',
      ),
    )
    const open = await note('deploy Open', deployIntent({ kind: 'open' }))
    const puzzle = await note('deploy Puzzle', deployIntent({ kind: 'puzzle', difficulty: 4 }))
    await note('bind', bindIntent(puzzle, contract))
    const terms = { resource: device.address, claims: 9, maxTtlSeconds: 2_592_000, active: true }
    await note('setOffer (new)', setOfferIntent(contract, 0, { policy: open, ...terms }))
    await sender.send(setOfferIntent(contract, 1, { policy: puzzle, ...terms }))
    await note('addToken (first)', grantIntent(contract, [addressOf(1)], device.address, 2_592_000, 9))
    await note('addToken (renewed)', grantIntent(contract, [addressOf(1)], device.address, 2_592_000, 9))
    await note('deleteToken', revokeIntent(contract, [addressOf(1)], device.address))
    await note(
      'addTokens (100 clients)',
      grantIntent(
        contract,
        Array.from({ length: 100 }, (_, i) => addressOf(100 + i)),
        device.address,
        2_592_000,
        9,
      ),
    )
    await note(
      'deleteTokens (100 clients)',
      revokeIntent(
        contract,
        Array.from({ length: 100 }, (_, i) => addressOf(100 + i)),
        device.address,
      ),
    )
    await note('barClient (of a token)', barIntent(contract, addressOf(1), device.address, 4e9))
    const reader = new ChainReader({ rpc, chainId, registry, confirmations: 0 })
    const clientSender = new TransactionSender({ rpc, chainId, account: client, pollMs: 5 })
    const ask = (offer: number) => requestToken({ reader, sender: clientSender, contract, offer })
    gas.set('requestToken (Open, first)', Number((await ask(0)).receipt.gasUsed))
    gas.set('requestToken (Puzzle, renewed)', Number((await ask(1)).receipt.gasUsed))
    const alice = createAccount()
    const signed = await signTokenRequest(alice, {
      chainId,
      contract,
      offer: 0,
      ttlSeconds: 3600,
      proof: '0x',
      nonce: 0,
      deadline: 4e9,
    })
    await note('requestTokenFor (Open, first)', requestTokenForIntent(contract, signed, 0n))
    const clients = Array.from({ length: 500 }, (_, i) => addressOf(i))
    const data = encodeTokensOf(clients, device.address)
    gas.set(
      'tokensOf (500, as a transaction)',
      Number(await rpc.call<Hex>('eth_estimateGas', [{ to: contract, data }])),
    )
  } finally {
    await anvil.stop()
  }
  return gas
}

test('the table of docs/contracts.md, and its bars', async () => {
  const text = readFileSync(join(ROOT, 'docs/contracts.md'), 'utf8')
  const rows = [...text.matchAll(/^\| ([^|]+?) \| ([\d ]+) \| ([\d ]+) \|/gm)].map((m) => ({
    name: m[1] as string,
    shanghai: Number((m[2] as string).replaceAll(' ', '')),
    osaka: Number((m[3] as string).replaceAll(' ', '')),
  }))
  const [shanghai, osaka] = [await measure('shanghai'), await measure('osaka')]
  const measured = [...shanghai].map(([name, gas]) => ({ name, shanghai: gas, osaka: osaka.get(name) as number }))
  if (process.env['IOTCHAIN_PRINT_GAS'] !== undefined) {
    const digits = (n: number): string => n.toString().replace(/\B(?=(\d{3})+$)/g, ' ')
    for (const m of measured) console.log(`| ${m.name} | ${digits(m.shanghai)} | ${digits(m.osaka)} |`)
  }
  expect(rows.map((r) => r.name)).toEqual(measured.map((m) => m.name))
  for (const [i, m] of measured.entries()) {
    // signatures and addresses change the price of calldata a little
    expect.soft(Math.abs((rows[i]?.shanghai as number) - m.shanghai) / m.shanghai, m.name).toBeLessThan(0.01)
    expect.soft(Math.abs((rows[i]?.osaka as number) - m.osaka) / m.osaka, m.name).toBeLessThan(0.01)
  }
  for (const gas of [shanghai, osaka]) {
    expect(gas.get('addToken (first)')).toBeLessThanOrEqual(55_000)
    expect(gas.get('addToken (renewed)')).toBeLessThanOrEqual(38_000)
    expect(gas.get('tokensOf (500, as a transaction)')).toBeLessThanOrEqual(30_000_000)
  }
}, 30_000)
