/** Requests that a reorg, a power cut or a low fee stopped half way: nothing is paid twice, and nothing is lost. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { erc20 } from '../../chain/contracts.ts'
import type { Journal } from '../../chain/journal.ts'
import { type RequestProgress, requestToken, type TokenRequestOptions } from '../../chain/request.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import type { OpenTransaction } from '../../chain/transaction.ts'
import type { Hex } from '../../chain/types.ts'
import { type Account, createAccount, readTransaction } from '../../chain/wallet.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { deployCoinIntent } from './coin.ts'
import { CHAIN_ID, createStage, type Stage } from './stage.ts'

let s: Stage
beforeAll(async () => {
  s = await createStage()
})
afterAll(async () => s?.stop())
afterEach(async () => {
  await s.rpc.call('evm_setAutomine', [true])
})

/** A node between whose answers something happens. */
class EventfulRpc extends JsonRpc {
  before: (method: string) => Promise<void> = async () => undefined
  override async call<T>(method: string, params: readonly unknown[] = []): Promise<T> {
    await this.before(method)
    return super.call<T>(method, params)
  }
}

function senderOf(account: Account, patienceSeconds = 5): { sender: TransactionSender; rpc: EventfulRpc } {
  const rpc = new EventfulRpc({ url: s.anvil.url })
  return { rpc, sender: new TransactionSender({ rpc, chainId: CHAIN_ID, account, pollMs: 10, patienceSeconds }) }
}

async function funded(): Promise<Account> {
  const account = createAccount()
  await s.rpc.call('anvil_setBalance', [account.address, '0x8ac7230489e80000'])
  return account
}

/** What a program keeps in a file. */
function journal(): Journal & { readonly kept: Map<string, OpenTransaction> } {
  const kept = new Map<string, OpenTransaction>()
  return {
    kept,
    open: async (step) => kept.get(step),
    signed: async (step, transaction) => void kept.set(step, transaction),
    closed: async (step) => void kept.delete(step),
  }
}

const balanceOf = async (address: Address): Promise<bigint> =>
  BigInt(await s.rpc.call<Hex>('eth_getBalance', [address, 'latest']))

async function tokenOf(client: Address) {
  const [token] = await s.reader.atHead((head) => s.reader.tokensOf(s.contract, s.device.address, [client], head))
  return token
}

describe('a puzzle whose block a reorg took', () => {
  /** Each time `method` is called, the newest blocks are replaced by others, `times` times. */
  async function request(method: string, times: number) {
    const offer = await s.offer(await s.deployPolicy({ kind: 'puzzle', difficulty: 14 }))
    const client = await funded()
    await s.mine(20)
    const { sender, rpc } = senderOf(client)
    let left = times
    rpc.before = async (called) => {
      if (called === method && left-- > 0) await s.rpc.call('anvil_reorg', [2, []])
    }
    const told: RequestProgress[] = []
    const asking = requestToken({
      reader: s.reader,
      sender,
      contract: s.contract,
      offer,
      onProgress: (p) => told.push(p),
    })
    return { asking, told, client: client.address }
  }

  test('before the request was sent: it is solved again', async () => {
    const { asking, told, client } = await request('eth_estimateGas', 1)
    expect((await asking).token).toMatchObject({ claims: 1, serial: 1 })
    expect(told.filter((p) => p.phase === 'puzzle-lost')).toMatchObject([{ attempt: 1, of: 3 }])
    expect((await tokenOf(client))?.serial).toBe(1)
  })

  test('when it was on its way: its refusal costs gas, and it is solved again', async () => {
    const { asking, told } = await request('eth_sendRawTransaction', 1)
    expect((await asking).token).toMatchObject({ claims: 1, serial: 1 })
    expect(told.filter((p) => p.phase === 'puzzle-lost')).toHaveLength(1)
    expect(told.filter((p) => p.phase === 'sent')).toHaveLength(2)
  })

  test('again and again: three times, then it is said', async () => {
    const { asking, told, client } = await request('eth_estimateGas', 9)
    await expect(asking).rejects.toMatchObject({
      code: 'chain/puzzle-lost',
      hint: expect.stringContaining('again later'),
    })
    expect(told.filter((p) => p.phase === 'puzzle-lost')).toHaveLength(2)
    expect((await tokenOf(client))?.serial).toBe(0)
  })

  test('a refusal for another reason is not tried again, and its reason shown', async () => {
    const puzzle = await s.deployPolicyUnbound({ kind: 'puzzle', difficulty: 4 })
    const quota = await s.deployPolicyUnbound({ kind: 'quota', periodSeconds: 86_400, perClient: 1, total: 10 })
    const all = await s.deployPolicyUnbound({ kind: 'all-of', parts: [puzzle, quota] })
    for (const part of [puzzle, quota]) await s.bind(part, all)
    await s.bind(all, s.contract)
    const offer = await s.offer(all)
    const { sender } = senderOf(await funded())
    const told: RequestProgress[] = []
    const ask = () =>
      requestToken({ reader: s.reader, sender, contract: s.contract, offer, onProgress: (p) => told.push(p) })
    await ask()
    await expect(ask()).rejects.toMatchObject({
      code: 'chain/reverted',
      message: expect.stringContaining('quota'),
    })
    expect(told.some((p) => p.phase === 'puzzle-lost')).toBe(false)
  })
})

