import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { deployIntent } from '../../chain/deployments.ts'
import { requestTokenForIntent, setOfferIntent } from '../../chain/intents.ts'
import { ChainReader } from '../../chain/reader.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import { nonceOf, signTokenRequest } from '../../chain/sponsor.ts'
import { type Account, accountFromKey, createAccount } from '../../chain/wallet.ts'
import { toHex } from '../../protocol/bytes.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import {
  decodeRelayReply,
  decodeRelayTask,
  encodeRelayRequest,
  type RelayRequest,
  searchRelaySolution,
} from '../../protocol/messages/relay.ts'
import { type Anvil, startAnvil } from '../../tools/anvil.ts'
import type { Peer } from '../../transport/coap/transport.ts'
import { association, call, createWorld, plainPeer, type World } from './harness.ts'

const DEVICE: Address = `0x${'dd'.repeat(20)}`
const DIFFICULTY = 6
let anvil: Anvil
let rpc: JsonRpc
let reader: ChainReader
let contract: Address
let payer: Account
let world: World
let peer: Peer

beforeAll(async () => {
  anvil = await startAnvil({ chainId: 20180415 })
  rpc = new JsonRpc({ url: anvil.url })
  const [owner, second] = anvil.keys.map((key) => accountFromKey(key)) as [Account, Account]
  payer = second
  const sender = new TransactionSender({ rpc, chainId: anvil.chainId, account: owner, pollMs: 20 })
  const deploy = async (what: Parameters<typeof deployIntent>[0]) =>
    (await sender.send(deployIntent(what))).contract as Address
  const registry = await deploy({ kind: 'registry' })
  contract = await deploy({ kind: 'access-token', owner: owner.address, resource: DEVICE })
  const open = await deploy({ kind: 'open' })
  for (const active of [true, false]) {
    const offer = active ? 0 : 1
    await sender.send(
      setOfferIntent(contract, offer, { policy: open, resource: DEVICE, claims: 1, maxTtlSeconds: 3600, active }),
    )
  }
  reader = new ChainReader({ rpc, chainId: anvil.chainId, registry, confirmations: 1 })
}, 60_000)
afterAll(() => anvil?.stop())

beforeEach(async () => {
  await world?.close()
  world = await relayWorld('1')
  peer = association()
})
afterAll(() => world?.close())

function relayWorld(ether: string, account: Account = payer): Promise<World> {
  return createWorld({
    onDisk: true,
    relay: {
      sender: new TransactionSender({ rpc, chainId: anvil.chainId, account, pollMs: 20 }),
      intentOf: requestTokenForIntent,
      offers: [
        { contract, offer: 0 },
        { contract, offer: 1 },
      ],
      dailyWei: BigInt(Number(ether) * 1e18),
      difficulty: DIFFICULTY,
    },
  })
}

type Signed = Omit<RelayRequest, 'challenge' | 'solution'>

async function signed(
  client: Account,
  patch: { offer?: number; deadline?: number; ttlSeconds?: number } = {},
): Promise<Signed> {
  const head = await reader.head()
  const nonce = await nonceOf(reader, contract, client.address, head)
  const terms = {
    chainId: anvil.chainId,
    contract,
    offer: 0,
    ttlSeconds: 600,
    proof: '0x' as const,
    nonce,
    deadline: 2 ** 32,
    ...patch,
  }
  const { signature } = await signTokenRequest(client, terms)
  return {
    contract: addressBytes(contract),
    client: addressBytes(client.address),
    offer: terms.offer,
    ttlSeconds: terms.ttlSeconds,
    proof: new Uint8Array(0),
    deadline: terms.deadline,
    signature,
  }
}

async function post(request: Signed, patch: Partial<RelayRequest> = {}) {
  const task = decodeRelayTask((await call(world.server.secure, peer, 'GET', '/relay')).payload as Uint8Array)
  expect(task.difficulty).toBe(DIFFICULTY)
  const puzzle = { ...request, challenge: task.challenge }
  const solution = searchRelaySolution(puzzle, DIFFICULTY, 0, 1e6) as Uint8Array
  return call(world.server.secure, peer, 'POST', '/relay', encodeRelayRequest({ ...puzzle, solution, ...patch }))
}

const tokenOf = async (client: Account) =>
  (await reader.atHead((head) => reader.tokensOf(contract, DEVICE, [client.address], head)))[0]

