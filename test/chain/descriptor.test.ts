import { generateKeyPairSync } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { keccak256 } from '../../chain/account.ts'
import { type ChainDescriptor, openDescriptor, signDescriptor } from '../../chain/descriptor.ts'
import { ChainReader } from '../../chain/reader.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { type FakeNode, fakeNode, hashOf, healthy } from './fake-node.ts'

const root = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const edwards = generateKeyPairSync('ed25519')
const descriptor: ChainDescriptor = {
  chainId: 7,
  genesisHash: hashOf(0),
  registry: `0x${'11'.repeat(20)}`,
  codeHashes: { registry: keccak256('0x60'), accessToken: [keccak256('0x61')] },
  enodes: [`enode://${'ab'.repeat(64)}@127.0.0.1:30303`],
  checkpoint: { number: 50, hash: hashOf(50) },
}

describe('a chain descriptor', () => {
  const text = signDescriptor(descriptor, root.privateKey)

  test('is read back under the right key, whatever else is listed', () => {
    expect(openDescriptor(text, [edwards.publicKey, other.publicKey, root.publicKey])).toEqual(descriptor)
    expect(() => openDescriptor(text, [other.publicKey])).toThrow('not signed by a CA')
    expect(() => openDescriptor(text, [])).toThrow('not signed by a CA')
  })

  test('may be laid out differently, but says the same', () => {
    const file = JSON.parse(text)
    const payload = Object.fromEntries(Object.entries(file.payload).reverse())
    expect(openDescriptor(JSON.stringify({ signature: file.signature, payload }), [root.publicKey])).toEqual(descriptor)
  })

  test.each([
    ['another chain', { chainId: 8 }],
    ['another genesis', { genesisHash: hashOf(1) }],
    ['another registry', { registry: `0x${'12'.repeat(20)}` }],
    ['other code', { codeHashes: { registry: keccak256('0x60'), accessToken: [] } }],
    ['no boot node', { enodes: [] }],
    ['another checkpoint', { checkpoint: { number: 50, hash: hashOf(51) } }],
  ])('is void when somebody wrote %s into it', (_, change) => {
    const file = JSON.parse(text)
    const forged = JSON.stringify({ ...file, payload: { ...file.payload, ...change } })
    expect(() => openDescriptor(forged, [root.publicKey])).toThrow(
      expect.objectContaining({ code: 'chain/bad-descriptor' }),
    )
  })

  test.each([
    ['no JSON', 'hello'],
    ['nothing', 'null'],
    ['a list', '[]'],
    ['no payload', '{}'],
    ['a long file', `{"payload":"${'x'.repeat(70_000)}"}`],
    ['a negative number', signDescriptor({ ...descriptor, chainId: -1 }, root.privateKey)],
    ['an odd enode', signDescriptor({ ...descriptor, enodes: ['http://x'] }, root.privateKey)],
    ['an entry too many', signDescriptor({ ...descriptor, x: 1 } as ChainDescriptor, root.privateKey)],
    ['an upper-case hash', signDescriptor({ ...descriptor, genesisHash: '0xAB' }, root.privateKey)],
  ])('is refused with a code: %s', (_, bad) => {
    expect(() => openDescriptor(bad, [root.publicKey])).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^(chain|message)\//) }),
    )
  })
})

describe('a node is held against it', () => {
  const NOW = 1_763_800_000
  let node: FakeNode
  beforeEach(async () => {
    node = await fakeNode(honest())
  })
  afterEach(async () => node.stop())

  function honest() {
    const answers = healthy(100, NOW - 5)
    const latest = answers['eth_getBlockByNumber'] as (p: unknown[]) => unknown
    return {
      ...answers,
      eth_getBlockByNumber: (params: unknown[]) =>
        /^0x/.test(String(params[0])) ? { hash: hashOf(Number(params[0])) } : latest(params),
    }
  }
  const reader = (change: object = {}) =>
    new ChainReader({
      rpc: new JsonRpc({ url: node.url }),
      chainId: 7,
      registry: descriptor.registry,
      confirmations: 3,
      nowMs: () => NOW * 1000,
      descriptor,
      ...change,
    })

  test('an honest one is believed', async () => {
    expect((await reader().head()).number).toBe(100)
  })

  test.each([
    ['another genesis', { eth_getBlockByNumber: forked(0) }],
    ['another checkpoint', { eth_getBlockByNumber: forked(50) }],
    ['no checkpoint', { eth_getBlockByNumber: forked(50, null) }],
    ['another registry', { eth_getCode: '0x61' }],
  ])('%s: an attacker\u2019s chain of the same id', async (_, change) => {
    Object.assign(node.answers, change)
    await expect(reader().head()).rejects.toMatchObject({ code: 'chain/impostor' })
  })

  test('one that becomes another behind the same address is noticed after its failure', async () => {
    const r = reader()
    await r.head()
    node.raw = () => 'drop'
    await expect(r.head()).rejects.toMatchObject({ code: 'chain/unreachable' })
    node.raw = undefined
    Object.assign(node.answers, { eth_getBlockByNumber: forked(0) })
    await expect(r.head()).rejects.toMatchObject({ code: 'chain/impostor' })
  })

  test('a check of one\u2019s own is run at the same moments', async () => {
    let calls = 0
    const r = reader({
      descriptor: undefined,
      verify: async () => {
        calls++
      },
    })
    await r.head()
    await r.head()
    expect(calls).toBe(1)
  })

  test('settings of another chain are refused at once', () => {
    expect(() => reader({ chainId: 8 })).toThrow(expect.objectContaining({ code: 'chain/bad-descriptor' }))
  })

  function forked(at: number, instead: unknown = { hash: hashOf(at, 9) }) {
    const answers = honest()
    return (params: unknown[]) => (Number(params[0]) === at ? instead : answers.eth_getBlockByNumber(params))
  }
})
