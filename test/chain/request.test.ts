import { AbiCoder, keccak256 as ethersKeccak, TypedDataEncoder } from 'ethers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Evidence } from '../../chain/evidence.ts'
import { barIntent, setOfferIntent } from '../../chain/intents.ts'
import { merkleTree } from '../../chain/merkle.ts'
import { conditionOf, describeCondition, offersOf } from '../../chain/offers.ts'
import { puzzleChallenge, solvePuzzle } from '../../chain/puzzle.ts'
import { type RequestProgress, requestToken } from '../../chain/request.ts'
import { type Account, createAccount } from '../../chain/wallet.ts'
import { fromHex } from '../../protocol/bytes.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { CHAIN_ID, createStage, type Stage } from './stage.ts'

let s: Stage
beforeAll(async () => {
  s = await createStage()
})
afterAll(async () => s?.stop())

const request = (offer: number, evidence: Evidence = {}, rest: object = {}, account: Account = s.client) =>
  requestToken({ reader: s.reader, sender: s.senderOf(account), contract: s.contract, offer, evidence, ...rest })

describe('a client requests a token', () => {
  test('with a puzzle, and sees how it goes', async () => {
    const offer = await s.offer(await s.deployPolicy({ kind: 'puzzle', difficulty: 12 }))
    const phases: RequestProgress[] = []
    await s.rpc.call('evm_setIntervalMining', [1])
    const granted = await request(
      offer,
      {},
      { confirmations: 2, ttlSeconds: 600, onProgress: (p: RequestProgress) => phases.push(p) },
    )
    await s.rpc.call('evm_setIntervalMining', [0])
    await s.rpc.call('evm_setAutomine', [true])
    expect(granted.token).toMatchObject({ claims: 1, serial: 1, grantBlock: granted.receipt.block })
    expect(granted.token.expiresAt - granted.token.issuedAt).toBe(600)
    expect(phases.map((p) => p.phase)).toEqual(
      expect.arrayContaining(['puzzle', 'priced', 'signed', 'sent', 'confirming']),
    )
    expect(phases.filter((p) => p.phase === 'confirming').map((p) => p.depth)).toEqual([0, 1, 2])
  })

  test('as one on a list', async () => {
    const list = [s.client.address, s.owner.address, createAccount().address]
    const offer = await s.offer(
      await s.deployPolicy({ kind: 'allowlist', owner: s.owner.address, root: merkleTree(list).root }),
    )
    await expect(request(offer)).rejects.toMatchObject({ code: 'chain/needs-evidence' })
    expect((await request(offer, { list })).token.claims).toBe(1)
    await expect(request(offer, { list: [s.owner.address] })).rejects.toMatchObject({ code: 'chain/not-listed' })
    await expect(request(offer, { list: [s.client.address] })).rejects.toMatchObject({
      code: 'chain/reverted',
      message: expect.stringContaining('not on the list'),
    })
  })

  test('with an attestation', async () => {
    const issuer = createAccount()
    const statement = ethersKeccak('0x1234') as `0x${string}`
    const policy = await s.deployPolicy({
      kind: 'attestation',
      owner: s.owner.address,
      statement,
      issuers: [issuer.address],
    })
    const offer = await s.offer(policy)
    const expiresAt = Math.floor(Date.now() / 1000) + 100_000
    const digest = TypedDataEncoder.hash(
      { name: 'IoTChain', version: '1', chainId: CHAIN_ID, verifyingContract: policy },
      {
        Attestation: [
          { name: 'client', type: 'address' },
          { name: 'statement', type: 'bytes32' },
          { name: 'expiresAt', type: 'uint64' },
        ],
      },
      { client: s.client.address, statement, expiresAt },
    )
    const attestation = { issuer: issuer.address, expiresAt, signature: issuer.signDigest(fromHex(digest)) }
    await expect(request(offer)).rejects.toMatchObject({ code: 'chain/needs-evidence' })
    expect((await request(offer, { attestation })).token.claims).toBe(1)
    const forged = { ...attestation, signature: s.owner.signDigest(fromHex(digest)) }
    await expect(request(offer, { attestation: forged })).rejects.toMatchObject({
      code: 'chain/reverted',
      message: expect.stringContaining('signature'),
    })
  })

  test('for money, never more than agreed', async () => {
    const policy = await s.deployPolicy({ kind: 'payment-ether', payee: s.owner.address, fixed: 1000n, perSecond: 2n })
    const offer = await s.offer(policy)
    await expect(request(offer, {}, { ttlSeconds: 100 })).rejects.toMatchObject({
      code: 'chain/too-dear',
      message: expect.stringContaining('1200 wei'),
    })
    await expect(request(offer, { payAtMost: 1199n }, { ttlSeconds: 100 })).rejects.toMatchObject({
      code: 'chain/too-dear',
    })
    expect((await request(offer, { payAtMost: 1200n }, { ttlSeconds: 100 })).paid).toBe(1200n)
    expect(BigInt(await s.rpc.call<string>('eth_getBalance', [policy, 'latest']))).toBe(1200n)
  })

  test('with all of several, and with any of them', async () => {
    const puzzle = await s.deployPolicyUnbound({ kind: 'puzzle', difficulty: 6 })
    const quota = await s.deployPolicyUnbound({ kind: 'quota', periodSeconds: 86_400, perClient: 1, total: 10 })
    const pay = await s.deployPolicyUnbound({ kind: 'payment-ether', payee: s.owner.address, fixed: 5n, perSecond: 0n })
    const all = await s.deployPolicyUnbound({ kind: 'all-of', parts: [puzzle, quota] })
    const any = await s.deployPolicyUnbound({ kind: 'any-of', parts: [pay, all] })
    for (const [part, consumer] of [
      [puzzle, all],
      [quota, all],
      [pay, any],
      [all, any],
      [any, s.contract],
    ] as const)
      await s.bind(part, consumer)
    const offer = await s.offer(any)
    const [head, found] = await s.reader.atHead(
      async (h) => [h, (await offersOf(s.reader, s.contract, h))[offer]] as const,
    )
    if (found === undefined) throw new Error('no offer')
    const ask = { client: s.client.address, offer: found, ttlSeconds: 60, caller: s.client.address }
    expect(describeCondition(await conditionOf(s.reader, ask, head))).toBe(
      'any of (5 wei; all of (a puzzle of 6 bits; as long as the quota lasts))',
    )
    expect((await request(offer)).paid).toBe(0n)
    // the quota of the free way is used up now
    await expect(request(offer)).rejects.toMatchObject({ message: expect.stringContaining('used up its quota') })
    expect((await request(offer, { payAtMost: 5n })).paid).toBe(5n)
    await expect(request(offer, { part: 7 })).rejects.toMatchObject({ code: 'chain/needs-evidence' })
  })
})

