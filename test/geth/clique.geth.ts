import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { deployIntent } from '../../chain/deployments.ts'
import { grantIntent } from '../../chain/intents.ts'
import { ChainReader } from '../../chain/reader.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { decide } from '../../chain/rule.ts'
import { TransactionSender } from '../../chain/sender.ts'
import { NO_TOKEN } from '../../chain/types.ts'
import { accountFromKey } from '../../chain/wallet.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { ANVIL_KEYS } from '../../tools/anvil.ts'
import { until } from './engine.ts'
import { CHAIN_ID } from './network.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const PROGRAM = join(ROOT, 'deploy/network/clique.mjs')

const found = spawnSync(process.execPath, [join(ROOT, 'tools/geth.mjs'), 'clique'], { encoding: 'utf8' }).stdout.trim()
const skipped = found.startsWith('skipped') ? found : undefined
if (skipped !== undefined) console.log(skipped)

describe.skipIf(skipped !== undefined)('three full nodes, Clique with three signers', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ic-'))
  const owner = accountFromKey(ANVIL_KEYS[0] as string)
  let url: string
  let registry: Address
  let contract: Address

  function network(...args: string[]): string {
    const run = spawnSync(process.execPath, [PROGRAM, ...args, '--folder', join(folder, 'net'), '--json'], {
      encoding: 'utf8',
    })
    if (run.status !== 0) throw new Error(`${args.join(' ')}: ${run.stderr}`)
    return run.stdout
  }
  const nodes = (): { name: string; url: string; latest?: number; peers?: number }[] =>
    JSON.parse(network('status')).nodes
  const latestOf = (name: string): number => nodes().find((n) => n.name === name)?.latest ?? 0
  const reader = (confirmations: number | 'finalized') =>
    new ChainReader({ rpc: new JsonRpc({ url }), chainId: CHAIN_ID, registry, confirmations })

  beforeAll(async () => {
    network('up')
    url = nodes().find((n) => n.name === 'k')?.url ?? ''
    const sender = new TransactionSender({ rpc: new JsonRpc({ url }), chainId: CHAIN_ID, account: owner, pollMs: 200 })
    registry = (await sender.send(deployIntent({ kind: 'registry' }))).contract as Address
    const token = deployIntent({ kind: 'access-token', owner: owner.address, resource: owner.address })
    contract = (await sender.send(token)).contract as Address
  })
  afterAll(() => {
    network('down')
    rmSync(folder, { recursive: true, force: true })
  })

  test('a grant on the key server\u2019s node is read there after its confirmations', async () => {
    const sender = new TransactionSender({ rpc: new JsonRpc({ url }), chainId: CHAIN_ID, account: owner, pollMs: 200 })
    const { block } = await sender.send(grantIntent(contract, [owner.address], owner.address, 600, 1), {
      confirmations: 3,
    })
    const view = reader(3)
    const head = await view.head()
    const [token] = await view.tokensOf(contract, owner.address, [owner.address], head)
    expect(token?.grantBlock).toBe(block)
    expect(decide(undefined, token ?? NO_TOKEN, head, 3, head.timestamp).status).toBe('good')
  })

  test('there is no finality here, and that is said', async () => {
    await expect(reader('finalized').head()).rejects.toMatchObject({
      code: 'chain/never-final',
      hint: expect.stringContaining('number of confirmations'),
    })
  })

  test.each(['a', 'b'])('node %s may be away, and comes back', async (name) => {
    network('stop', name)
    const before = latestOf('k')
    await until('blocks go on', async () => latestOf('k') >= before + 8, 60_000)
    network('start', name)
    await until(
      'it has caught up',
      async () => Math.abs(latestOf(name) - latestOf('k')) <= 2 && latestOf(name) > before,
      60_000,
    )
  })

  test('the key server\u2019s own node is restarted: it is not believed while it is away', async () => {
    const view = reader(3)
    network('stop', 'k')
    await expect(view.head()).rejects.toMatchObject({ code: 'chain/unreachable' })
    network('start', 'k')
    const before = latestOf('a')
    await until('it is read again', async () => (await view.head()).number >= before, 60_000)
  })
})
