import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { keccak256 } from '../../chain/account.ts'
import type { ChainDescriptor } from '../../chain/descriptor.ts'
import { grantIntent } from '../../chain/intents.ts'
import { ChainReader } from '../../chain/reader.ts'
import type { Hex } from '../../chain/types.ts'
import { createAccount } from '../../chain/wallet.ts'
import { keyServerSchema } from '../../keyserver/config.ts'
import { agreeOf, type ChainNodes, openNodes } from '../../keyserver/nodes.ts'
import { createLogger } from '../../runtime/log.ts'
import { createMetrics, type Metrics } from '../../runtime/metrics.ts'
import { type LyingNode, lyingNode } from '../chain/lying-node.ts'
import { CHAIN_ID, createStage, type Stage } from '../chain/stage.ts'

const base = {
  state: 'x',
  keys: { certificate: 'x', key: 'x', broadcast: 'x' },
  issuers: ['x'],
}
const chainOf = (chain: object) =>
  keyServerSchema.parse({ ...base, chain: { id: CHAIN_ID, registry: `0x${'11'.repeat(20)}`, ...chain } }).chain
const three = ['http://127.0.0.1:1', 'http://127.0.0.1:2', 'http://127.0.0.1:3']

describe('the settings', () => {
  test('one node, or several of which more than half agree', () => {
    expect(chainOf({ rpcUrl: three[0] })).toMatchObject({ nodes: [], proofs: false })
    expect([1, 2, 3, 4, 5].map((n) => agreeOf({ nodes: Array(n).fill(''), agree: undefined }))).toEqual([1, 2, 2, 3, 3])
    expect(agreeOf(chainOf({ nodes: three, agree: 3 }))).toBe(3)
  })

  test.each([
    ['no node', {}, 'required'],
    ['both', { rpcUrl: three[0], nodes: three }, 'beside'],
    ['the same node twice', { nodes: [three[0], `${three[0]}/`] }, 'twice'],
    ['more than there are', { nodes: three, agree: 4 }, 'more than the 3 nodes'],
    ['none that agrees', { nodes: three, agree: 0 }, '>=1'],
    ['agreement of one node with itself', { rpcUrl: three[0], agree: 1 }, 'there are none'],
    ['too many', { nodes: Array.from({ length: 10 }, (_, i) => `http://127.0.0.1:${i + 1}`) }, '<=9'],
    ['no URL of a node', { nodes: ['ftp://127.0.0.1'] }, 'http://'],
  ])('%s', (_, chain, words) => {
    expect(() => chainOf(chain)).toThrow(expect.objectContaining({ message: expect.stringContaining(words) }))
  })
})

