import { describe, expect, test } from 'vitest'
import { AgreeingRpc, type NodeFault } from '../../chain/agreement.ts'
import { ChainReader } from '../../chain/reader.ts'
import { type Rpc, RpcError } from '../../chain/rpc.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { hashOf, healthy } from './fake-node.ts'

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

  test('two that contradict each other are a disagreement, whether or not the third has answered yet', async () => {
    const liar = { ...chain(100), eth_call: '0x22' }
    const silent = { ...chain(100), eth_call: () => new Promise(() => {}) }
    await expect(agreeing(3, liar, chain(100), silent).call('eth_call', [])).rejects.toMatchObject({
      code: 'chain/disagreement',
    })
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

  test('a right hash does not make the rest of a header right: the content is agreed upon', async () => {
    const twisted = (height: number): Answers => {
      const honest = chain(height)['eth_getBlockByNumber'] as (p: readonly unknown[]) => object | null
      return {
        ...chain(height),
        eth_getBlockByNumber: (p: readonly unknown[]) => {
          const block = honest(p)
          return block && { ...block, timestamp: '0x1', parentHash: hashOf(7), transactions: ['0x'] }
        },
      }
    }
    expect(await head(agreeing(2, twisted(100), chain(100), chain(100)))).toEqual({
      ...(await head(agreeing(1, chain(100)))),
      timestamp: `0x${NOW.toString(16)}`,
      parentHash: hashOf(99),
    })
    await expect(head(agreeing(2, twisted(100), chain(100)))).rejects.toMatchObject({ code: 'chain/disagreement' })
  })

  test('while the nodes stand on two forks, the head is what they have in common', async () => {
    expect(await head(agreeing(2, chain(100, 100), chain(100)))).toMatchObject({ hash: hashOf(99) })
    expect(await head(agreeing(2, chain(100, 98), chain(100)))).toMatchObject({ hash: hashOf(97) })
  })

  test('no old head is brought back, however many are away', async () => {
    const states: (Answers | 'away')[] = [chain(100), chain(100), chain(100)]
    const nodes = states.map((_, i): Rpc => ({ name: `n${i}`, call: (m, p) => node(states[i] as Answers).call(m, p) }))
    const rpc = new AgreeingRpc({ nodes, agree: 2 })
    expect((await head(rpc)).number).toBe('0x64')
    // one is down, another says that it knows no more than 50 blocks
    states[0] = 'away'
    states[1] = chain(50)
    await expect(head(rpc)).rejects.toMatchObject({
      code: 'chain/disagreement',
      message: expect.stringContaining('50'),
    })
    // a little behind is what nodes are
    states[1] = chain(98)
    expect((await head(rpc)).number).toBe('0x62')
    states[1] = chain(100, 99)
    states[2] = chain(101, 99)
    expect(await head(rpc)).toMatchObject({ hash: hashOf(100, 1) })
  })

  test('who is at fault is named, and of what', async () => {
    const faults: NodeFault[] = []
    const states: (Answers | 'away')[] = [{ ...chain(5), eth_call: '0x22' }, chain(5), chain(5), 'away']
    const nodes = states.map((s, i): Rpc => ({ name: `n${i}`, call: node(s).call }))
    const options = { onfault: (f: NodeFault) => faults.push(f) }
    const rpc = new AgreeingRpc({ nodes, agree: 2, ...options })
    await rpc.call('eth_call')
    await settled()
    expect(faults.map((f) => [f.node, f.kind])).toEqual([
      ['n0', 'differs'],
      ['n3', 'unreachable'],
    ])
    // what a node lacks it does not lie about
    faults.length = 0
    await rpc.call('eth_getBlockByNumber', ['0x5', false])
    states[0] = chain(4)
    const lagging = new AgreeingRpc({ nodes: [chain(4), chain(5), chain(5)].map(node), agree: 2, ...options })
    faults.length = 0
    await lagging.call('eth_getBlockByNumber', ['0x5', false])
    await settled()
    expect(faults.map((f) => f.kind)).toEqual(['behind'])
    const busy = { ...chain(5), eth_syncing: { currentBlock: '0x1' } }
    const catchingUp = new AgreeingRpc({ nodes: [busy, chain(5), chain(5)].map(node), agree: 2, ...options })
    faults.length = 0
    await catchingUp.call('eth_syncing')
    await settled()
    expect(faults.map((f) => f.kind)).toEqual(['behind'])
  })

  test('a slow node is waited for once, and then no more until it is in time again', async () => {
    let delayMs = 400
    const slow: Rpc = {
      name: 'slow',
      async call<T>(method: string, params?: readonly unknown[]): Promise<T> {
        await new Promise((resolve) => setTimeout(resolve, delayMs))
        return node(chain(200)).call(method, params)
      },
    }
    const faults: NodeFault[] = []
    const nodes = [node(chain(100)), node(chain(100)), slow]
    const rpc = new AgreeingRpc({ nodes, agree: 2, patienceMs: 50, onfault: (f) => faults.push(f) })
    await head(rpc)
    expect(faults.map((f) => f.kind)).toEqual(['slow'])
    let answered = false
    const second = head(rpc).then(() => {
      answered = true
    })
    for (let i = 0; i < 20; i++) await settled()
    expect(answered).toBe(true)
    await second
    delayMs = 0
    await new Promise((resolve) => setTimeout(resolve, 450))
    faults.length = 0
    await head(rpc)
    await head(rpc)
    expect(faults.filter((f) => f.kind === 'slow')).toEqual([])
  })

  test('logs: what one node keeps back another names; what all say stands once', async () => {
    const log = (n: number, more: object = {}) => ({
      address: '0xaa',
      topics: ['0x01'],
      data: '0x',
      blockNumber: '0x1',
      blockHash: hashOf(1),
      transactionHash: hashOf(9),
      logIndex: `0x${n}`,
      ...more,
    })
    const silent = { eth_getLogs: [] }
    const talking = { eth_getLogs: [log(1), log(2)] }
    const other = { eth_getLogs: [log(2, { blockTimestamp: '0x5' })] }
    const ofBlock = await agreeing(2, silent, talking, other).call<unknown[]>('eth_getLogs', [{ blockHash: hashOf(1) }])
    expect(ofBlock).toEqual([log(1), log(2)])
    await expect(
      agreeing(2, silent, talking, 'away').call('eth_getLogs', [{ fromBlock: '0x1', toBlock: '0x2' }]),
    ).rejects.toMatchObject({ code: 'chain/disagreement' })
  })

  test('what they do not know they say nothing about', async () => {
    const { eth_syncing: _, ...mute } = chain(1)
    expect(await agreeing(2, mute, mute, chain(1)).call('eth_syncing')).toBe(false)
    await expect(agreeing(2, {}, {}, chain(1)).call('eth_getProof')).rejects.toBeInstanceOf(RpcError)
    await expect(agreeing(2, {}, {}, {}).call('eth_getBlockByNumber', ['finalized', false])).rejects.toBeInstanceOf(
      RpcError,
    )
  })

  test('what proves itself is taken from the first that proves it', async () => {
    const faults: NodeFault[] = []
    const says = (value: string): Answers => ({ eth_getProof: value })
    const nodes = [says('lie'), 'away' as const, says('truth'), says('never asked')].map(
      (s, i): Rpc => ({
        name: `n${i}`,
        call: node(s).call,
      }),
    )
    const rpc = new AgreeingRpc({ nodes, agree: 3, onfault: (f) => faults.push(f) })
    const check = (answer: unknown): unknown => {
      if (answer === 'truth') return answer
      throw new IotchainError('chain/bad-proof', 'lie')
    }
    expect(await rpc.checked('eth_getProof', [], check)).toBe('truth')
    expect(faults.map((f) => [f.node, f.kind])).toEqual([
      ['n0', 'bad-proof'],
      ['n1', 'unreachable'],
    ])
    // who lied is asked last from now on
    faults.length = 0
    expect(await rpc.checked('eth_getProof', [], check)).toBe('truth')
    expect(faults.map((f) => f.node)).toEqual(['n1'])
    const none = new AgreeingRpc({ nodes: nodes.slice(0, 2), agree: 1 })
    await expect(none.checked('eth_getProof', [], check)).rejects.toMatchObject({ code: 'chain/bad-proof' })
  })

  test('one that hangs does not hold up what another proves', async () => {
    const hanging: Rpc = { name: 'hangs', call: () => new Promise(() => undefined) }
    const rpc = new AgreeingRpc({ nodes: [hanging, node({ eth_getProof: 'truth' })], agree: 1, patienceMs: 20 })
    expect(await rpc.checked('eth_getProof', [], (a) => a)).toBe('truth')
  })
})

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
