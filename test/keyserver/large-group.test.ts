import { afterEach, expect, test } from 'vitest'
import { IotchainError } from '../../protocol/errors.ts'
import { clientMemberId } from '../../protocol/groups/gid.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { CONTRACT, createWorld, live, TestClient, TestDevice, type World } from './harness.ts'

let world: World
afterEach(() => world.close())

const MEMBERS = 1000

function nth(i: number): Address {
  return `0x${i.toString(16).padStart(40, '0')}`
}

/** As many members as there is patience for, put in without their joins. */
async function crowd(device: TestDevice): Promise<void> {
  await device.join()
  const served = world.server.roster.device(device.address)
  const group = served.groups.get(0)
  world.chain.mine(1)
  const grant = { issuedAt: 1, expiresAt: 2 ** 40, claims: 1, grantBlock: 1, serial: 1 }
  await group?.change((m) => {
    for (let i = 1; i <= MEMBERS; i++) {
      const address = nth(i)
      world.chain.tokens.set(`${CONTRACT}/${device.address}/${address}`, grant)
      served.client(address).record = { admissions: { [CONTRACT]: { serial: 1, expiresAt: 2 ** 40, claims: 1 } } }
      m.join(clientMemberId(addressBytes(address)), { mode: 'next', expiresAt: 2 ** 40 })
    }
  })
}

test('all of a large group are read before each broadcast; between broadcasts only those whom the logs name', async () => {
  let named: Address[] = []
  world = await createWorld({
    readAllBelow: 100,
    candidates: async () => new Map([[device.address, new Set(named)]]),
  })
  const device = await TestDevice.create(world)
  await crowd(device)
  await live(world, 61)
  const group = world.server.roster.groups.get(device.name(0))
  const members = () => [...(group?.manager.members() ?? [])].length
  expect(members()).toBe(MEMBERS + 1)

  // a revocation that the logs name: out early
  const client = new TestClient(world, 7)
  world.chain.revoke(CONTRACT, device.address, nth(5))
  named = [nth(5), client.address]
  await world.server.headWatch.look()
  await live(world, 12)
  expect(members()).toBe(MEMBERS)

  // one that the logs keep back: out at the next session, no later
  world.chain.revoke(CONTRACT, device.address, nth(6))
  named = []
  await world.server.headWatch.look()
  await live(world, 5)
  expect(members()).toBe(MEMBERS)
  await live(world, 60)
  expect(members()).toBe(MEMBERS - 1)
  expect(group?.newest?.bytes.length).toBeLessThan(500)
})

test('whom the logs named is out early also when the chain was away while they were read', async () => {
  let named: Address[] = []
  world = await createWorld({
    readAllBelow: 100,
    // like the logs of blocks: a name once
    candidates: async () => new Map([[device.address, new Set(named.splice(0))]]),
  })
  const device = await TestDevice.create(world)
  await crowd(device)
  await live(world, 61)
  const group = world.server.roster.groups.get(device.name(0))
  const members = () => [...(group?.manager.members() ?? [])].length
  await world.server.headWatch.look()

  world.chain.revoke(CONTRACT, device.address, nth(5))
  named = [nth(5)]
  const read = world.chain.tokensOf
  world.chain.tokensOf = async () => {
    throw new IotchainError('chain/unreachable', 'the node does not answer')
  }
  await world.server.headWatch.look()
  expect(named).toEqual([])
  world.chain.tokensOf = read
  world.chain.mine(1)
  await world.server.headWatch.look()
  await live(world, 12)
  expect(members()).toBe(MEMBERS)

  // and from then on only those whom the logs name are read again
  const reads = world.chain.reads
  world.chain.mine(1)
  await world.server.headWatch.look()
  expect(world.chain.reads).toBe(reads)
})
