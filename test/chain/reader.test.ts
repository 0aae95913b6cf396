import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { barIntent, grantIntent, revokeIntent, updateContractsIntent } from '../../chain/intents.ts'
import { scanLogs } from '../../chain/logs.ts'
import { ChainReader } from '../../chain/reader.ts'
import { decide } from '../../chain/rule.ts'
import { checkPublisher } from '../../chain/trust.ts'
import { NO_TOKEN } from '../../chain/types.ts'
import { createAccount } from '../../chain/wallet.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { createStage, type Stage } from './stage.ts'

let s: Stage
beforeAll(async () => {
  s = await createStage()
})
afterAll(async () => s?.stop())

const client = createAccount().address
const STRANGER: Address = `0x${'5a'.repeat(20)}`

describe('reads pinned to one block', () => {
  test('a token, from grant to revocation', async () => {
    const sender = s.senderOf(s.owner)
    const { block } = await sender.send(grantIntent(s.contract, [client], s.device.address, 3600, 0x80000001))
    const head = await s.reader.head()
    const [token, other] = await s.reader.tokensOf(s.contract, s.device.address, [client, STRANGER], head)
    expect(token).toEqual({
      issuedAt: head.timestamp,
      expiresAt: head.timestamp + 3600,
      claims: 0x80000001,
      grantBlock: block,
      serial: 1,
    })
    expect(other).toEqual(NO_TOKEN)
    await sender.send(revokeIntent(s.contract, [client], s.device.address))
    // the old block still says what it said; the new one says otherwise
    expect((await s.reader.tokensOf(s.contract, s.device.address, [client], head))[0]?.expiresAt).not.toBe(0)
    const [gone] = await s.reader.atHead((h) => s.reader.tokensOf(s.contract, s.device.address, [client], h))
    expect(gone).toMatchObject({ expiresAt: 0, claims: 0, serial: 2 })
  })

  test('n − 1 blocks are refused, n admit', async () => {
    const sender = s.senderOf(s.owner)
    await sender.send(grantIntent(s.contract, [client], s.device.address, 3600, 1))
    const statuses: string[] = []
    for (let i = 0; i < 4; i++) {
      const head = await s.reader.head()
      const [token] = await s.reader.tokensOf(s.contract, s.device.address, [client], head)
      statuses.push(decide(undefined, token ?? NO_TOKEN, head, 3, head.timestamp).status)
      await s.mine(1)
    }
    expect(statuses).toEqual(['waiting', 'waiting', 'waiting', 'good'])
  })

  test('thousands of clients in chunks, in order', async () => {
    const many = Array.from({ length: 1203 }, (_, i) => `0x${(i + 1).toString(16).padStart(40, '0')}` as Address)
    await s.senderOf(s.owner).send(grantIntent(s.contract, many.slice(700, 900), s.device.address, 3600, 7))
    const head = await s.reader.head()
    const before = s.rpc.exchanges
    const tokens = await s.reader.tokensOf(s.contract, s.device.address, many, head)
    expect(s.rpc.exchanges - before).toBe(1)
    expect(tokens.map((t, i) => (t.expiresAt > 0 ? i : -1)).filter((i) => i >= 0)).toEqual(
      Array.from({ length: 200 }, (_, i) => 700 + i),
    )
    expect(await s.reader.tokensOf(s.contract, s.device.address, [], head)).toEqual([])
  })

  test('no contract, no token; another contract is no registry', async () => {
    const head = await s.reader.head()
    expect(await s.reader.tokensOf(STRANGER, s.device.address, [client], head)).toEqual([NO_TOKEN])
    // a contract that refuses to answer grants nothing, and stops nobody else's reading
    expect(await s.reader.tokensOf(s.registry, s.device.address, [client], head)).toEqual([NO_TOKEN])
    await expect(
      new ChainReader({ rpc: s.rpc, chainId: s.anvil.chainId, registry: s.contract, confirmations: 1 }).deviceOf(
        client,
        head,
      ),
    ).rejects.toMatchObject({ code: 'chain/no-registry' })
  })

  test('devices', async () => {
    const head = await s.reader.head()
    const entry = await s.reader.deviceOf(s.device.address, head)
    expect(entry).toMatchObject({
      device: s.device.address,
      owner: s.owner.address,
      contracts: [s.contract],
      uri: 'coap://[::1]',
      active: true,
      nonce: 1,
    })
    expect(entry?.signingKey).toEqual(new Uint8Array(32).fill(0xb1))
    expect(entry?.keyServer).toEqual(new Uint8Array(32).fill(0xa1))
    expect(await s.reader.deviceOf(STRANGER, head)).toBeUndefined()
    expect(await s.reader.devicesOf([STRANGER, s.device.address], head)).toEqual([undefined, entry])
  })

  test('a reorg takes a block away: the pinned read says so, and is made again', async () => {
    await s.mine(3)
    const head = await s.reader.head()
    await s.rpc.call('anvil_reorg', [2, []])
    await s.mine(1)
    await expect(s.reader.tokensOf(s.contract, s.device.address, [client], head)).rejects.toMatchObject({
      code: 'chain/reorged',
    })
    let attempts = 0
    const number = await s.reader.atHead(async (h) => {
      attempts++
      await s.reader.tokensOf(s.contract, s.device.address, [client], attempts === 1 ? head : h)
      return h.number
    })
    expect(attempts).toBe(2)
    expect(number).toBeGreaterThan(0)
    await expect(
      s.reader.atHead(() => s.reader.tokensOf(s.contract, s.device.address, [client], head)),
    ).rejects.toMatchObject({ code: 'chain/reorged' })
  })
})