describe('refusals, a sentence each', () => {
  test('an offer that is not there, closed, or shorter than wished', async () => {
    const offer = await s.offer(await s.deployPolicy({ kind: 'open' }))
    await expect(request(999)).rejects.toMatchObject({ code: 'chain/no-offer', hint: expect.stringContaining('0 to') })
    await expect(request(offer, {}, { ttlSeconds: 3601 })).rejects.toMatchObject({ code: 'chain/bad-ttl' })
    const [found] = await s.reader.atHead((h) => offersOf(s.reader, s.contract, h))
    if (found === undefined) throw new Error('no offer')
    const { policy, resource } = found
    await s
      .senderOf(s.owner)
      .send(setOfferIntent(s.contract, offer, { policy, resource, claims: 1, maxTtlSeconds: 60, active: false }))
    await expect(request(offer)).rejects.toMatchObject({ code: 'chain/offer-closed' })
  })

  test('a barred client', async () => {
    const offer = await s.offer(await s.deployPolicy({ kind: 'open' }))
    await s.senderOf(s.owner).send(barIntent(s.contract, s.client.address, s.device.address, 2 ** 40))
    await expect(request(offer)).rejects.toMatchObject({
      code: 'chain/reverted',
      message: expect.stringContaining('barred until'),
    })
    await s.senderOf(s.owner).send(barIntent(s.contract, s.client.address, s.device.address, 0))
    expect((await request(offer)).token.claims).toBe(1)
  })

  test('an account without money', async () => {
    const offer = await s.offer(await s.deployPolicy({ kind: 'open' }))
    await expect(request(offer, {}, {}, createAccount())).rejects.toMatchObject({
      code: 'chain/no-funds',
      hint: expect.stringContaining('ether'),
    })
  })

  test('a policy that nobody knows', async () => {
    const policy = createAccount().address
    await s.rpc.call('anvil_setCode', [policy, '0x5f5ffd'])
    await expect(request(await s.offer(policy))).rejects.toMatchObject({ code: 'chain/unknown-policy' })
  })

  test('a contract that is not the device owner\u2019s costs nothing', async () => {
    const before = await s.rpc.call('eth_getTransactionCount', [s.client.address, 'latest'])
    await expect(
      requestToken({ reader: s.reader, sender: s.senderOf(s.client), contract: s.registry, offer: 0 }),
    ).rejects.toMatchObject({ code: expect.stringMatching(/^chain\//) })
    expect(await s.rpc.call('eth_getTransactionCount', [s.client.address, 'latest'])).toBe(before)
  })
})

describe('parts', () => {
  test('the challenge of a puzzle is what Solidity computes', () => {
    const a = (n: number): Address => `0x${n.toString(16).padStart(40, '0')}`
    const task = {
      chainId: 5,
      policy: a(1),
      consumer: a(2),
      accessToken: a(3),
      client: a(4),
      resource: a(5),
      offer: 6,
      block: { number: 7, hash: `0x${'88'.repeat(32)}` as const },
      difficulty: 8,
    }
    const expected = ethersKeccak(
      AbiCoder.defaultAbiCoder().encode(
        ['uint256', 'address', 'address', 'address', 'address', 'address', 'uint32', 'bytes32'],
        [5, a(1), a(2), a(3), a(4), a(5), 6, task.block.hash],
      ),
    )
    expect(puzzleChallenge(task)).toBe(expected)
  })

  test('a puzzle that would never end is refused, one that is interrupted ends', async () => {
    const a: Address = `0x${'01'.repeat(20)}`
    const task = {
      chainId: 5,
      policy: a,
      consumer: a,
      accessToken: a,
      client: a,
      resource: a,
      offer: 0,
      block: { number: 1, hash: `0x${'00'.repeat(32)}` as const },
    }
    await expect(solvePuzzle({ ...task, difficulty: 41 })).rejects.toMatchObject({ code: 'chain/puzzle-too-hard' })
    const stop = new AbortController()
    const solving = solvePuzzle({ ...task, difficulty: 40 }, { signal: stop.signal, onProgress: () => stop.abort() })
    await expect(solving).rejects.toMatchObject({ name: 'AbortError' })
  })

  test('merkle trees of one, of duplicates, of none', () => {
    const [a, b] = [createAccount().address, createAccount().address]
    expect(merkleTree([a]).proofOf(a)).toEqual([])
    expect(merkleTree([a, b, a]).root).toBe(merkleTree([b, a]).root)
    expect(() => merkleTree([])).toThrow(expect.objectContaining({ code: 'chain/empty-list' }))
  })
})
