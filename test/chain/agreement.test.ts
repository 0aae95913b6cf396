import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AgreeingRpc } from '../../chain/agreement.ts'
import { grantIntent, revokeIntent } from '../../chain/intents.ts'
import { headerHash, provenTokens, readTrie } from '../../chain/proof.ts'
import { ChainReader } from '../../chain/reader.ts'
import { type Rpc, RpcError } from '../../chain/rpc.ts'
import { type Hex, NO_TOKEN } from '../../chain/types.ts'
import { createAccount } from '../../chain/wallet.ts'
import { IotchainError } from '../../protocol/errors.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { hashOf, healthy } from './fake-node.ts'
import { createStage, type Stage } from './stage.ts'

type Answers = Record<string, unknown | ((params: readonly unknown[]) => unknown)>

/** A node in this process. */
function node(answers: Answers | 'away'): Rpc {
  return {
    name: 'n',
    async call<T>(method: string, params: readonly unknown[] = []): Promise<T> {
      if (answers === 'away') throw new IotchainError('chain/unreachable', 'away')
      const answer = answers[method]
      if (answer === undefined) throw new RpcError(method, -32601, 'no such method', undefined)
      return (typeof answer === 'function' ? answer(params) : answer) as T
    },
  }
}

const NOW = 1_763_800_000
/** A chain of `height` blocks; from block `fork` on those of another branch. */
function chain(height: number, fork = Number.POSITIVE_INFINITY): Answers {
  const block = (n: number) => ({
    number: `0x${n.toString(16)}`,
    hash: hashOf(n, n >= fork ? 1 : 0),
    parentHash: hashOf(n - 1, n - 1 >= fork ? 1 : 0),
    timestamp: `0x${NOW.toString(16)}`,
  })
  return {
    ...healthy(height, NOW),
    eth_getBlockByNumber: ([at]: readonly unknown[]) => {
      const n = at === 'latest' ? height : Number(at)
      return n <= height ? block(n) : null
    },
    eth_call: '0x11',
  }
}

const agreeing = (agree: number, ...nodes: (Answers | 'away')[]) => new AgreeingRpc({ nodes: nodes.map(node), agree })
const head = (rpc: Rpc) => rpc.call<{ number: string; hash: string }>('eth_getBlockByNumber', ['latest', false])

describe('k of m nodes', () => {
  test('the head is the newest block that enough of them have', async () => {
    expect((await head(agreeing(2, chain(100), chain(98), chain(97)))).number).toBe('0x62')
    expect((await head(agreeing(3, chain(100), chain(98), chain(97)))).number).toBe('0x61')
    expect((await head(agreeing(1, chain(100), chain(98), chain(97)))).number).toBe('0x64')
  })

  test('one that lags, is away, or is on another fork does not matter', async () => {
    expect(await head(agreeing(2, chain(100), chain(100), chain(3)))).toMatchObject({ hash: hashOf(100) })
    expect(await head(agreeing(2, 'away', chain(100), chain(100)))).toMatchObject({ hash: hashOf(100) })
    expect(await head(agreeing(2, chain(100, 90), chain(100), chain(100)))).toMatchObject({ hash: hashOf(100, 0) })
    // a node that boasts with a longer chain of its own moves nothing
    expect(await head(agreeing(2, chain(5000, 90), chain(100), chain(100)))).toMatchObject({ hash: hashOf(100) })
  })

  test('without agreement nothing is decided', async () => {
    await expect(head(agreeing(2, chain(100, 90), chain(100), 'away'))).rejects.toMatchObject({
      code: 'chain/disagreement',
    })
    await expect(head(agreeing(2, 'away', chain(100), 'away'))).rejects.toMatchObject({ code: 'chain/unreachable' })
    await expect(agreeing(2, chain(1), { ...chain(1), eth_call: '0x22' }).call('eth_call')).rejects.toMatchObject({
      code: 'chain/disagreement',
    })
  })

  test('a lie is outvoted, a refusal that all give is a refusal', async () => {
    const liar = { ...chain(1), eth_call: '0x22' }
    expect(await agreeing(2, liar, chain(1), chain(1)).call('eth_call')).toBe('0x11')
    const reverting = (words: string) => ({
      eth_call: () => {
        throw new RpcError('eth_call', 3, words, '0xab')
      },
    })
    await expect(
      agreeing(2, reverting('reverted'), reverting('execution reverted: x'), chain(1)).call('eth_call'),
    ).rejects.toMatchObject({ data: '0xab' })
  })

  test('syncing and peers', async () => {
    const busy = { ...chain(1), eth_syncing: { currentBlock: '0x1' }, net_peerCount: '0x0' }
    expect(await agreeing(2, busy, chain(1), chain(1)).call('eth_syncing')).toBe(false)
    expect(await agreeing(2, busy, busy, chain(1)).call('eth_syncing')).not.toBe(false)
    expect(await agreeing(2, busy, chain(1), chain(1)).call('net_peerCount')).toBe('0x2')
    expect(await agreeing(3, busy, chain(1), chain(1)).call('net_peerCount')).toBe('0x0')
  })

  test('a reader over them', async () => {
    const rpc = agreeing(2, chain(100), chain(99), 'away')
    const reader = new ChainReader({
      rpc,
      chainId: 7,
      registry: `0x${'11'.repeat(20)}`,
      confirmations: 1,
      nowMs: () => NOW * 1000,
    })
    expect((await reader.head()).number).toBe(99)
  })

  test.each([0, 3, 1.5])('%s of 2 cannot agree', (agree) => {
    expect(() => agreeing(agree, chain(1), chain(1))).toThrow(expect.objectContaining({ code: 'chain/bad-agreement' }))
  })
})

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
    provenTokens(rpc, s.contract, s.device.address, [client], await s.reader.head())

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
        const { tokenSlot } = await import('../../chain/proof.ts')
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
    await expect(provenTokens(s.rpc, s.contract, s.device.address, clients.slice(0, 1), gone)).rejects.toMatchObject({
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
})
