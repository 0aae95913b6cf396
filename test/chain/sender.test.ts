import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { grantIntent, payIntent, revokeIntent, roleIntent } from '../../chain/intents.ts'
import { explainRevert, revertError } from '../../chain/revert.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import type { SendProgress } from '../../chain/transaction.ts'
import type { Hex } from '../../chain/types.ts'
import { createAccount } from '../../chain/wallet.ts'
import { type FakeNode, fakeNode } from './fake-node.ts'
import { createStage, type Stage } from './stage.ts'

/** What a node says that takes a transaction. */
const TAKING = {
  eth_chainId: '0x7',
  eth_getTransactionCount: '0x0',
  eth_getBalance: '0xffffffffffffffffff',
  eth_getBlockByNumber: { baseFeePerGas: '0x7' },
  eth_maxPriorityFeePerGas: '0x1',
  eth_estimateGas: '0x5208',
  eth_sendRawTransaction: '0x00',
}

let s: Stage
beforeAll(async () => {
  s = await createStage()
})
afterAll(async () => s?.stop())
afterEach(async () => {
  await s.rpc.call('evm_setAutomine', [true])
})

const client = createAccount().address
const grant = (seconds = 60) => grantIntent(s.contract, [client], s.device.address, seconds, 1)

describe('sending', () => {
  test('a quote is a trial run with a price', async () => {
    const quote = await s.senderOf(s.owner).quote(grant())
    expect(quote.gas).toBeGreaterThan(30_000n)
    expect(quote.total).toBe(quote.gas * quote.gasPrice)
    expect(quote.balance).toBeGreaterThan(quote.total)
    await expect(s.senderOf(s.client).quote(grant())).rejects.toMatchObject({
      code: 'chain/reverted',
      message: expect.stringContaining('does not have the role'),
    })
  })

  test('many at once by one account take their nonces in turn', async () => {
    const sender = s.senderOf(s.owner)
    const receipts = await Promise.all(Array.from({ length: 5 }, (_, i) => sender.send(grant(60 + i))))
    expect(new Set(receipts.map((r) => r.hash)).size).toBe(5)
  })

  test('two processes with the same key: nobody loses', async () => {
    const [a, b] = [s.senderOf(s.owner), s.senderOf(s.owner)]
    const receipts = await Promise.all([a.send(grant(100)), b.send(grant(200)), a.send(grant(300)), b.send(grant(400))])
    expect(new Set(receipts.map((r) => r.hash)).size).toBe(4)
  })

  test('a refusal that happens only in the block carries its reason', async () => {
    // both look fine when they are sent; the second meets the state that the first left behind
    const device = createAccount()
    const other = s.client.address
    await s.senderOf(s.owner).send(roleIntent(s.contract, 'authorization-server', other, true))
    await s.rpc.call('evm_setAutomine', [false])
    const dismissal = s.senderOf(s.owner).send(roleIntent(s.contract, 'authorization-server', other, false))
    await new Promise((resolve) => setTimeout(resolve, 100))
    // lower fee: mined after the dismissal
    const late = s.senderOf(s.client).send(grantIntent(s.contract, [client], device.address, 60, 1))
    const failure = expect(late).rejects.toMatchObject({
      code: 'chain/reverted',
      message: expect.stringContaining('does not have the role'),
    })
    await new Promise((resolve) => setTimeout(resolve, 100))
    await s.mine(1)
    await dismissal
    await failure
  })

  test('one that is never mined', async () => {
    await s.rpc.call('evm_setAutomine', [false])
    const sender = new TransactionSender({
      rpc: s.rpc,
      chainId: s.anvil.chainId,
      account: s.owner,
      pollMs: 10,
      patienceSeconds: 0.2,
    })
    await expect(sender.send(grant())).rejects.toMatchObject({
      code: 'chain/not-mined',
      hint: expect.stringContaining('same command again'),
    })
    await s.mine(1)
  })

  test('one that was cut off goes on, and is not sent twice', async () => {
    await s.rpc.call('evm_setAutomine', [false])
    const stop = new AbortController()
    let raw: Hex = '0x'
    const cutOff = s.senderOf(s.owner).send(grant(777), {
      signal: stop.signal,
      onProgress: (p) => {
        if (p.phase === 'signed') raw = p.raw
        if (p.phase === 'sent') stop.abort()
      },
    })
    await expect(cutOff).rejects.toMatchObject({ name: 'AbortError' })
    const before = await s.rpc.call<Hex>('eth_getTransactionCount', [s.owner.address, 'pending'])
    const going = s.senderOf(s.owner).resume(grant(777), { raw })
    await new Promise((resolve) => setTimeout(resolve, 50))
    await s.mine(1)
    expect((await going)?.hash).toMatch(/^0x/)
    expect(await s.rpc.call('eth_getTransactionCount', [s.owner.address, 'pending'])).toBe(before)
    // also after it was mined
    expect((await s.senderOf(s.owner).resume(grant(777), { raw }))?.hash).toBe((await going)?.hash)
  })

  test('one whose place was taken can never be mined', async () => {
    await s.rpc.call('evm_setAutomine', [false])
    let raw: Hex = '0x'
    const cutOff = s.senderOf(s.owner).send(grant(1), {
      onProgress: (p) => {
        if (p.phase !== 'signed') return
        raw = p.raw
        throw new Error('power cut')
      },
    })
    await expect(cutOff).rejects.toThrow('power cut')
    await s.rpc.call('evm_setAutomine', [true])
    await s.senderOf(s.owner).send(grant(2))
    expect(await s.senderOf(s.owner).resume(grant(1), { raw })).toBeUndefined()
  })

  test('confirmations are counted', async () => {
    const seen: number[] = []
    const going = s.senderOf(s.owner).send(payIntent(client, 1n), {
      confirmations: 3,
      onProgress: (p: SendProgress) => {
        if (p.phase === 'confirming') seen.push(p.depth)
      },
    })
    await expect.poll(() => seen.length).toBeGreaterThan(0)
    for (let i = 0; i < 3; i++) {
      await s.mine(1)
      await expect.poll(() => seen.at(-1)).toBe(i + 1)
    }
    expect((await going).gasUsed).toBe(21_000n)
    expect(seen).toEqual([0, 1, 2, 3])
  })

  test('without money', async () => {
    const poor = createAccount()
    await expect(s.senderOf(poor).send(payIntent(client, 1n))).rejects.toMatchObject({
      code: 'chain/no-funds',
      hint: expect.stringContaining(poor.address),
    })
    await s.rpc.call('anvil_setBalance', [poor.address, '0x1000'])
    await expect(
      s.senderOf(poor).send(revokeIntent(s.contract, [poor.address], s.device.address)),
    ).rejects.toMatchObject({ code: 'chain/no-funds' })
  })

  test('on the wrong chain nothing is signed', async () => {
    const sender = new TransactionSender({ rpc: s.rpc, chainId: 1, account: s.owner })
    await expect(sender.send(grant())).rejects.toMatchObject({ code: 'chain/wrong-chain' })
  })

  test('a node that goes away while one waits', async () => {
    let away = false
    const node = await fakeNode({})
    node.raw = (body) => {
      if (away) return 'drop'
      const calls = [JSON.parse(body)].flat() as { id: number; method: string }[]
      const results: Record<string, unknown> = {
        ...TAKING,
        eth_blockNumber: '0x5',
        eth_getTransactionReceipt: looks++ < 1 ? null : { status: '0x1', blockNumber: '0x5', gasUsed: '0x5208' },
      }
      if (calls.some((c) => c.method === 'eth_getTransactionReceipt') && looks === 1) {
        away = true
        setTimeout(() => {
          away = false
        }, 60)
      }
      const answers = calls.map((c) => ({ jsonrpc: '2.0', id: c.id, result: results[c.method] }))
      return { body: JSON.stringify(answers.length === 1 ? answers[0] : answers) }
    }
    let looks = 0
    const sender = new TransactionSender({
      rpc: new JsonRpc({ url: node.url }),
      chainId: 7,
      account: createAccount(),
      pollMs: 10,
    })
    expect((await sender.send(payIntent(client, 1n))).block).toBe(5)
    await node.stop()
  })
})