const PRICE = 7_000n

describe('a paid request that was cut off and is repeated', () => {
  class PowerCut extends Error {}

  /** Runs it to the cut, then again without one. @returns what the policy has earned in the end */
  async function cutAt(
    cut: (o: {
      rpc: EventfulRpc
      options: { -readonly [K in keyof TokenRequestOptions]: TokenRequestOptions[K] }
    }) => void,
  ) {
    const policy = await s.deployPolicy({
      kind: 'payment-ether',
      payee: s.owner.address,
      fixed: PRICE,
      perSecond: 0n,
    })
    const offer = await s.offer(policy)
    const client = await funded()
    const kept = journal()
    const base = { reader: s.reader, contract: s.contract, offer, evidence: { payAtMost: PRICE }, journal: kept }
    const first = senderOf(client)
    const options = { ...base, sender: first.sender }
    cut({ rpc: first.rpc, options })
    await expect(requestToken(options)).rejects.toThrow(PowerCut)
    await s.rpc.call('evm_setAutomine', [true])
    await s.mine(1)
    const granted = await requestToken({ ...base, sender: senderOf(client).sender })
    expect(kept.kept.size).toBe(0)
    expect(granted.paid).toBe(PRICE)
    expect((await tokenOf(client.address))?.serial).toBe(1)
    // and another one afterwards is another one
    expect((await requestToken({ ...base, sender: senderOf(client).sender })).token.serial).toBe(2)
    return (await balanceOf(policy)) - PRICE
  }
  const powerCut = async (): Promise<never> => {
    throw new PowerCut('power cut')
  }

  test('before anything was signed', async () => {
    expect(
      await cutAt(({ rpc }) => {
        rpc.before = (method) => (method === 'eth_estimateGas' ? powerCut() : Promise.resolve())
      }),
    ).toBe(PRICE)
  })

  test('between signing and sending', async () => {
    expect(
      await cutAt(({ rpc }) => {
        rpc.before = (method) => (method === 'eth_sendRawTransaction' ? powerCut() : Promise.resolve())
      }),
    ).toBe(PRICE)
  })

  test('sent, and not yet in a block', async () => {
    expect(
      await cutAt(({ rpc }) => {
        rpc.before = async (method) => {
          if (method === 'eth_sendRawTransaction') await s.rpc.call('evm_setAutomine', [false])
          if (method === 'eth_getTransactionReceipt') await powerCut()
        }
      }),
    ).toBe(PRICE)
  })

  test('in a block, and not yet looked at', async () => {
    expect(
      await cutAt(({ rpc }) => {
        rpc.before = (method) => (method === 'eth_getTransactionReceipt' ? powerCut() : Promise.resolve())
      }),
    ).toBe(PRICE)
  })

  test('granted, and not yet written down', async () => {
    expect(
      await cutAt(({ options }) => {
        options.onGranted = powerCut
      }),
    ).toBe(PRICE)
  })
})

