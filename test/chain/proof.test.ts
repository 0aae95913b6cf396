import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { headerHash } from '../../chain/header.ts'
import {
  acceptIntent,
  deactivateIntent,
  grantIntent,
  revokeIntent,
  transferIntent,
  updateContractsIntent,
} from '../../chain/intents.ts'
import { StateProofs } from '../../chain/proof.ts'
import { ChainReader } from '../../chain/reader.ts'
import { type Rpc, RpcError } from '../../chain/rpc.ts'
import { tokenSlot } from '../../chain/slots.ts'
import { readTrie } from '../../chain/trie.ts'
import { type Hex, NO_TOKEN } from '../../chain/types.ts'
import { createAccount } from '../../chain/wallet.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { hashOf } from './fake-node.ts'
import { createStage, type Stage } from './stage.ts'

describe('storage proofs', () => {
  let s: Stage
  const clients = Array.from({ length: 120 }, () => createAccount().address)
  const granted = clients.filter((_, i) => i % 3 === 0)
  beforeAll(async () => {
    s = await createStage()
    const sender = s.senderOf(s.owner)
    await sender.send(grantIntent(s.contract, granted, s.device.address, 3600, 0x80000001))
    await sender.send(revokeIntent(s.contract, granted.slice(0, 5), s.device.address))
  })
  afterAll(async () => s?.stop())

  test('say what a call says, of tokens that stand, stood and never were', async () => {
    const proven = new ChainReader({
      rpc: s.rpc,
      chainId: s.anvil.chainId,
      registry: s.registry,
      confirmations: 3,
      proofs: true,
    })
    const at = await s.reader.head()
    const [byProof, byCall] = [
      await proven.tokensOf(s.contract, s.device.address, clients, at),
      await s.reader.tokensOf(s.contract, s.device.address, clients, at),
    ]
    expect(byProof).toEqual(byCall)
    expect(byProof.filter((t) => t.expiresAt > 0)).toHaveLength(granted.length - 5)
    expect(await proven.tokensOf(`0x${'5a'.repeat(20)}`, s.device.address, clients.slice(0, 2), at)).toEqual([
      NO_TOKEN,
      NO_TOKEN,
    ])
  })

  test('the header hashes to the block', async () => {
    const block = await s.rpc.call<Record<string, Hex>>('eth_getBlockByNumber', ['latest', false])
    expect(headerHash(block)).toBe(block['hash'])
  })

  const lying = (method: string, change: (answer: unknown) => unknown): Rpc => ({
    name: 'liar',
    call: async (m, params) => {
      const answer = await s.rpc.call<unknown>(m, params)
      return (m === method ? change(answer) : answer) as never
    },
  })
  const prove = async (rpc: Rpc, client = granted[10] as Address) =>
    new StateProofs(rpc).tokensOf(s.contract, s.device.address, [client], await s.reader.head())

  type Proof = { accountProof: Hex[]; storageProof: { key: Hex; proof: Hex[] }[] }
  const flip = (hex: Hex): Hex => `${hex.slice(0, -1)}${hex.endsWith('0') ? '1' : '0'}` as Hex

  test.each([
    ['another state root', 'eth_getBlockByHash', (b: unknown) => ({ ...(b as object), stateRoot: hashOf(1) })],
    [
      'another account',
      'eth_getProof',
      (p: unknown) => ({
        ...(p as Proof),
        accountProof: (p as Proof).accountProof.map((n, i, all) => (i === all.length - 1 ? flip(n) : n)),
      }),
    ],
    [
      'another value',
      'eth_getProof',
      (p: unknown) => ({
        ...(p as Proof),
        storageProof: (p as Proof).storageProof.map((x) => ({
          ...x,
          proof: x.proof.map((n, i, all) => (i === all.length - 1 ? flip(n) : n)),
        })),
      }),
    ],
    [
      'half a proof',
      'eth_getProof',
      (p: unknown) => ({
        ...(p as Proof),
        storageProof: (p as Proof).storageProof.map((x) => ({ ...x, proof: x.proof.slice(0, 1) })),
      }),
    ],
    ['no account proof', 'eth_getProof', (p: unknown) => ({ ...(p as Proof), accountProof: [] })],
    ['no storage proof', 'eth_getProof', (p: unknown) => ({ ...(p as Proof), storageProof: [] })],
  ])('a node that shows %s is caught', async (_, method, change) => {
    await expect(prove(lying(method, change))).rejects.toMatchObject({ code: 'chain/bad-proof' })
  })

  test('the proof of another client is no proof', async () => {
    const swap: Rpc = {
      name: 'liar',
      call: async (m, params = []) => {
        if (m !== 'eth_getProof') return s.rpc.call(m, params)
        const other = tokenSlot(granted[11] as Address, s.device.address)
        return s.rpc.call(m, [params[0], [other], params[2]])
      },
    }
    // either it does not fit, or it proves that there is nothing: never the other's token
    const outcome = await prove(swap).catch((error: { code: string }) => error.code)
    expect(outcome === 'chain/bad-proof' || JSON.stringify(outcome) === JSON.stringify([NO_TOKEN])).toBe(true)
  })

  test('a block that is gone', async () => {
    const gone = { ...(await s.reader.head()), hash: hashOf(9) }
    const proofs = new StateProofs(s.rpc)
    await expect(proofs.tokensOf(s.contract, s.device.address, clients.slice(0, 1), gone)).rejects.toMatchObject({
      code: 'chain/reorged',
    })
  })

  test('an empty trie, and nodes that are none', () => {
    const empty: Hex = '0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421'
    expect(readTrie(empty, new Uint8Array(20), [])).toBeUndefined()
    expect(() => readTrie(hashOf(1), new Uint8Array(20), [])).toThrow(
      expect.objectContaining({ code: 'chain/bad-proof' }),
    )
  })

  const proven = (rpc: Rpc = s.rpc) =>
    new ChainReader({ rpc, chainId: s.anvil.chainId, registry: s.registry, confirmations: 3, proofs: true })
  const contractsOf = (count: number): Address[] =>
    Array.from({ length: count }, (_, i) => `0x${(0xc0 + i).toString(16).repeat(20)}` as Address)

  test('registry entries of every shape: proofs say what the contract says', async () => {
    const sender = s.senderOf(s.owner)
    const strangers = [createAccount().address, createAccount().address]
    const devices = Array.from({ length: 15 }, () => createAccount())
    for (const [i, device] of devices.entries()) await s.register(device, contractsOf(i % 9))
    const uris = ['', 'x'.repeat(31), 'x'.repeat(32), 'coaps://ü.example.org', 'y'.repeat(255), 'z'.repeat(256)]
    for (const [i, uri] of uris.entries()) {
      const device = (devices[i] as { address: Address }).address
      const entry = { device, signingKey: new Uint8Array(32).fill(0xb1), keyServer: new Uint8Array(32).fill(0xa1) }
      await sender.send(updateContractsIntent(s.registry, entry, contractsOf(8 - i), uri))
    }
    await sender.send(deactivateIntent(s.registry, (devices[7] as { address: Address }).address))
    const moved = (devices[8] as { address: Address }).address
    await sender.send(transferIntent(s.registry, moved, s.client.address))
    await s.senderOf(s.client).send(acceptIntent(s.registry, moved))
    const all = [...devices.map((d) => d.address), ...strangers]
    const at = await s.reader.head()
    const byCall = await s.reader.devicesOf(all, at)
    expect(await proven().devicesOf(all, at)).toEqual(byCall)
    expect(await proven().deviceOf(moved, at)).toEqual(await s.reader.deviceOf(moved, at))
    // the cases are what they are meant to be
    expect(byCall.map((d) => d?.contracts.length)).toEqual([
      8,
      7,
      6,
      5,
      4,
      3,
      6,
      7,
      0,
      0,
      1,
      2,
      3,
      4,
      5,
      undefined,
      undefined,
    ])
    expect(byCall[5]?.uri).toHaveLength(256)
    expect(byCall[7]?.active).toBe(false)
    expect(byCall[8]?.owner).toBe(s.client.address)
  })

  test('codes of contracts', async () => {
    const at = await s.reader.head()
    for (const address of [s.registry, s.contract, s.owner.address, createAccount().address]) {
      expect(await proven().codeHash(address, at)).toBe(await s.reader.codeHash(address, at))
    }
  })

  test('an entry is read in one request, a long one in two', async () => {
    let requests = 0
    const counting: Rpc = {
      name: 'counts',
      call: (m, p) => {
        if (m === 'eth_getProof') requests++
        return s.rpc.call(m, p)
      },
    }
    const reader = proven(counting)
    const at = await reader.head()
    await reader.deviceOf(s.device.address, at)
    expect(requests).toBe(1)
    await reader.tokensOf(s.contract, s.device.address, clients, at)
    expect(requests).toBe(3)
  })

  test('nobody is talked into the signature of an ordinary account', async () => {
    const yes = lying('eth_call', () => `0x1626ba7e${'0'.repeat(56)}`)
    const at = await s.reader.head()
    const digest = new Uint8Array(32).fill(7)
    const forged = createAccount().signDigest(digest)
    expect(await proven(yes).verifySignature(s.client.address, digest, forged, at)).toBe(false)
    expect(await proven(yes).verifySignature(s.client.address, digest, s.client.signDigest(digest), at)).toBe(true)
  })

  test.each([
    ['another owner', 0, (w: bigint) => w ^ 1n],
    ['another signing key', 1, (w: bigint) => w ^ 1n],
  ])('a registry entry with %s', async (_, index, change) => {
    // the node puts a slot of its own making into the last leaf
    const forge = lying('eth_getProof', (p) => {
      const proof = structuredClone(p) as Proof
      const item = proof.storageProof[index as number] as Proof['storageProof'][number]
      item.proof = item.proof.map((n, i, all) => (i === all.length - 1 ? flip(n) : n))
      ;(item as { value?: string }).value = `0x${(change as (w: bigint) => bigint)(5n).toString(16)}`
      return proof
    })
    const reader = proven(forge)
    await expect(reader.deviceOf(s.device.address, await s.reader.head())).rejects.toMatchObject({
      code: 'chain/bad-proof',
    })
  })

  test.each([
    [
      'a header with another time',
      'eth_getBlockByNumber',
      (b: unknown) => ({ ...(b as object), timestamp: '0x7fffffff' }),
    ],
    ['a header that is none', 'eth_getBlockByNumber', (b: unknown) => ({ ...(b as object), miner: 7 })],
  ])('a node whose newest block is %s is not believed', async (_, method, change) => {
    await expect(proven(lying(method, change)).head()).rejects.toMatchObject({ code: 'chain/bad-proof' })
  })

  test.each([null, 7, 'x', {}, { accountProof: 7 }, { accountProof: [7] }, { accountProof: ['0x', '0xzz'] }])(
    'octets that are no proof: %j',
    async (answer) => {
      await expect(prove(lying('eth_getProof', () => answer))).rejects.toMatchObject({ code: 'chain/bad-proof' })
    },
  )

  test('a node without proofs says so', async () => {
    const without: Rpc = {
      name: 'old',
      call: (m, p) => {
        if (m === 'eth_getProof') throw new RpcError(m, -32601, 'the method eth_getProof does not exist', undefined)
        return s.rpc.call(m, p)
      },
    }
    await expect(prove(without)).rejects.toMatchObject({
      code: 'chain/no-proofs',
      hint: expect.stringContaining('proofs'),
    })
  })
})