describe('a node that takes questions and answers none any more', () => {
  async function silent(patienceSeconds: number): Promise<{ sender: TransactionSender; node: FakeNode }> {
    const node = await fakeNode(TAKING)
    node.raw = (body) => (body.includes('eth_getTransactionReceipt') ? 'hang' : undefined)
    onTestFinished(() => node.stop())
    const rpc = new JsonRpc({ url: node.url, timeoutMs: 3600_000 })
    return {
      sender: new TransactionSender({ rpc, chainId: 7, account: createAccount(), pollMs: 10, patienceSeconds }),
      node,
    }
  }

  test('is waited for no longer than the patience', async () => {
    const { sender } = await silent(0.2)
    await expect(sender.send(payIntent(client, 1n))).rejects.toMatchObject({ code: 'chain/not-mined' })
  })

  test('keeps nobody from giving up', async () => {
    const { sender } = await silent(3600)
    const stop = new AbortController()
    const onProgress = (p: SendProgress): void => {
      if (p.phase === 'sent') setTimeout(() => stop.abort(), 50)
    }
    await expect(sender.send(payIntent(client, 1n), { signal: stop.signal, onProgress })).rejects.toMatchObject({
      name: 'AbortError',
    })
  })
})

describe('what a contract said', () => {
  test.each([
    ['nothing', undefined, 'no reason was given'],
    ['an empty revert', '0x', 'no reason was given'],
    [
      'a text',
      '0x08c379a0000000000000000000000000000000000000000000000000000000000000002000000000000000000000000000000000000000000000000000000000000000026e6f000000000000000000000000000000000000000000000000000000000000',
      'no',
    ],
    [
      'a panic',
      '0x4e487b710000000000000000000000000000000000000000000000000000000000000011',
      'the contract stopped with panic 11',
    ],
    ['an unknown error', '0xdeadbeef', 'for a reason that is not known here (0xdeadbeef)'],
  ] as const)('%s', (_, data, sentence) => {
    expect(explainRevert(data).sentence).toBe(sentence)
    expect(revertError('x', data).message).toBe(`x was refused: ${sentence}`)
  })

  test('octets of a text that are not printable', () => {
    const { sentence } = explainRevert(
      '0x08c379a0000000000000000000000000000000000000000000000000000000000000002000000000000000000000000000000000000000000000000000000000000000021b5b000000000000000000000000000000000000000000000000000000000000',
    )
    expect(sentence).toBe('?[')
  })
})