describe('a request that a currency pays', () => {
  test('allows the price once, pays it once, wherever it is cut off', async () => {
    const currency = (await s.senderOf(s.owner).send(deployCoinIntent())).contract as Address
    const policy = await s.deployPolicy({
      kind: 'payment-token',
      currency,
      payee: s.owner.address,
      fixed: 250n,
      perSecond: 0n,
    })
    const offer = await s.offer(policy)
    const client = await funded()
    const give = {
      what: 'some coins',
      to: currency,
      data: erc20.encode('transfer' as never, [client.address, 600n] as never),
    }
    await s.senderOf(s.owner).send(give)
    const kept = journal()
    const base = { reader: s.reader, contract: s.contract, offer, journal: kept }
    const coins = (of: Address): Promise<bigint> =>
      s.reader.atHead((head) => s.reader.read(erc20, currency, 'balanceOf', [of], head))
    await expect(requestToken({ ...base, sender: senderOf(client).sender })).rejects.toMatchObject({
      code: 'chain/too-dear',
      message: expect.stringContaining('250 units'),
    })
    const poor = await funded()
    await expect(
      requestToken({ ...base, evidence: { payAtMost: 250n }, sender: senderOf(poor).sender }),
    ).rejects.toMatchObject({ code: 'chain/no-funds', message: expect.stringContaining('owns 0 units') })
    expect(await s.rpc.call('eth_getTransactionCount', [poor.address, 'latest'])).toBe('0x0')
    const paying = { ...base, evidence: { payAtMost: 250n } }
    let sent = 0
    for (const cut of [1, 2, 3]) {
      const { sender, rpc } = senderOf(client)
      let seen = 0
      rpc.before = async (method) => {
        if (method === 'eth_sendRawTransaction') sent++
        if (method === 'eth_getTransactionReceipt' && ++seen === cut) throw new Error('power cut')
      }
      await requestToken({ ...paying, sender }).catch((error: Error) => expect(error.message).toBe('power cut'))
    }
    const granted = await requestToken({ ...paying, sender: senderOf(client).sender })
    expect(granted.token.serial).toBe(1)
    expect(await coins(client.address)).toBe(350n)
    expect(sent).toBe(2)
    expect(kept.kept.size).toBe(0)
  })
})

describe('a transaction that is not mined', () => {
  test('times out with what to do, and goes through with a higher fee', async () => {
    const offer = await s.offer(await s.deployPolicy({ kind: 'open' }))
    const client = await funded()
    await s.rpc.call('evm_setAutomine', [false])
    const kept = journal()
    const base = { reader: s.reader, contract: s.contract, offer, journal: kept }
    await expect(requestToken({ ...base, sender: senderOf(client, 0.1).sender })).rejects.toMatchObject({
      code: 'chain/not-mined',
      hint: expect.stringContaining('--raise-fee'),
    })
    const before = readTransaction((kept.kept.get('request') as OpenTransaction).raw)
    const told: RequestProgress[] = []
    const again = requestToken({
      ...base,
      sender: senderOf(client).sender,
      raiseFee: true,
      onProgress: (p) => told.push(p),
    })
    await expect.poll(() => told.map((p) => p.phase)).toEqual(['resumed', 'sent'])
    const { raw, earlier } = kept.kept.get('request') as OpenTransaction
    const after = readTransaction(raw)
    expect(after).toMatchObject({ nonce: before.nonce, data: before.data, to: before.to })
    expect(after.maxFeePerGas).toBeGreaterThan(((before.maxFeePerGas as bigint) * 11n) / 10n)
    expect(after.maxPriorityFeePerGas).toBeGreaterThan(((before.maxPriorityFeePerGas as bigint) * 11n) / 10n)
    expect(earlier).toHaveLength(1)
    await s.mine(1)
    expect((await again).token.serial).toBe(1)
  })

  test('one with a lower fee that was mined all the same counts', async () => {
    const offer = await s.offer(await s.deployPolicy({ kind: 'open' }))
    const client = await funded()
    const kept = journal()
    const { sender, rpc } = senderOf(client)
    rpc.before = async (method) => {
      if (method === 'eth_getTransactionReceipt') throw new Error('power cut')
    }
    const base = { reader: s.reader, contract: s.contract, offer, journal: kept }
    await expect(requestToken({ ...base, sender })).rejects.toThrow('power cut')
    const { raw } = kept.kept.get('request') as OpenTransaction
    const [mined] = (await s.rpc.call<{ transactions: Hex[] }>('eth_getBlockByNumber', ['latest', false])).transactions
    // the dearer one was signed, and the cheaper mined before it arrived
    const dearer = await client.signTransaction({ ...readTransaction(raw), maxFeePerGas: 10n ** 10n })
    kept.kept.set('request', { raw: dearer, earlier: [mined as Hex] })
    const granted = await requestToken({ ...base, sender: senderOf(client).sender })
    expect(granted.receipt.hash).toBe(mined)
    expect(granted.token.serial).toBe(1)
  })
})
