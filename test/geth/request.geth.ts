/** A client's request on real geth, whose blocks the test makes: reorgs that take a puzzle's block, fees that are too low. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bindIntent, deployIntent } from '../../chain/deployments.ts'
import { setOfferIntent } from '../../chain/intents.ts'
import type { Journal } from '../../chain/journal.ts'
import { type RequestProgress, requestToken } from '../../chain/request.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import type { OpenTransaction } from '../../chain/transaction.ts'
import { accountFromKey } from '../../chain/wallet.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { ANVIL_KEYS } from '../../tools/anvil.ts'
import { until } from './engine.ts'
import { findGeth } from './geth-node.ts'
import { CHAIN_ID, Network } from './network.ts'

const found = findGeth()
if ('skipped' in found) console.log(`skipped: ${found.skipped}`)

describe.skipIf('skipped' in found)('a request on real geth', () => {
  let net: Network
  let device: Address
  let policy: Address
  const OFFER = 0

  beforeAll(async () => {
    net = await Network.start()
    device = (await net.keyServer(0)).device.address
    policy = (await net.send(deployIntent({ kind: 'puzzle', difficulty: 14 }))).contract as Address
    await net.send(bindIntent(policy, net.contract))
    const terms = { policy, resource: device, claims: 1, maxTtlSeconds: 3600, active: true }
    await net.send(setOfferIntent(net.contract, OFFER, terms))
    await net.mine(3)
  })
  afterAll(async () => net?.stop())

  class EventfulRpc extends JsonRpc {
    before: (method: string) => Promise<void> = async () => undefined
    override async call<T>(method: string, params: readonly unknown[] = []): Promise<T> {
      await this.before(method)
      return super.call<T>(method, params)
    }
  }

  function client(number: number, patienceSeconds = 60) {
    const rpc = new EventfulRpc({ url: net.a.url })
    const account = accountFromKey(ANVIL_KEYS[number] as string)
    const told: RequestProgress[] = []
    const sender = new TransactionSender({ rpc, chainId: CHAIN_ID, account, pollMs: 20, patienceSeconds })
    const reader = net.reader(0, rpc)
    const base = {
      reader,
      sender,
      contract: net.contract,
      offer: OFFER,
      onProgress: (p: RequestProgress) => told.push(p),
    }
    const times = (phase: RequestProgress['phase']): number => told.filter((p) => p.phase === phase).length
    return { rpc, account, told, base, times }
  }

  const pending = async (): Promise<number> =>
    Number((await net.a.rpc.call<{ pending: string }>('txpool_status')).pending)
  const waits = (count: number) => until('the transaction is in the pool', async () => (await pending()) >= count)

  test('a puzzle that is solved before the next block comes is a solution for the trial run too', async () => {
    const c = client(1)
    const asking = requestToken(c.base)
    await until('it is sent', async () => c.times('sent') === 1)
    await net.mine(1, { wanted: 1 })
    expect((await asking).token).toMatchObject({ claims: 1, serial: 1 })
    expect(c.times('puzzle-lost')).toBe(0)
  })

  test('a reorg before it is sent takes the block of the puzzle: it is solved again', async () => {
    const c = client(2)
    net.holdBack()
    await net.mine(3)
    let left = 1
    c.rpc.before = async (method) => {
      if (method === 'eth_estimateGas' && left-- > 0) await net.reorg(5)
    }
    const asking = requestToken(c.base)
    await until('it is sent', async () => c.times('sent') === 1)
    await waits(1)
    await net.mine(1, { wanted: 1 })
    expect((await asking).token).toMatchObject({ claims: 1, serial: 1 })
    expect(c.told.filter((p) => p.phase === 'puzzle-lost')).toMatchObject([{ attempt: 1, of: 3 }])
  })

  test('a reorg after it was mined takes both: it is refused in its new block, and asked again', async () => {
    const c = client(3)
    net.holdBack()
    await net.mine(3)
    const asking = requestToken({ ...c.base, confirmations: 3 })
    await until('it is sent', async () => c.times('sent') === 1)
    await net.mine(1, { wanted: 1 })
    await until('it is seen in its block', async () => c.times('confirming') >= 1)
    await net.reorg(6)
    await waits(1)
    await net.mine(1, { wanted: 1 })
    await until('it is sent again', async () => c.times('sent') === 2)
    await net.mine(1, { wanted: 1 })
    await net.mine(3)
    expect((await asking).token).toMatchObject({ claims: 1, serial: 1 })
    expect(c.times('puzzle-lost')).toBe(1)
  })

  test('what no block takes times out, and goes through with a higher fee', async () => {
    const kept = new Map<string, OpenTransaction>()
    const journal: Journal = {
      open: async (step) => kept.get(step),
      signed: async (step, transaction) => void kept.set(step, transaction),
      closed: async (step) => void kept.delete(step),
    }
    const c = client(4, 0.5)
    await expect(requestToken({ ...c.base, journal })).rejects.toMatchObject({ code: 'chain/not-mined' })
    const again = client(4)
    const asking = requestToken({ ...again.base, journal, raiseFee: true })
    await until('it is sent again', async () => again.times('sent') === 1)
    expect(kept.get('request')?.earlier).toHaveLength(1)
    // one took the place of the other
    expect(await pending()).toBe(1)
    await net.mine(1, { wanted: 1 })
    expect((await asking).token).toMatchObject({ claims: 1, serial: 1 })
    expect(kept.size).toBe(0)
  })

  test('two programs with one key at the same moment: both are mined', async () => {
    const [a, b] = [client(5), client(5)]
    const both = Promise.all([requestToken(a.base), requestToken(b.base)])
    await until('both are sent', async () => a.times('sent') >= 1 && b.times('sent') >= 1)
    await waits(2)
    await net.mine(1, { wanted: 2 })
    const receipts = (await both).map((g) => g.receipt.hash)
    expect(new Set(receipts).size).toBe(2)
  })
})
