import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import { coseKeyEd25519, thumbprint } from '../../protocol/cose/key.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { decodeChallenge } from '../../protocol/messages/authz.ts'
import { encodeJoinRequest } from '../../protocol/messages/join.ts'
import {
  association,
  call,
  createWorld,
  live,
  newest,
  plainPeer,
  TestClient,
  TestDevice,
  type World,
} from './harness.ts'

const OTHER: Address = `0x${'c1'.repeat(20)}`
let world: World
let device: TestDevice
let client: TestClient
beforeEach(async () => {
  world = await createWorld()
  device = await TestDevice.create(world)
  await device.join()
  client = new TestClient(world, 7)
})
afterEach(() => world.close())

describe('the challenge', () => {
  beforeEach(() => client.grant(device, [0], 3600))

  test('holds once: the second use gets a fresh one, and that works', async () => {
    const nonce = await client.challenge(device, [0])
    const forged = await client.post(device, 0, client.request(device, [0], nonce), undefined, new Uint8Array(65))
    expect(forged).toMatchObject({ text: '4.01', problem: 'keyserver/bad-proof' })
    const again = await client.post(device, 0, client.request(device, [0], nonce))
    expect(again.text).toBe('4.00')
    const fresh = decodeChallenge(again.payload as Uint8Array).kdcchallenge
    expect((await client.post(device, 0, client.request(device, [0], fresh))).text).toBe('2.01')
  })

  test('is worth nothing on another association', async () => {
    const nonce = await client.challenge(device, [0])
    client.peer = association()
    expect((await client.post(device, 0, client.request(device, [0], nonce))).text).toBe('4.00')
  })

  test('ends after 60 seconds', async () => {
    const nonce = await client.challenge(device, [0])
    world.clock.pass(60)
    expect((await client.post(device, 0, client.request(device, [0], nonce))).text).toBe('4.00')
  })

  test.each([
    ['another key server', { keyServer: new Uint8Array(32) }],
    ['another channel', { channel: new Uint8Array(32) }],
    ['other rights', { claims: new Uint8Array(4) }],
    ['another device', { device: new Uint8Array(20) }],
    ['the future', { issuedAt: 1_763_900_000, expiresAt: 1_763_900_060 }],
    ['the past', { issuedAt: 1_763_700_000, expiresAt: 1_763_700_060 }],
    ['a command key that was not sent', { signKey: new Uint8Array(32).fill(1) }],
  ])('a request for %s is refused', async (_, patch) => {
    const nonce = await client.challenge(device, [0])
    const reply = await client.post(device, 0, client.request(device, [0], nonce, patch))
    expect(reply).toMatchObject({ text: '4.01', problem: 'keyserver/bad-proof' })
  })

  test('another client with a token of its own cannot join in this one’s name', async () => {
    const thief = new TestClient(world, 8)
    const nonce = await client.challenge(device, [0])
    const request = client.request(device, [0], nonce)
    const reply = await client.post(device, 0, request, undefined, thief.sign(request))
    expect(reply.problem).toBe('keyserver/bad-proof')
  })

  test('only the newest few are remembered', async () => {
    const first = await client.challenge(device, [0])
    for (let i = 0; i < 8; i++) await client.challenge(device, [0])
    expect((await client.post(device, 0, client.request(device, [0], first))).text).toBe('4.00')
  })

  test('a login ends with its association, and covers no other right', async () => {
    await client.join(device)
    expect((await client.post(device, 1)).problem).toBe('keyserver/login-required')
    world.server.forget(client.peer.key)
    world.clock.pass(61)
    expect((await client.post(device, 0)).problem).toBe('keyserver/login-required')
  })

  test('an anonymous association has no rights of a device', async () => {
    const proof = device.signing.sign(new Uint8Array(1))
    const payload = encodeJoinRequest({ scope: 0, clientCred: device.coseKey, clientCredVerify: proof })
    const reply = await call(world.server.secure, association(), 'POST', `/ace-group/${device.name(0)}`, payload)
    expect(reply).toMatchObject({ text: '4.00', problem: 'keyserver/bad-request' })
  })

  test('plain CoAP has no way in', async () => {
    const authz = world.server.secure.find(['authz-info'])
    expect(authz).toBeDefined()
    const reply = await call(world.server.secure, plainPeer, 'POST', '/authz-info', new Uint8Array(1))
    expect(reply.problem).toBe('keyserver/needs-dtls')
  })
})

