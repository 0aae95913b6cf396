import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { HeadSource, type HeadSourceOptions } from '../../chain/head.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { type FakeNode, fakeNode, hashOf, healthy, RpcFault } from './fake-node.ts'

const NOW = 1_763_800_000
let node: FakeNode
let nowMs: number

beforeEach(async () => {
  nowMs = NOW * 1000
  node = await fakeNode(healthy(100, NOW - 5))
})
afterEach(async () => node.stop())

function source(change: Partial<HeadSourceOptions> = {}): HeadSource {
  return new HeadSource({
    rpc: new JsonRpc({ url: node.url, timeoutMs: 10_000 }),
    chainId: 7,
    registry: `0x${'11'.repeat(20)}`,
    confirmations: 12,
    nowMs: () => nowMs,
    ...change,
  })
}

describe('a head is handed out only while the node is fit to be believed', () => {
  test('a healthy node', async () => {
    expect(await source().head(0)).toEqual({
      number: 100,
      hash: hashOf(100),
      parentHash: hashOf(99),
      timestamp: NOW - 5,
      safe: undefined,
      finalized: undefined,
    })
    // everything of one look in one exchange
    expect(node.seen.map((c) => c.method).sort()).toEqual([
      'eth_chainId',
      'eth_getBlockByNumber',
      'eth_getCode',
      'eth_syncing',
    ])
  })

  test.each([
    ['chain/wrong-chain', { eth_chainId: '0x8' }, {}],
    ['chain/syncing', { eth_syncing: { currentBlock: '0x1' } }, {}],
    ['chain/peers', { net_peerCount: '0x2' }, { expectPeers: 3 }],
    ['chain/no-registry', { eth_getCode: '0x' }, {}],
    ['chain/stale', healthy(100, NOW - 181), {}],
    ['chain/stale', healthy(100, NOW - 31), { maxHeadAgeSeconds: 30 }],
  ] as const)('%s', async (code, change, options) => {
    Object.assign(node.answers, change)
    await expect(source(options).head(0)).rejects.toMatchObject({ code, hint: expect.any(String) })
  })

  test('a node in the wrong state is named as such before its age', async () => {
    node.answers = { ...healthy(100, NOW - 1_000_000), eth_syncing: { currentBlock: '0x1' } }
    await expect(source().head(0)).rejects.toMatchObject({ code: 'chain/syncing' })
  })

  test('what a node does not know says nothing', async () => {
    delete node.answers['net_peerCount']
    delete node.answers['eth_syncing']
    expect((await source({ expectPeers: 5 }).head(0)).number).toBe(100)
  })

  test('another error of the same method is an error', async () => {
    node.answers['eth_syncing'] = () => {
      throw new RpcFault(-32000, 'broken')
    }
    await expect(source().head(0)).rejects.toMatchObject({ code: 'chain/rpc' })
  })

  test('safe and finalized', async () => {
    expect(await source({ confirmations: 'safe' }).head(0)).toMatchObject({ safe: 96, finalized: undefined })
    expect(await source({ confirmations: 'finalized' }).head(0)).toMatchObject({ safe: undefined, finalized: 92 })
  })

  test.each([null, new RpcFault(-39001, 'finalized block not found')])(
    'a chain without finality: %s',
    async (answer) => {
      const latest = node.answers['eth_getBlockByNumber'] as (p: unknown[]) => unknown
      node.answers['eth_getBlockByNumber'] = (params: unknown[]) => {
        if (params[0] === 'latest') return latest(params)
        if (answer instanceof Error) throw answer
        return answer
      }
      await expect(source({ confirmations: 'finalized' }).head(0)).rejects.toMatchObject({
        code: 'chain/no-finality',
        hint: expect.stringContaining('number of confirmations'),
      })
    },
  )

  test('a chain that never will have finality is told from one that has none yet', async () => {
    const latest = node.answers['eth_getBlockByNumber'] as (p: unknown[]) => object
    node.answers['eth_getBlockByNumber'] = (params: unknown[]) => {
      if (params[0] === 'safe') throw new RpcFault(-39001, 'safe block not found')
      return { ...latest(params), difficulty: '0x2' }
    }
    await expect(source({ confirmations: 'safe' }).head(0)).rejects.toMatchObject({
      code: 'chain/never-final',
      hint: expect.stringContaining('number of confirmations'),
    })
  })

  test.each([null, 'x', {}, { number: '0x1' }, { number: 7, hash: 'x', parentHash: 'x', timestamp: '0x1' }])(
    'a block that makes no sense: %j',
    async (block) => {
      node.answers['eth_getBlockByNumber'] = block
      await expect(source().head(0)).rejects.toMatchObject({ code: 'chain/bad-answer' })
    },
  )

  test('a node that went away and came back is simply there again, and is looked at anew', async () => {
    const heads = source()
    await heads.head(0)
    const { port } = node
    await node.stop()
    await expect(heads.head(0)).rejects.toMatchObject({ code: 'chain/unreachable', retryAfterSeconds: 5 })
    node = await fakeNode({ ...healthy(101, NOW - 4), eth_chainId: '0x9' }, port)
    await expect(heads.head(0)).rejects.toMatchObject({ code: 'chain/wrong-chain' })
    node.answers = { ...healthy(101, NOW - 4), eth_getCode: '0x' }
    await expect(heads.head(0)).rejects.toMatchObject({ code: 'chain/no-registry' })
    node.answers = healthy(101, NOW - 4)
    expect((await heads.head(0)).number).toBe(101)
  })

  test('`verify` runs before the first head and after each failure', async () => {
    let calls = 0
    const heads = source({
      verify: async () => {
        calls++
      },
    })
    await heads.head(0)
    await heads.head(0)
    expect(calls).toBe(1)
    node.answers['eth_syncing'] = true
    await expect(heads.head(0)).rejects.toMatchObject({ code: 'chain/syncing' })
    node.answers['eth_syncing'] = false
    await heads.head(0)
    expect(calls).toBe(2)
  })

  test('looks are shared while in flight, and reused as long as asked for', async () => {
    const heads = source()
    const [a, b] = await Promise.all([heads.head(0), heads.head(0)])
    expect(a).toBe(b)
    const looks = node.seen.length
    nowMs += 400
    expect(await heads.head(500)).toBe(a)
    expect(node.seen.length).toBe(looks)
    nowMs += 200
    await heads.head(500)
    expect(node.seen.length).toBeGreaterThan(looks)
  })

  test('a clock that jumps back does not make an old head new', async () => {
    const heads = source()
    await heads.head(0)
    const looks = node.seen.length
    nowMs -= 10_000
    await heads.head(60_000)
    expect(node.seen.length).toBeGreaterThan(looks)
  })
})
