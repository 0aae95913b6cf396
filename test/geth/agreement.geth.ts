import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AgreeingRpc, type NodeFault } from '../../chain/agreement.ts'
import { grantIntent, revokeIntent } from '../../chain/intents.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { type Lie, type LyingNode, lyingNode } from '../chain/lying-node.ts'
import { live, newest, type TestClient, type TestDevice } from '../keyserver/harness.ts'
import type { TestClock } from '../keyserver/test-clock.ts'
import { findGeth } from './geth-node.ts'
import { Network } from './network.ts'

const found = findGeth()
if ('skipped' in found) console.log(`skipped: ${found.skipped}`)

const word = (n: number): string => n.toString(16).padStart(64, '0')
/** A token for ever with right 0, whatever stands there: in each answer of tokensOf. */
const everybody: Lie = (result) => {
  const words = (result as string).slice(2)
  const count = words.length / 64 - 2
  if (count < 5 || count % 5 !== 0 || Number(`0x${words.slice(0, 64)}`) !== 32) return result
  const token = word(1) + word(2 ** 40) + '00000001'.padEnd(64, '0') + word(1) + word(9)
  return `0x${words.slice(0, 128)}${token.repeat(count / 5)}`
}
/** The last node of each proof with other octets. */
const forged: Lie = (result) => {
  const proof = structuredClone(result) as { storageProof: { proof: string[] }[] }
  for (const item of proof.storageProof) {
    item.proof = item.proof.map((n, i, all) => (i === all.length - 1 ? `${n.slice(0, -2)}ff` : n))
  }
  return proof
}

describe.skipIf('skipped' in found)('a key server between three geth nodes, one of which lies', () => {
  let net: Network
  let nodes: LyingNode[]
  let number = 40
  beforeAll(async () => {
    net = await Network.start()
    nodes = await Promise.all([net.a, net.k, net.b].map((n) => lyingNode(n.url)))
  })
  afterAll(async () => {
    await Promise.all((nodes ?? []).map((n) => n.stop()))
    await net?.stop()
  })

  const follow = (clock: TestClock): void => clock.pass(Math.max(1, net.time - clock.seconds))
  async function ask(client: TestClient, device: TestDevice): Promise<string> {
    const challenge = await client.authz(device, [0])
    return challenge.text === '2.01' ? (await client.tryJoin(device)).text : challenge.text
  }

  test.each([
    ['agreement', false, { eth_call: everybody }, 'differs'],
    ['agreement and proofs', true, { eth_call: everybody, eth_getProof: forged }, 'bad-proof'],
  ] as const)('%s: members in, strangers out, the liar named; too few nodes: 5.03', async (_, proofs, lies, kind) => {
    const faults: NodeFault[] = []
    const rpc = new AgreeingRpc({
      nodes: nodes.map(({ url }) => new JsonRpc({ url, timeoutMs: 3000 })),
      agree: 2,
      checkHeaders: proofs,
      onfault: (fault) => faults.push(fault),
    })
    const { world, device, clock } = await net.keyServer(3, { rpc, proofs, number: ++number })
    const [member, second, stranger] = [1, 2, 3].map((i) => net.client(world, 100 * number + i)) as [
      TestClient,
      TestClient,
      TestClient,
    ]
    await device.join()
    await net.send(grantIntent(net.contract, [member.address, second.address], device.address, 3600, 1))
    await net.mine(3)
    follow(clock)
    const [liar, other] = nodes as [LyingNode, LyingNode]
    liar.lies = lies
    try {
      const { member: keys } = await member.join(device)
      expect(await ask(stranger, device)).toMatch(/^4\.03/)
      await new Promise((resolve) => setTimeout(resolve, 200))
      expect(faults.filter((f) => f.kind === kind).map((f) => f.node)).toContain(liar.url)
      expect(faults.filter((f) => f.node !== liar.url && f.kind !== 'behind' && f.kind !== 'slow')).toEqual([])
      // revoked, and the liar says otherwise
      await net.send(revokeIntent(net.contract, [member.address], device.address))
      follow(clock)
      await live(world, 60)
      expect(keys.receive(await newest(world, device))).toBe('not-for-me')
      // one that lies and one that is honest are too few when another is gone
      other.away = true
      await net.mine(1, { timestamp: Math.max(net.time + 1, clock.seconds) })
      follow(clock)
      if (proofs) expect(await ask(second, device)).toBe('2.01')
      else expect(await ask(second, device)).toBe('5.03')
      liar.away = true
      await net.mine(1, { timestamp: Math.max(net.time + 1, clock.seconds) })
      follow(clock)
      expect(await ask(net.client(world, 100 * number + 4), device)).toBe('5.03')
    } finally {
      liar.lies = {}
      liar.away = false
      other.away = false
    }
    await net.mine(1, { timestamp: Math.max(net.time + 1, clock.seconds) })
    follow(clock)
    if (!proofs) expect(await ask(second, device)).toBe('2.01')
  })
})