describe('the rule', () => {
  test('no token, an ended token: 4.03', async () => {
    expect(await client.authz(device, [0])).toMatchObject({ text: '4.03', problem: 'keyserver/no-token' })
    client.grant(device, [0], 5)
    world.clock.pass(70)
    expect((await client.authz(device, [0])).problem).toBe('keyserver/no-token')
  })

  test('too few confirmations: 5.03 with how many, then in', async () => {
    client.grant(device, [0], 3600, { shallow: true })
    const early = await client.authz(device, [0])
    expect(early).toMatchObject({ text: '5.03', problem: 'keyserver/confirmations' })
    expect(early.detail).toContain('3 more confirmations')
    expect(early.maxAge).toBeGreaterThan(0)
    world.chain.mine(2)
    expect((await client.authz(device, [0])).detail).toContain('1 more confirmation;')
    world.chain.mine(1)
    expect((await client.tryJoin(device)).text).toBe('2.01')
  })

  test('a right that the token does not give: 4.03', async () => {
    client.grant(device, [0], 3600)
    expect((await client.authz(device, [1])).problem).toBe('keyserver/no-token')
  })

  test.each([
    ['inactive', { active: false }],
    ['another owner', { owner: `0x${'bb'.repeat(20)}` as Address }],
    ['another key server', { keyServer: new Uint8Array(32) }],
  ])('a device with %s is not served, and everybody is out', async (_, patch) => {
    client.grant(device, [0], 3600)
    const { member } = await client.join(device)
    device.register(patch)
    await live(world, 60)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
    expect((await client.authz(device, [0])).problem).toBe('keyserver/not-served')
    expect((await device.tryJoin()).problem).toBe('keyserver/not-served')
    expect([...world.server.roster.groups.values()].flatMap((g) => [...g.manager.members()])).toEqual([])
  })

  test('a renewal, deep or not, interrupts nothing', async () => {
    client.grant(device, [0], 3600)
    const { member } = await client.join(device)
    client.grant(device, [0], 7200, { shallow: true })
    await live(world, 60)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: 2 })
    world.chain.mine(3)
    await live(world, 3000)
    expect(member.receive(await newest(world, device))).toMatchObject({ from: expect.any(Number) })
  })

  test('a shallow renewal does not carry beyond the old end', async () => {
    client.grant(device, [0], 100)
    const { member } = await client.join(device)
    client.grant(device, [0], 7200, { shallow: true })
    await live(world, 240)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
  })

  test('over several contracts: a right lasts as long as one grants it', async () => {
    device.register({ contracts: [`0x${'c0'.repeat(20)}`, OTHER] })
    world.chain.mine(3)
    client.grant(device, [0, 1], 3600)
    client.grant(device, [0], 3600, { contract: OTHER })
    const zero = await client.join(device, 0, [0, 1])
    expect((await client.post(device, 1)).text).toBe('2.01')
    client.revoke(device)
    await live(world, 61)
    expect(zero.member.receive(await newest(world, device, 0))).toMatchObject({ session: expect.any(Number) })
    const one = world.server.roster.groups.get(device.name(1))
    expect([...(one?.manager.members() ?? [])]).toEqual([])
  })

  test('removed bits act at once, added bits wait', async () => {
    client.grant(device, [0, 1], 3600)
    await client.join(device, 0, [0, 1, 2])
    await client.post(device, 1)
    client.grant(device, [1, 2], 3600, { shallow: true })
    await live(world, 61)
    const members = (bit: number) =>
      [...(world.server.roster.groups.get(device.name(bit))?.manager.members() ?? [])].filter((m) => m.id[0] === 1)
    expect(members(0)).toHaveLength(0)
    expect(members(1)).toHaveLength(1)
    expect((await client.post(device, 2)).problem).toBe('keyserver/confirmations')
    world.chain.mine(3)
    expect((await client.post(device, 2)).text).toBe('2.01')
  })

  test('a contract that the registry no longer names is out at once', async () => {
    client.grant(device, [0], 3600)
    const { member } = await client.join(device)
    device.register({ contracts: [OTHER] })
    await world.server.headWatch.look()
    await live(world, 15)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
  })

  test('a contract that was dropped and named again waits like a new one', async () => {
    const CONTRACT: Address = `0x${'c0'.repeat(20)}`
    device.register({ contracts: [CONTRACT, OTHER] })
    world.chain.mine(3)
    client.grant(device, [0], 3600, { contract: OTHER })
    const { member } = await client.join(device)
    await world.server.headWatch.look()
    device.register({ contracts: [CONTRACT] })
    await world.server.headWatch.look()
    await live(world, 15)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
    device.register({ contracts: [CONTRACT, OTHER] })
    expect((await client.authz(device, [0])).text).toBe('4.03')
    world.chain.mine(3)
    expect((await new TestClient(world, 7).authz(device, [0])).text).toBe('2.01')
  })

  test('who takes back his own token leaves at the next regular session', async () => {
    await world.close()
    world = await createWorld({ revokedBySelf: () => Promise.resolve(true) })
    device = await TestDevice.create(world)
    client = new TestClient(world, 7)
    client.grant(device, [0], 3600)
    const { member } = await client.join(device)
    await device.join()
    client.revoke(device)
    await world.server.headWatch.look()
    await live(world, 45)
    expect(world.server.roster.groups.get(device.name(0))?.newest?.session).toBe(1)
    await live(world, 20)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
  })

  test('the chain away: nobody new, and a 5.03 that says so', async () => {
    client.grant(device, [0], 3600)
    world.chain.away = true
    world.clock.pass(1)
    expect(await client.authz(device, [0])).toMatchObject({ text: '5.03', problem: 'chain/unreachable' })
    world.chain.away = false
    expect((await client.tryJoin(device)).text).toBe('2.01')
  })
})

