import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { JsonRpc, RpcError } from '../../chain/rpc.ts'
import { type FakeNode, fakeNode, RpcFault } from './fake-node.ts'

let node: FakeNode
beforeEach(async () => {
  node = await fakeNode({ echo: (params: unknown[]) => params })
})
afterEach(async () => node.stop())

const rpc = (change: object = {}): JsonRpc => new JsonRpc({ url: node.url, timeoutMs: 10_000, ...change })

describe('JSON-RPC', () => {
  test('requests of one turn travel together, in batches', async () => {
    const client = rpc({ maxBatch: 100 })
    const answers = await Promise.all(Array.from({ length: 250 }, (_, i) => client.call('echo', [i])))
    expect(answers).toEqual(Array.from({ length: 250 }, (_, i) => [i]))
    expect(client.exchanges).toBe(3)
  })

  test('bodies stay below a megabyte', async () => {
    const longest: number[] = []
    node.raw = (body) => {
      longest.push(body.length)
      const calls = [JSON.parse(body)].flat() as { id: number }[]
      return { body: JSON.stringify(calls.map((c) => ({ jsonrpc: '2.0', id: c.id, result: c.id }))) }
    }
    const client = rpc({ timeoutMs: 10_000 })
    await Promise.all(Array.from({ length: 100 }, () => client.call('echo', ['x'.repeat(34_000)])))
    expect(longest.length).toBe(4)
    expect(Math.max(...longest)).toBeLessThan(1_100_000)
  })

  test('a refusal of the whole body reaches every request in it', async () => {
    node.raw = () => ({
      status: 400,
      body: '{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request"}}',
    })
    const client = rpc()
    const all = await Promise.allSettled([client.call('echo'), client.call('echo')])
    expect(all.map((r) => (r as PromiseRejectedResult).reason.rpcCode)).toEqual([-32600, -32600])
  })

  test('a node that refuses batches is asked one by one', async () => {
    const client = rpc({ maxBatch: 1 })
    expect(await Promise.all([client.call('echo', [1]), client.call('echo', [2])])).toEqual([[1], [2]])
    expect(client.exchanges).toBe(2)
  })

  test('one refused request of a batch fails alone', async () => {
    node.answers['bad'] = () => {
      throw new RpcFault(3, 'execution reverted', '0x1234')
    }
    const client = rpc()
    const [good, bad] = await Promise.allSettled([client.call('echo', [1]), client.call('bad')])
    expect(good).toMatchObject({ status: 'fulfilled', value: [1] })
    const reason = (bad as PromiseRejectedResult).reason
    expect(reason).toBeInstanceOf(RpcError)
    expect(reason).toMatchObject({ code: 'chain/rpc', rpcCode: 3, data: '0x1234' })
  })

  test.each([
    ['an answer that is no JSON', { body: 'hello' }],
    ['an error page', { status: 502, body: '<html>' }],
    ['an empty answer', { body: '' }],
    ['half an answer', { body: '{"jsonrpc":"2.0","id":1,' }],
    ['an answer to somebody else', { body: '{"jsonrpc":"2.0","id":99,"result":1}' }],
    ['an array for one', { body: '[]' }],
    ['null', { body: 'null' }],
  ])('%s', async (_, answer) => {
    node.raw = () => answer
    await expect(rpc().call('echo')).rejects.toMatchObject({ code: 'chain/unreachable' })
  })

  test('a node that hangs, or hangs up', async () => {
    node.raw = () => 'hang'
    await expect(rpc({ timeoutMs: 200 }).call('echo')).rejects.toMatchObject({
      code: 'chain/unreachable',
      message: expect.stringContaining('timed out'),
    })
    node.raw = () => 'drop'
    await expect(rpc().call('echo')).rejects.toMatchObject({ code: 'chain/unreachable' })
    node.raw = undefined
    expect(await rpc().call('echo', [1])).toEqual([1])
  })

  test('nobody listens', async () => {
    const client = new JsonRpc({ url: 'http://127.0.0.1:1' })
    await expect(client.call('echo')).rejects.toMatchObject({
      code: 'chain/unreachable',
      message: expect.stringContaining('127.0.0.1:1'),
    })
  })

  test('credentials in the address go into the header, never into an error', async () => {
    const client = new JsonRpc({ url: 'http://user:s3cret@127.0.0.1:1/path?key=s3cret' })
    const error = await client.call('echo').catch((e: unknown) => e)
    expect(String((error as Error).message) + client.name).not.toContain('s3cret')
  })

  test.each(['', 'localhost:8545', 'ftp://x', '127.0.0.1'])('no address of a node: "%s"', (url) => {
    expect(() => new JsonRpc({ url })).toThrow(expect.objectContaining({ code: 'chain/bad-url' }))
  })

  test('octets of a revert are found where nodes put them', async () => {
    node.answers['nested'] = () => {
      throw new RpcFault(-32000, 'x', { data: '0xab' })
    }
    node.answers['odd'] = () => {
      throw new RpcFault(-32000, 'x', 'Reverted')
    }
    await expect(rpc().call('nested')).rejects.toMatchObject({ data: '0xab' })
    await expect(rpc().call('odd')).rejects.toMatchObject({ data: undefined })
  })
})