/** Three addresses of one real chain; what a test does to them is done to what they say. */
describe('a key server between its nodes', () => {
  let s: Stage
  let nodes: LyingNode[]
  let lines: string[]
  let metrics: Metrics
  const client = createAccount().address
  const stranger = createAccount().address
  beforeAll(async () => {
    s = await createStage()
    await s.senderOf(s.owner).send(grantIntent(s.contract, [client], s.device.address, 3600, 1))
    await s.mine(3)
  })
  afterAll(async () => s?.stop())
  beforeEach(async () => {
    nodes = await Promise.all([0, 1, 2].map(() => lyingNode(s.anvil.url)))
    lines = []
  })
  afterEach(async () => {
    await Promise.all(nodes.map((n) => n.stop()))
  })

  function open(chain: object = {}, descriptor?: ChainDescriptor): { reader: ChainReader; opened: ChainNodes } {
    const config = chainOf({ registry: s.registry, nodes: nodes.map((n) => n.url), ...chain })
    metrics = createMetrics()
    const log = createLogger({ name: 'test', write: (line) => lines.push(line) })
    const { registry } = s
    const expected = { chainId: CHAIN_ID, registry, descriptor, proofs: config.proofs }
    const opened = openNodes(config, expected, log, metrics)
    const { rpc, verify } = opened
    const reader = new ChainReader({
      rpc,
      chainId: CHAIN_ID,
      registry,
      confirmations: 3,
      proofs: config.proofs,
      ...(verify && { verify }),
    })
    return { reader, opened }
  }
  /** What the key server would act on: serials of a member's and a stranger's token, and the owner of the device. */
  const decisions = (reader: ChainReader) =>
    reader.atHead(async (head) => {
      const tokens = await reader.tokensOf(s.contract, s.device.address, [client, stranger], head)
      const entry = await reader.deviceOf(s.device.address, head)
      return [...tokens.map((t) => t.serial), entry?.owner]
    })
  const truth = () => [1, 0, s.owner.address]
  const said = (node: LyingNode, kind: string): string[] =>
    lines.filter((l) => l.includes(`"node":"${node.url}"`) && l.includes(`"kind":"${kind}"`))
  const granted = (result: unknown): unknown => {
    const words = (result as string).slice(2)
    // tokens of everybody: the first one's words for the second as well
    return words.length === 64 * 12 ? `0x${words.slice(0, 64 * 7)}${words.slice(64 * 2, 64 * 7)}` : result
  }

  test('a token that only one node shows is none; that node is named, once', async () => {
    const [liar] = nodes as [LyingNode]
    liar.lies = { eth_call: granted }
    const { reader } = open()
    for (let i = 0; i < 5; i++) expect(await decisions(reader)).toEqual(truth())
    await settled()
    expect(said(liar, 'differs')).toHaveLength(1)
    expect(lines.join('')).toMatch(/"level":"error".*contradicts the others and was outvoted/)
    const page = await metrics.render()
    expect(page).toContain(`iotchain_keyserver_node_faults_total{node="${liar.url}",kind="differs"} 5`)
    // the lie would have been believed
    const alone = open({ nodes: [], rpcUrl: liar.url })
    expect(await decisions(alone.reader)).toEqual([1, 1, s.owner.address])
  })

  test('two that lie the same way outvote the third: so many have to be honest', async () => {
    for (const liar of nodes.slice(0, 2)) liar.lies = { eth_call: granted }
    expect(await decisions(open().reader)).toEqual([1, 1, s.owner.address])
    // all have to agree: no decision at all
    await expect(decisions(open({ agree: 3 }).reader)).rejects.toMatchObject({ code: 'chain/disagreement' })
    // what is proven cannot be lied about
    expect(await decisions(open({ proofs: true }).reader)).toEqual(truth())
  })

  test.each([
    ['another chain', { eth_chainId: () => '0x1' }, 'unfit'],
    ['another header', { eth_getBlockByNumber: (b: unknown) => b && { ...b, timestamp: '0x1' } }, 'differs'],
    [
      'a chain of its own',
      { eth_getBlockByNumber: (b: unknown) => b && { ...b, hash: `0x${'ab'.repeat(32)}` } },
      'differs',
    ],
    [
      'nonsense',
      { eth_getBlockByNumber: (): unknown => 'x', eth_call: (): unknown => null, eth_syncing: (): unknown => 7 },
      'unreachable',
    ],
    [
      'refusals',
      {
        eth_call: (): never => {
          throw 'no'
        },
      },
      'behind',
    ],
  ] as const)('one that shows %s is outvoted and named', async (_, lies, kind) => {
    const [liar] = nodes as [LyingNode]
    liar.lies = lies
    expect(await decisions(open().reader)).toEqual(truth())
    await settled()
    const kinds = kind === 'unreachable' ? ['differs', 'bad-proof', 'unreachable', 'behind'] : [kind]
    expect(kinds.flatMap((k) => said(liar, k))).not.toEqual([])
  })

  test('each node is held against the descriptor by itself', async () => {
    const { rpc } = s
    const { hash } = await rpc.call<{ hash: Hex }>('eth_getBlockByNumber', ['0x0', false])
    const code = await rpc.call<Hex>('eth_getCode', [s.registry, 'latest'])
    const descriptor: ChainDescriptor = {
      chainId: CHAIN_ID,
      genesisHash: hash,
      registry: s.registry,
      codeHashes: { registry: keccak256(code), accessToken: [] },
      enodes: [],
      checkpoint: { number: 0, hash },
    }
    const other = (b: unknown, [at]: readonly unknown[]) =>
      at === '0x0' ? { ...(b as object), hash: `0x${'ab'.repeat(32)}` } : b
    const [liar, second] = nodes as [LyingNode, LyingNode]
    liar.lies = { eth_getBlockByNumber: other }
    expect(await decisions(open({}, descriptor).reader)).toEqual(truth())
    expect(said(liar, 'unfit').join('')).toContain('another genesis block')
    // too many impostors: that is what is said, and the key server does not start on it
    second.lies = { eth_getBlockByNumber: other }
    await expect(decisions(open({}, descriptor).reader)).rejects.toMatchObject({ code: 'chain/impostor' })
    await expect(decisions(open({ nodes: [], rpcUrl: liar.url }, descriptor).reader)).rejects.toMatchObject({
      code: 'chain/impostor',
    })
  })

  test('fewer than have to agree: no decision; again when they are back', async () => {
    const { reader } = open()
    for (const node of nodes.slice(0, 2)) node.away = true
    await expect(decisions(reader)).rejects.toMatchObject({ code: 'chain/unreachable', retryAfterSeconds: 5 })
    for (const node of nodes) node.away = false
    await expect.poll(() => decisions(reader), { timeout: 5000 }).toEqual(truth())
  })

  test('one that hangs slows a decision once', async () => {
    const [slow] = nodes as [LyingNode]
    const { reader } = open()
    await decisions(reader)
    slow.delayMs = Number.POSITIVE_INFINITY
    expect(await decisions(reader)).toEqual(truth())
    expect(said(slow, 'slow')).toHaveLength(1)
    for (let i = 0; i < 3; i++) await decisions(reader)
    // each wait would be counted
    expect(await metrics.render()).toContain(`{node="${slow.url}",kind="slow"} 1\n`)
  })

  test.each([
    ['one node', true],
    ['three', false],
  ])('proofs: a lie about a token or an entry does not pass (%s)', async (_, alone) => {
    const [liar] = nodes as [LyingNode]
    const forge = (answer: unknown): unknown => {
      const proof = structuredClone(answer) as { storageProof: { proof: string[] }[] }
      for (const item of proof.storageProof) {
        item.proof = item.proof.map((n, i, all) => (i === all.length - 1 ? `${n.slice(0, -2)}ff` : n))
      }
      return proof
    }
    const { reader } = open({ proofs: true, ...(alone && { nodes: [], rpcUrl: liar.url }) })
    expect(await decisions(reader)).toEqual(truth())
    liar.lies = { eth_getProof: forge, eth_call: granted }
    if (alone) {
      await expect(decisions(reader)).rejects.toMatchObject({ code: 'chain/bad-proof' })
      return
    }
    expect(await decisions(reader)).toEqual(truth())
    await settled()
    expect(said(liar, 'bad-proof')).toHaveLength(1)
    // a state root of its own: the header no longer hashes to the block
    liar.lies = { eth_getBlockByHash: (b) => ({ ...(b as object), stateRoot: `0x${'ab'.repeat(32)}` }) }
    await s.mine(1)
    expect(await decisions(reader)).toEqual(truth())
  })

  test('a node without eth_getProof is an error of the configuration', async () => {
    const [old] = nodes as [LyingNode]
    old.lies = {
      eth_getProof: () => {
        throw 'unknown'
      },
    }
    const alone = open({ proofs: true, nodes: [], rpcUrl: old.url })
    await expect(alone.reader.head()).rejects.toMatchObject({ code: 'chain/no-proofs' })
    const { reader, opened } = open({ proofs: true })
    expect(await decisions(reader)).toEqual(truth())
    expect(opened.configurationError()).toMatchObject({
      code: 'chain/no-proofs',
      message: expect.stringContaining(old.url),
    })
    expect(open().opened.configurationError()).toBeUndefined()
  })

  test('transactions go to the next node when one is gone', async () => {
    const { opened } = open()
    ;(nodes[0] as LyingNode).away = true
    ;(nodes[1] as LyingNode).lies = { eth_chainId: () => '0x1' }
    expect(await opened.sending.call('eth_chainId')).toBe(`0x${CHAIN_ID.toString(16)}`)
    expect(opened.sending.name).toBe((nodes[2] as LyingNode).url)
  })

  test('no secret of a URL is told; two nodes at one host are told apart', async () => {
    const [a, b] = nodes.map((n) => n.url) as [string, string]
    const { opened } = open({ nodes: [`${a}/secret-one`, `${a}/secret-two`, b] })
    ;(nodes[0] as LyingNode).away = true
    await expect(opened.rpc.call('eth_chainId')).rejects.toMatchObject({ code: 'chain/unreachable' })
    await settled()
    expect(lines.join('')).toContain(`${a}#2`)
    expect(lines.join('') + opened.rpc.name + (await metrics.render())).not.toContain('secret')
  })
})

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 100))