test('many clients that ask at once share one reading', async () => {
  const crowd = Array.from({ length: 50 }, (_, i) => new TestClient(world, 20 + i))
  for (const c of crowd) c.grant(device, [0], 3600)
  const before = world.chain.reads
  await Promise.all(crowd.map((c) => c.challenge(device, [0])))
  expect(world.chain.reads - before).toBeLessThanOrEqual(2)
})

test('strangers leave no trace', async () => {
  const stranger = new TestClient(world, 99)
  for (let i = 0; i < 20; i++) await stranger.authz(device, [i])
  expect(world.server.roster.devices.size).toBe(1)
  expect(world.server.roster.groups.size).toBe(1)
  expect([...world.server.roster.devices.values()][0]?.clients.size).toBe(0)
})

describe('commands', () => {
  const command = suite.ed25519.signing(new Uint8Array(32).fill(5))
  const coseKey = coseKeyEd25519(command.publicKey)

  test('a command key that the client signed for gets a Sender ID and a credential, shown to the device only', async () => {
    client.grant(device, [3], 3600)
    await device.join(3)
    const nonce = await client.challenge(device, [3])
    const request = client.request(device, [3], nonce, { signKey: thumbprint(suite, coseKey) })
    const reply = await client.post(device, 3, request, coseKey)
    expect(reply.text).toBe('2.01')
    const path = `/ace-group/${device.name(3)}/creds`
    const { decodeCreds } = await import('../../protocol/messages/group-info.ts')
    const seen = async (peer: typeof client.peer) =>
      decodeCreds((await call(world.server.secure, peer, 'GET', path)).payload as Uint8Array).creds.length
    expect(await seen(device.peer)).toBe(2)
    expect(await seen(client.peer)).toBe(1)
    client.revoke(device)
    await live(world, 61)
    expect(await seen(device.peer)).toBe(1)
    expect(await seen(association())).toBe(1)
  })

  test('its credential ends with the token, and is renewed when the token is, not before', async () => {
    client.grant(device, [3], 600)
    await device.join(3)
    const nonce = await client.challenge(device, [3])
    const request = client.request(device, [3], nonce, { signKey: thumbprint(suite, coseKey) })
    expect((await client.post(device, 3, request, coseKey)).text).toBe('2.01')
    const held = () => world.server.credentials.newest(device.address, client.address, device.name(3))
    const first = held()
    expect(first).toBeDefined()
    await live(world, 500)
    expect(held()).toEqual(first)
    client.grant(device, [3], 7200)
    await live(world, 70)
    expect(held()).toBeDefined()
    expect(held()).not.toEqual(first)
  })

  test('other command keys are rationed', async () => {
    client.grant(device, [3], 7200)
    await device.join(3)
    const bring = async (n: number) => {
      const key = coseKeyEd25519(suite.ed25519.signing(new Uint8Array(32).fill(100 + n)).publicKey)
      const nonce = await client.challenge(device, [3])
      return client.post(device, 3, client.request(device, [3], nonce, { signKey: thumbprint(suite, key) }), key)
    }
    for (let n = 0; n < 16; n++) expect((await bring(n)).text).toMatch(/^2\.0/)
    const refused = await bring(16)
    expect([refused.text, refused.problem]).toEqual(['4.29', 'group/quota'])
    expect((await bring(15)).text).toMatch(/^2\.0/) // the same again is none
    await live(world, 3601)
    expect((await bring(16)).text).toMatch(/^2\.0/)
  })

  test('a key that was not signed for is refused', async () => {
    client.grant(device, [3], 3600)
    const nonce = await client.challenge(device, [3])
    const reply = await client.post(device, 3, client.request(device, [3], nonce), coseKey)
    expect(reply.problem).toBe('keyserver/bad-proof')
  })
})
