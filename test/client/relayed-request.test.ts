/** A request through a relay that was cut off, and one whose puzzle a reorg took: the relay pays once. */
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { requestTokenForIntent } from '../../chain/intents.ts'
import { offerOf } from '../../chain/offers.ts'
import { createAccount } from '../../chain/wallet.ts'
import type { KeyServerSession } from '../../client/keyserver-session.ts'
import type { RelayRecord } from '../../client/relay-record.ts'
import { type RelayProgress, requestThroughRelay } from '../../client/relayed-request.ts'
import { fromHex, toHex } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { addressHex } from '../../protocol/messages/address.ts'
import { type RelayRequest, solvesRelayPuzzle } from '../../protocol/messages/relay.ts'
import { systemClock } from '../../runtime/clock.ts'
import { createStage, type Stage } from '../chain/stage.ts'

let s: Stage
beforeAll(async () => {
  s = await createStage()
})
afterAll(async () => s?.stop())

const DIFFICULTY = 4

/** The key server's relay as the client sees it: the same signed request gets the same transaction. */
class PlayedRelay {
  readonly known = new Map<string, Uint8Array>()
  paid = 0
  before: () => Promise<void> = async () => undefined
  after: () => Promise<void> = async () => undefined

  async relayTask() {
    return { challenge: new Uint8Array(randomBytes(32)), exi: 300, difficulty: DIFFICULTY }
  }

  async relay(r: RelayRequest): Promise<Uint8Array> {
    if (!solvesRelayPuzzle(r, r.solution, DIFFICULTY)) throw new IotchainError('client/forbidden', 'not solved')
    const key = toHex(r.signature)
    const before = this.known.get(key)
    if (before !== undefined) return before
    await this.before()
    const { offer, ttlSeconds, proof, deadline, signature } = r
    const request = {
      client: addressHex(r.client),
      offer,
      ttlSeconds,
      proof: `0x${toHex(proof)}` as const,
      deadline,
      signature,
    }
    const receipt = await s
      .senderOf(s.owner)
      .send(requestTokenForIntent(addressHex(r.contract), request, 0n))
      .catch((cause: Error) => {
        throw new IotchainError('client/forbidden', `the relay was refused: ${cause.message}`)
      })
    this.paid++
    this.known.set(key, fromHex(receipt.hash))
    await this.after()
    return fromHex(receipt.hash)
  }
}

async function stand() {
  const id = await s.offer(await s.deployPolicy({ kind: 'puzzle', difficulty: 14 }))
  await s.mine(20)
  const account = createAccount()
  const relay = new PlayedRelay()
  let record: RelayRecord | undefined
  const told: RelayProgress[] = []
  const offer = await s.reader.atHead((head) => offerOf(s.reader, s.contract, id, head))
  const ask = (onGranted: () => Promise<void> = async () => undefined) =>
    requestThroughRelay({
      session: relay as unknown as KeyServerSession,
      reader: s.reader,
      rpc: s.rpc,
      account,
      clock: systemClock,
      offer,
      ttlSeconds: 600,
      evidence: {},
      confirmations: 0,
      allowContracts: [],
      keeper: {
        load: async () => record,
        save: async (change) => {
          record = { client: account.address, contract: s.contract, offer: id, fresh: true, ...change }
        },
        clear: async () => {
          record = undefined
        },
      },
      onGranted,
      onProgress: (p) => told.push(p),
      signal: new AbortController().signal,
    })
  return { relay, told, ask, kept: () => record, account }
}

const cut = async (): Promise<never> => {
  throw new Error('power cut')
}

describe('a relayed request', () => {
  test('that was cut off before the relay had it is given to it once', async () => {
    const { relay, ask, kept, told } = await stand()
    relay.before = cut
    await expect(ask()).rejects.toThrow('power cut')
    expect(kept()?.signed).toBeDefined()
    relay.before = async () => undefined
    expect((await ask()).token).toMatchObject({ claims: 1, serial: 1 })
    expect(told.map((p) => p.phase)).toContain('resumed')
    expect(relay.paid).toBe(1)
    expect(kept()).toBeUndefined()
  })

  test('that was cut off before the relay\u2019s answer came is not paid for twice', async () => {
    const { relay, ask, account } = await stand()
    relay.after = cut
    await expect(ask()).rejects.toThrow('power cut')
    relay.after = async () => undefined
    expect((await ask()).token.serial).toBe(1)
    expect(relay.paid).toBe(1)
    expect(BigInt(await s.rpc.call<string>('eth_getBalance', [account.address, 'latest']))).toBe(0n)
  })

  test('that was granted and not written down is written down, and another one afterwards is another one', async () => {
    const { relay, ask, kept } = await stand()
    await expect(ask(cut)).rejects.toThrow('power cut')
    expect((await ask()).transaction).toMatch(/^0x/)
    expect(relay.paid).toBe(1)
    expect(kept()).toBeUndefined()
    expect((await ask()).token.serial).toBe(2)
    expect(relay.paid).toBe(2)
  })

  test('whose puzzle a reorg took is solved and signed again; three times, then it is said', async () => {
    const once = await stand()
    let left = 1
    once.relay.before = async () => {
      if (left-- > 0) await s.rpc.call('anvil_reorg', [2, []])
    }
    expect((await once.ask()).token.serial).toBe(1)
    expect(once.told.filter((p) => p.phase === 'puzzle-lost')).toMatchObject([{ attempt: 1, of: 3 }])
    const often = await stand()
    often.relay.before = async () => {
      await s.rpc.call('anvil_reorg', [2, []])
    }
    await expect(often.ask()).rejects.toMatchObject({ code: 'chain/puzzle-lost' })
    expect(often.relay.paid).toBe(0)
  })
})
