import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { grantIntent, payIntent, revokeIntent } from '../../chain/intents.ts'
import type { Rpc } from '../../chain/rpc.ts'
import { JsonRpc, RpcError } from '../../chain/rpc.ts'
import { connectRpc } from '../../chain/socket-rpc.ts'
import { live, newest, type Reply, type TestClient, type TestDevice } from '../keyserver/harness.ts'
import type { TestClock } from '../keyserver/test-clock.ts'
import { choose, meet, tip, until } from './engine.ts'
import { findGeth, startGeth } from './geth-node.ts'
import { CHAIN_ID, Network } from './network.ts'

const found = findGeth()
if ('skipped' in found) console.log(`skipped: ${found.skipped}`)

describe.skipIf('skipped' in found)('a key server on real geth', () => {
  let net: Network
  let number = 10
  beforeAll(async () => {
    net = await Network.start()
  })
  afterAll(async () => net?.stop())

  const follow = (clock: TestClock): void => clock.pass(Math.max(0, net.time - clock.seconds))

  /** What a client gets that asks for bit 0: the refusal of its challenge, or the answer to its join. */
  async function ask(client: TestClient, device: TestDevice): Promise<Reply> {
    const challenge = await client.authz(device, [0])
    return challenge.text === '2.01' ? client.tryJoin(device) : challenge
  }

  test('n − 1 blocks are refused, n admit', async () => {
    const { world, device, clock } = await net.keyServer(3)
    const client = net.client(world, ++number)
    await net.send(grantIntent(net.contract, [client.address], device.address, 3600, 1))
    for (const missing of [3, 2, 1]) {
      follow(clock)
      const reply = await ask(client, device)
      expect(reply.text).toBe('5.03')
      expect(`${reply.problem} ${reply.detail}`).toMatch(new RegExp(`\\b${missing}\\b`))
      await net.mine(1)
    }
    follow(clock)
    expect((await ask(client, device)).text).toBe('2.01')
  })

  test('a reorg that drops a grant: out at the next session', async () => {
    const { world, device, clock } = await net.keyServer(3)
    const client = net.client(world, ++number)
    await device.join()
    net.holdBack()
    await net.send(grantIntent(net.contract, [client.address], device.address, 3600, 1))
    await net.mine(3)
    follow(clock)
    const { member } = await client.join(device)
    await live(world, 60)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: expect.any(Number) })
    await net.reorg(6, payIntent(net.owner.address, 1n))
    follow(clock)
    await live(world, 130)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
    await net.mine(1, { timestamp: clock.seconds })
    expect((await ask(client, device)).text).toMatch(/^4\.0/)
  })

  test('a reorg after which the grant is mined later: its confirmations begin again', async () => {
    const { world, device, clock } = await net.keyServer(3)
    const client = net.client(world, ++number)
    net.holdBack()
    await net.send(grantIntent(net.contract, [client.address], device.address, 3600, 1))
    await net.mine(2)
    follow(clock)
    expect((await ask(client, device)).text).toBe('5.03')
    // the other branch does not have it; geth puts it back into its pool and mines it once more
    await net.reorg(4)
    follow(clock)
    expect((await ask(client, device)).text).toMatch(/^4\.0/)
    await net.mine(1, { wanted: 1 })
    await net.mine(2)
    follow(clock)
    expect((await ask(client, device)).text).toBe('5.03')
    await net.mine(1)
    follow(clock)
    expect((await ask(client, device)).text).toBe('2.01')
  })

  test('a member whose token a reorg only moved stays one', async () => {
    const { world, device, clock } = await net.keyServer(3)
    const client = net.client(world, ++number)
    await device.join()
    net.holdBack()
    await net.send(grantIntent(net.contract, [client.address], device.address, 3600, 1))
    await net.mine(3)
    follow(clock)
    const { member } = await client.join(device)
    await net.reorg(5)
    await net.mine(1, { wanted: 1 })
    follow(clock)
    await world.server.headWatch.look()
    await live(world, 70)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: expect.any(Number) })
  })

  test.each([
    ['seen at the new head', true],
    ['and all logs suppressed', false],
  ])('a revocation is in force at the next session, %s', async (_, honest) => {
    let rpc: Rpc = new JsonRpc({ url: net.k.url })
    let asked = 0
    if (!honest) {
      const real = rpc
      rpc = {
        name: real.name,
        call: async (method, params) => {
          if (method !== 'eth_getLogs') return real.call(method, params)
          asked++
          return [] as never
        },
      }
    }
    const { ChainLogs } = await import('../../keyserver/chain-logs.ts')
    const logs = new ChainLogs(rpc as JsonRpc, net.registry)
    const reader = net.reader(3)
    const { world, device, clock } = await net.keyServer(3, {
      rpc,
      readAllBelow: 0,
      candidates: async () => logs.since(await reader.head()),
    })
    const client = net.client(world, ++number)
    await device.join()
    await net.send(grantIntent(net.contract, [client.address], device.address, 3600, 1))
    await net.mine(3)
    follow(clock)
    const { member } = await client.join(device)
    await world.server.headWatch.look()
    await live(world, 60)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: expect.any(Number) })
    await net.send(revokeIntent(net.contract, [client.address], device.address))
    follow(clock)
    await world.server.headWatch.look()
    // seen: the next session is brought forward; not seen: it comes when it comes
    await live(world, honest ? 12 : 60)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
    if (!honest) expect(asked).toBeGreaterThan(0)
  })

  test('finalized: admits after finality, and n meanwhile', async () => {
    const { world, device, clock } = await net.keyServer('finalized')
    const base = await net.mine(1)
    const finalize = async (hash: `0x${string}`): Promise<void> => {
      await net.mine(1, { settled: { safe: hash, finalized: hash } })
      follow(clock)
    }
    await finalize(base.hash)
    const client = net.client(world, ++number)
    await net.send(grantIntent(net.contract, [client.address], device.address, 3600, 1))
    const granted = await net.mine(20)
    follow(clock)
    const waiting = await ask(client, device)
    expect(waiting.text).toBe('5.03')
    const meanwhile = net.reader(12, undefined, () => clock.nowMs())
    const { decide } = await import('../../chain/rule.ts')
    const head = await meanwhile.head()
    const [token] = await meanwhile.tokensOf(net.contract, device.address, [client.address], head)
    expect(decide(undefined, token as never, head, 12, clock.seconds).status).toBe('good')
    await finalize(granted.hash)
    expect((await ask(client, device)).text).toBe('2.01')
  })

  test('a chain that stands still, and one whose blocks are from the future', async () => {
    const { world, device, clock } = await net.keyServer(3)
    const client = net.client(world, ++number)
    await net.send(grantIntent(net.contract, [client.address], device.address, 600, 1))
    await net.mine(3)
    follow(clock)
    clock.pass(181)
    const stale = await client.authz(device, [0])
    expect(stale.text).toBe('5.03')
    // a block of now heals it
    await net.mine(1, { timestamp: clock.seconds })
    expect((await ask(client, device)).text).toBe('2.01')
    // the block's time counts, not the own clock that is behind
    await net.mine(1, { timestamp: clock.seconds + 700 })
    const late = net.client(world, number)
    expect((await late.authz(device, [0])).text).not.toBe('2.01')
  })

  test.each(['HTTP', 'WebSocket', 'IPC'])('geth is killed and comes back under load, over %s', async (way) => {
    const url = way === 'HTTP' ? net.k.url : way === 'IPC' ? net.k.ipcPath : net.k.wsUrl
    const rpc = connectRpc({ url, timeoutMs: 1_000 })
    const reader = net.reader(3, rpc)
    const outcomes: string[] = []
    let stop = false
    const load = Array.from({ length: 8 }, async () => {
      while (!stop) {
        try {
          await reader.atHead((h) => reader.tokensOf(net.contract, `0x${'dd'.repeat(20)}`, [net.owner.address], h))
          outcomes.push('read')
        } catch (error) {
          outcomes.push((error as { code?: string }).code ?? String(error))
        }
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    })
    await until('reads', async () => outcomes.filter((o) => o === 'read').length > 50)
    await net.restartK(async () => until('failures', async () => outcomes.includes('chain/unreachable')))
    const before = outcomes.length
    await until('reads again', async () => outcomes.slice(before).filter((o) => o === 'read').length > 50)
    stop = true
    await Promise.all(load)
    rpc.close?.()
    // nothing but these ever came of it
    const allowed = [
      'read',
      'chain/unreachable',
      'chain/reorged',
      'chain/no-registry',
      'chain/stale',
      'chain/syncing',
      'chain/rpc',
    ]
    expect([...new Set(outcomes)].filter((o) => !allowed.includes(o))).toEqual([])
  })

  test('a node that joins later gets all blocks from its peers', async () => {
    const { geth, folder, genesis } = net
    const late = await startGeth({ geth, folder, genesis, chainId: CHAIN_ID, name: 'late' })
    try {
      await meet(late, net.a)
      const head = await tip(net.a)
      await until('the late node is there', async () => {
        await choose(late, head.hash)
        return (await tip(late)).hash === head.hash
      })
    } finally {
      await late.stop('SIGKILL')
    }
  })

  test('state older than 128 blocks is not to be had: nothing here reads any', async () => {
    await net.mine(130)
    const old = await net.k.rpc.call<{ hash: string; number: string }>('eth_getBlockByNumber', ['0x5', false])
    const reader = net.reader(3)
    const head = await reader.head()
    const past = { ...head, number: 5, hash: old.hash as `0x${string}` }
    await expect(reader.deviceOf(net.owner.address, past)).rejects.toBeInstanceOf(RpcError)
    expect(await reader.deviceOf(net.owner.address, head)).toBeUndefined()
  })
})