describe('signatures', () => {
  const digest = new Uint8Array(32).fill(7)
  const setCode = (at: Address, code: string) => s.rpc.call('anvil_setCode', [at, code])

  test('of an ordinary account', async () => {
    const head = await s.reader.head()
    const signature = s.client.signDigest(digest)
    expect(await s.reader.verifySignature(s.client.address, digest, signature, head)).toBe(true)
    expect(await s.reader.verifySignature(s.owner.address, digest, signature, head)).toBe(false)
    expect(await s.reader.verifySignature(s.client.address, new Uint8Array(32), signature, head)).toBe(false)
    for (const broken of [
      new Uint8Array(0),
      new Uint8Array(64),
      new Uint8Array(65),
      signature.subarray(1),
      new Uint8Array(4096),
    ]) {
      expect(await s.reader.verifySignature(s.client.address, digest, broken, head)).toBe(false)
    }
  })

  test('the malleated twin is refused', async () => {
    const head = await s.reader.head()
    const signature = s.client.signDigest(digest)
    const n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n
    const value = BigInt(`0x${Buffer.from(signature.subarray(32, 64)).toString('hex')}`)
    const twin = Uint8Array.from(signature)
    twin.set(Buffer.from((n - value).toString(16).padStart(64, '0'), 'hex'), 32)
    twin[64] = signature[64] === 27 ? 28 : 27
    expect(await s.reader.verifySignature(s.client.address, digest, twin, head)).toBe(false)
  })

  test.each([
    ['agrees', '0x631626ba7e60e01b5f5260205ff3', true],
    ['says something else', '0x63ffffffff60e01b5f5260205ff3', false],
    [
      'adds something to its agreement',
      '0x7f1626ba7e000000000000000000000000000000000000000000000000000000015f5260205ff3',
      false,
    ],
    ['answers four octets', '0x631626ba7e60e01b5f5260045ff3', false],
    ['reverts', '0x5f5ffd', false],
    ['loops for ever', '0x5b5f56', false],
    ['answers a megabyte', '0x620f42405ff3', false],
  ] as const)('of a contract account that %s (EIP-1271)', async (_, code, expected) => {
    const account = createAccount().address
    await setCode(account, code)
    await s.mine(1)
    const head = await s.reader.head()
    expect(await s.reader.verifySignature(account, digest, new Uint8Array(70), head)).toBe(expected)
  })

  test('an account with code may sign with its own key (EIP-7702)', async () => {
    const account = createAccount()
    await setCode(account.address, '0x5f5ffd')
    await s.mine(1)
    expect(
      await s.reader.verifySignature(account.address, digest, account.signDigest(digest), await s.reader.head()),
    ).toBe(true)
  })
})

describe('whose contract it is', () => {
  test('the owner\u2019s, listed, of this release', async () => {
    const head = await s.reader.head()
    expect(await checkPublisher(s.reader, s.device.address, s.contract, head)).toMatchObject({ owner: s.owner.address })
    await expect(checkPublisher(s.reader, STRANGER, s.contract, head)).rejects.toMatchObject({
      code: 'chain/no-device',
    })
    await expect(checkPublisher(s.reader, s.device.address, STRANGER, head)).rejects.toMatchObject({
      code: 'chain/untrusted-contract',
      message: expect.stringContaining('not among those'),
    })
  })

  test('listed, but of unknown code or another\u2019s', async () => {
    const sender = s.senderOf(s.owner)
    const entry = await s.reader.atHead((h) => s.reader.deviceOf(s.device.address, h))
    if (entry === undefined) throw new Error('not registered')
    const { deployIntent } = await import('../../chain/deployments.ts')
    const foreign = (await sender.send(deployIntent({ kind: 'access-token', owner: STRANGER, resource: STRANGER })))
      .contract as Address
    await sender.send(updateContractsIntent(s.registry, entry, [s.contract, s.registry, foreign], ''))
    const head = await s.reader.head()
    const check = (c: Address, allowed: Address[] = []) => checkPublisher(s.reader, s.device.address, c, head, allowed)
    await expect(check(s.registry)).rejects.toThrow('has code that this release does not know')
    await expect(check(foreign)).rejects.toThrow('does not belong to the owner')
    expect((await check(s.registry, [s.registry])).active).toBe(true)
    expect((await check(s.contract)).active).toBe(true)
  })
})

test('logs over a long range, whatever the node allows at once', async () => {
  await s.senderOf(s.owner).send(barIntent(s.contract, client, s.device.address, 0))
  const head = await s.reader.head()
  const query = { addresses: [s.contract], fromBlock: 0, toBlock: head.number }
  const all = await scanLogs(s.rpc, query)
  expect(all.length).toBeGreaterThan(2)
  const { RpcError } = await import('../../chain/rpc.ts')
  const narrow = {
    call: async (method: string, [filter]: [{ fromBlock: string; toBlock: string }]) => {
      if (Number(filter.toBlock) - Number(filter.fromBlock) > 1)
        throw new RpcError(method, -32005, 'too many blocks', undefined)
      return s.rpc.call(method, [filter])
    },
  }
  const seen: number[] = []
  expect(await scanLogs(narrow as never, query, (block) => seen.push(block))).toEqual(all)
  expect(seen.at(-1)).toBe(head.number)
})
