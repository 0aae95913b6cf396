/**
 * A key server on the third node of a proof-of-stake network (the paper's Fig. 3 and its future work): what finality means
 * for an admission, and what happens while one of the two validating nodes is away.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { deployIntent } from '../../chain/deployments.ts'
import { grantIntent } from '../../chain/intents.ts'
import { ChainReader } from '../../chain/reader.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import type { Confirmations } from '../../chain/types.ts'
import { accountFromKey } from '../../chain/wallet.ts'
// @ts-expect-error: a tool that runs before the build has no declarations
import { findLodestar, unfit } from '../../deploy/pos/install.mjs'
import type { Address } from '../../protocol/messages/address.ts'
import { ANVIL_KEYS } from '../../tools/anvil.ts'
import { until } from '../geth/engine.ts'
import { findGeth } from '../geth/geth-node.ts'
import { CHAIN_ID, registrationOf } from '../geth/network.ts'
import type { FakeChain } from '../keyserver/fake-chain.ts'
import { createWorld, type Reply, TestClient, TestDevice, type World } from '../keyserver/harness.ts'
import { TestClock } from '../keyserver/test-clock.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const PROGRAM = join(ROOT, 'deploy/pos/network.mjs')
const DEPTH = 3

function missing(): string | undefined {
  const geth = findGeth()
  if ('skipped' in geth) return geth.skipped
  if (unfit() !== undefined) return unfit()
  return findLodestar() === undefined ? 'Lodestar is not installed: run `node deploy/pos/install.mjs`' : undefined
}

const reason = missing()
if (reason !== undefined) console.log(`skipped: ${reason}`)

interface Status {
  readonly finality?: { epoch: number; finalizedEpoch: number; stalled: boolean }
  readonly nodes: readonly { name: string; url: string; latest?: number; finalized?: number; peers?: number }[]
}

describe.skipIf(reason !== undefined)('three full nodes, proof of stake', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ip-'))
  const owner = accountFromKey(ANVIL_KEYS[0] as string)
  const worlds: World[] = []
  let url: string
  let sender: TransactionSender
  let registry: Address
  let contract: Address

  function network(...args: string[]): string {
    const run = spawnSync(process.execPath, [PROGRAM, ...args, '--folder', join(folder, 'net'), '--json'], {
      encoding: 'utf8',
    })
    if (run.status !== 0) throw new Error(`${args.join(' ')}: ${run.stderr}`)
    return run.stdout
  }
  const status = (): Status => JSON.parse(network('status')) as Status
  const nodeK = () => status().nodes.find((n) => n.name === 'k') as Status['nodes'][number]

  beforeAll(async () => {
    network('up')
    url = nodeK().url
    sender = new TransactionSender({ rpc: new JsonRpc({ url }), chainId: CHAIN_ID, account: owner, pollMs: 200 })
    registry = (await sender.send(deployIntent({ kind: 'registry' }))).contract as Address
    const token = deployIntent({ kind: 'access-token', owner: owner.address, resource: owner.address })
    contract = (await sender.send(token)).contract as Address
  })
  afterAll(async () => {
    await Promise.all(worlds.map((w) => w.close()))
    if (existsSync(join(folder, 'net'))) network('down')
    rmSync(folder, { recursive: true, force: true })
  })

  /** A key server of its own that waits for this much, and its device. */
  async function keyServer(confirmations: Confirmations): Promise<(client: number) => Promise<Reply>> {
    const clock = new TestClock(Math.floor(Date.now() / 1000))
    const reader = new ChainReader({
      rpc: new JsonRpc({ url }),
      chainId: CHAIN_ID,
      registry,
      confirmations,
      nowMs: () => clock.nowMs(),
    })
    const world = await createWorld({
      clock,
      chain: () => Object.assign(reader, { mine: () => undefined }) as unknown as FakeChain,
      config: { owners: [owner.address], chain: { rpcUrl: url, id: CHAIN_ID, registry, confirmations } },
    })
    worlds.push(world)
    const device = await TestDevice.create(world, 1, { register: false })
    const known = new ChainReader({ rpc: new JsonRpc({ url }), chainId: CHAIN_ID, registry, confirmations: 0 })
    if ((await known.atHead((h) => known.deviceOf(device.address, h))) === undefined) {
      await sender.send(registrationOf(device, owner.address, registry, contract), { confirmations: DEPTH })
    }
    return async (number) => {
      clock.pass(Math.max(0, Math.floor(Date.now() / 1000) - clock.seconds))
      const client = new TestClient(world, number)
      const challenge = await client.authz(device, [0])
      return challenge.text === '2.01' ? client.tryJoin(device) : challenge
    }
  }

  const grantTo = async (number: number): Promise<number> => {
    const world = worlds[0] as World
    const device = await TestDevice.create(world, 1, { register: false })
    const { address } = new TestClient(world, number)
    return (await sender.send(grantIntent(contract, [address], device.address, 7200, 1), { confirmations: DEPTH }))
      .block
  }

  test('finalized waits for finality, n admits meanwhile; with a validating node away it goes on waiting; then it goes on', async () => {
    const byDepth = await keyServer(DEPTH)
    const byFinality = await keyServer('finalized')
    // the device's own registration has to be final before anything else can be
    await until('the first finalized blocks', async () => (nodeK().finalized ?? 0) > 8, 200_000)

    const first = await grantTo(21)
    expect((await byDepth(21)).text).toBe('2.01')
    if ((nodeK().finalized ?? 0) < first) expect((await byFinality(21)).text).toBe('5.03')
    await until('the grant is final', async () => (nodeK().finalized ?? 0) >= first, 200_000)
    expect((await byFinality(21)).text).toBe('2.01')

    // one of two validating nodes goes: half of the slots have blocks, and nothing becomes final
    network('stop', 'b')
    const second = await grantTo(22)
    const stalled = nodeK()
    expect((await byDepth(22)).text).toBe('2.01')
    expect((await byFinality(22)).text).toBe('5.03')
    const before = stalled.latest ?? 0
    await until('blocks go on', async () => (nodeK().latest ?? 0) >= before + 10, 120_000)
    expect(nodeK().finalized).toBeLessThan(second)
    expect(status().finality).toMatchObject({ stalled: true })
    expect((await byFinality(22)).text).toBe('5.03')

    // it comes back, and so does finality
    network('start', 'b')
    await until('final again', async () => (nodeK().finalized ?? 0) >= second, 240_000)
    expect((await byFinality(22)).text).toBe('2.01')
    expect(status().nodes.every((n) => (n.peers ?? 0) >= 1)).toBe(true)
  }, 900_000)

  test('after all nodes were away at once: a new beacon chain on what geth has', async () => {
    const before = nodeK().latest ?? 0
    network('reanchor')
    await until('blocks go on', async () => (nodeK().latest ?? 0) > before + 3, 120_000)
    // what was granted before is still granted
    const reader = new ChainReader({
      rpc: new JsonRpc({ url: nodeK().url }),
      chainId: CHAIN_ID,
      registry,
      confirmations: DEPTH,
    })
    const { address } = new TestClient(worlds[0] as World, 21)
    const device = await TestDevice.create(worlds[0] as World, 1, { register: false })
    const [token] = await reader.atHead((h) => reader.tokensOf(contract, device.address, [address], h))
    expect(token?.claims).toBe(1)
  }, 300_000)
})