async function mined(hash: Uint8Array): Promise<void> {
  for (let i = 0; i < 100; i++) {
    if ((await rpc.call('eth_getTransactionReceipt', [`0x${toHex(hash)}`])) !== null) return
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error('not mined')
}

describe('the relay', () => {
  test('an address that owns nothing gets its token; the same request again gets the same hash', async () => {
    const fresh = createAccount()
    const request = await signed(fresh)
    const first = await post(request)
    expect(first.text).toBe('2.01')
    const hash = decodeRelayReply(first.payload as Uint8Array)
    await mined(hash)
    expect(await tokenOf(fresh)).toMatchObject({ claims: 1 })
    const again = await post(request)
    expect(again.text).toBe('2.04')
    expect(decodeRelayReply(again.payload as Uint8Array)).toEqual(hash)
    await new Promise((resolve) => setTimeout(resolve, 100))
    await world.restart()
    expect(decodeRelayReply((await post(request)).payload as Uint8Array)).toEqual(hash)
  })

  test('the same request twice at once is sent once', async () => {
    const request = await signed(createAccount())
    const before = await rpc.call<string>('eth_getTransactionCount', [payer.address, 'latest'])
    const replies = await Promise.all([post(request), post(request)])
    const hashes = replies.map((r) => toHex(decodeRelayReply(r.payload as Uint8Array)))
    expect(hashes[0]).toBe(hashes[1])
    await mined(decodeRelayReply((replies[0] as { payload: Uint8Array }).payload))
    expect(Number(await rpc.call('eth_getTransactionCount', [payer.address, 'latest'])) - Number(before)).toBe(1)
  })

  test.each([
    [
      'a puzzle of another association',
      async (r: Signed) => {
        const other = association()
        const task = decodeRelayTask((await call(world.server.secure, other, 'GET', '/relay')).payload as Uint8Array)
        const puzzle = { ...r, challenge: task.challenge }
        return post(r, { ...puzzle, solution: searchRelaySolution(puzzle, DIFFICULTY, 0, 1e6) as Uint8Array })
      },
    ],
    ['a solution for another client', (r: Signed) => post(r, { client: new Uint8Array(20) })],
    ['no solution', (r: Signed) => post(r, { solution: new Uint8Array(8).fill(255) })],
  ])('%s is refused', async (_, attempt) => {
    expect(await attempt(await signed(createAccount()))).toMatchObject({
      text: '4.00',
      problem: 'keyserver/bad-puzzle',
    })
  })

  test('a puzzle serves once and ends', async () => {
    const task = decodeRelayTask((await call(world.server.secure, peer, 'GET', '/relay')).payload as Uint8Array)
    const puzzle = { ...(await signed(createAccount(), { offer: 1 })), challenge: task.challenge }
    const solution = searchRelaySolution(puzzle, DIFFICULTY, 0, 1e6) as Uint8Array
    const send = () => call(world.server.secure, peer, 'POST', '/relay', encodeRelayRequest({ ...puzzle, solution }))
    expect((await send()).problem).toBe('keyserver/not-relayed')
    expect((await send()).problem).toBe('keyserver/bad-puzzle')
  })

  test('only configured offers, only in time, only what a trial run lets through: nothing else costs anything', async () => {
    const before = await rpc.call('eth_getBalance', [payer.address, 'latest'])
    const other = { ...(await signed(createAccount())), offer: 7 }
    expect((await post(other)).problem).toBe('keyserver/not-relayed')
    const late = await signed(createAccount(), { deadline: world.clock.seconds })
    expect((await post(late)).problem).toBe('keyserver/bad-request')
    const closed = await post(await signed(createAccount(), { offer: 1 }))
    expect(closed).toMatchObject({ text: '4.03', problem: 'keyserver/not-relayed' })
    const forged = { ...(await signed(createAccount())), signature: new Uint8Array(65).fill(1) }
    expect((await post(forged)).problem).toBe('keyserver/not-relayed')
    const long = await signed(createAccount(), { ttlSeconds: 86_400 })
    expect((await post(long)).problem).toBe('keyserver/not-relayed')
    expect(await rpc.call('eth_getBalance', [payer.address, 'latest'])).toBe(before)
  })

  test('a day’s spending is bounded, also across a restart', async () => {
    await world.close()
    world = await relayWorld('0.0012')
    let paid = 0
    let last = await post(await signed(createAccount()))
    while (last.text === '2.01' && paid < 50) {
      paid++
      await mined(decodeRelayReply(last.payload as Uint8Array))
      await new Promise((resolve) => setTimeout(resolve, 60))
      last = await post(await signed(createAccount()))
    }
    expect(paid).toBeGreaterThan(0)
    expect(last).toMatchObject({ text: '4.29', problem: 'keyserver/relay-spent' })
    await world.restart()
    expect((await post(await signed(createAccount()))).problem).toBe('keyserver/relay-spent')
    world.clock.pass(86_401)
    expect((await post(await signed(createAccount()))).text).toBe('2.01')
  })

  test('one request of a client at a time', async () => {
    await rpc.call('evm_setAutomine', [false])
    try {
      const client = createAccount()
      expect((await post(await signed(client))).text).toBe('2.01')
      expect(await post(await signed(client, { ttlSeconds: 700 }))).toMatchObject({
        text: '4.29',
        problem: 'keyserver/relay-busy',
      })
    } finally {
      await rpc.call('evm_setAutomine', [true])
      await rpc.call('anvil_mine', ['0x1'])
    }
  })

  test('without funds: later', async () => {
    await world.close()
    world = await relayWorld('1', createAccount())
    expect(await post(await signed(createAccount()))).toMatchObject({ text: '4.29', problem: 'keyserver/relay-spent' })
  })

  test('not on plain CoAP, not with an enrolment code', async () => {
    expect((await call(world.server.secure, plainPeer, 'GET', '/relay')).problem).toBe('keyserver/needs-dtls')
    const code = association({ pskIdentity: 'enrol:0123456789abcdef' })
    expect((await call(world.server.secure, code, 'GET', '/relay')).problem).toBe('keyserver/not-yours')
  })
})
