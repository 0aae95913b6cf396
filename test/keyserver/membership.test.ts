import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { clientMemberId } from '../../protocol/groups/gid.ts'
import { decodePersonalKey } from '../../protocol/groups/personal-key.ts'
import { addressBytes } from '../../protocol/messages/address.ts'
import { decodeJoinResponse } from '../../protocol/messages/join.ts'
import { createLogger } from '../../runtime/log.ts'
import { call, createWorld, live, newest, plainPeer, TestClient, TestDevice, toHex, type World } from './harness.ts'

let world: World
beforeEach(async () => {
  world = await createWorld()
})
afterEach(() => world.close())

describe('from registration to keys', () => {
  test('a device joins by its certificate and opens broadcast after broadcast', async () => {
    const device = await TestDevice.create(world)
    const { reply, response, member } = await device.join()
    expect(reply.text).toBe('2.01')
    expect(response.senderId).toBeDefined()
    expect(response.creds).toHaveLength(1)
    expect(response.controlGroupUri).toBe(`coap://[::1]:5683/bc/${device.name(0)}`)
    expect(response.keys.map((k) => k.session)).toEqual([1])
    await live(world, 60)
    const received = member.receive(await newest(world, device))
    expect(received).toMatchObject({ session: 2 })
    expect(member.key(2)).toHaveLength(16)
  })

  test('a client with a token gets the same session keys as the device', async () => {
    const device = await TestDevice.create(world)
    const client = new TestClient(world, 7)
    const onDevice = await device.join()
    client.grant(device, [0], 3600)
    const onClient = await client.join(device)
    expect(onClient.response.senderId).toBeUndefined()
    await live(world, 60)
    const broadcast = await newest(world, device)
    onDevice.member.receive(broadcast)
    onClient.member.receive(broadcast)
    expect(toHex(onClient.member.key(2) as Uint8Array)).toBe(toHex(onDevice.member.key(2) as Uint8Array))
  })

  test('revoked: out of the next broadcast, which comes early', async () => {
    const device = await TestDevice.create(world)
    const client = new TestClient(world, 7)
    const onDevice = await device.join()
    client.grant(device, [0], 3600)
    const { member } = await client.join(device)
    await live(world, 52)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: 2 })
    client.revoke(device)
    await world.server.headWatch.look()
    await live(world, 12)
    const after = await newest(world, device)
    expect(member.receive(after)).toBe('not-for-me')
    expect(onDevice.member.receive(after)).toMatchObject({ session: 3 })
  })

  test('one group for each right, and a second bit needs no second challenge', async () => {
    const device = await TestDevice.create(world)
    const client = new TestClient(world, 7)
    client.grant(device, [0, 4], 3600)
    const first = await client.join(device, 0, [0, 4])
    const second = await client.post(device, 4)
    expect(second.text).toBe('2.01')
    const [other] = decodeJoinResponse(second.payload as Uint8Array).keys
    expect(first.member.key(1)).not.toEqual(other?.key)
    expect(world.server.roster.groups.size).toBe(2)
  })

  test('a repeated join: the same octets, the same leaf', async () => {
    const device = await TestDevice.create(world)
    const first = await device.tryJoin()
    world.clock.pass(1)
    const again = await device.tryJoin()
    expect(toHex(again.payload as Uint8Array)).toBe(toHex(first.payload as Uint8Array))
    await live(world, 60)
    const later = await device.join()
    expect(later.reply.text).toBe('2.04')
    expect(later.response.personalKey).toEqual((await device.join()).response.personalKey)
  })

  test('the log tells much and gives no key away', async () => {
    await world.close()
    const lines: string[] = []
    const log = createLogger({ name: 'test', level: 'debug', write: (line) => void lines.push(line) })
    world = await createWorld({ log })
    const device = await TestDevice.create(world)
    const client = new TestClient(world, 7)
    client.grant(device, [0], 3600)
    const joins = [await device.join(), await client.join(device)]
    await live(world, 130)
    client.revoke(device)
    await live(world, 61)
    const text = lines.join('').toLowerCase()
    expect(text).toContain('client admitted')
    expect(text).toContain('member out')
    const secrets = joins.flatMap(({ response, member }) => [
      decodePersonalKey(response.personalKey).labels.slice(0, 16),
      ...response.keys.map((k) => k.key),
      member.key(1) as Uint8Array,
    ])
    expect(secrets.length).toBeGreaterThan(4)
    for (const secret of secrets) {
      expect(text).not.toContain(toHex(secret))
      expect(text).not.toContain(Buffer.from(secret).toString('base64').toLowerCase())
    }
  })

  test('the 257th leaf: a joiner gets the next tree’s key, and that tree is put to use at once', async () => {
    await world.close()
    world = await createWorld({ config: { limits: { rejoinsPerHour: 10_000, leavesPerMember: 10_000 } } })
    const device = await TestDevice.create(world)
    const client = new TestClient(world, 7)
    client.grant(device, [0], 86_400)
    const first = await client.join(device)
    const group = () => world.server.roster.groups.get(device.name(0))
    for (let i = 0; i < 255; i++) {
      await group()?.change((m) => {
        m.leave(clientMemberId(addressBytes(client.address)))
        m.join(clientMemberId(addressBytes(client.address)), { mode: 'next', now: world.clock.seconds })
      })
    }
    const late = new TestClient(world, 8)
    late.grant(device, [0], 3600)
    const { response, member } = await late.join(device)
    expect(decodePersonalKey(response.personalKey).epoch).toBe(2)
    expect(response.keys.map((k) => k.session)).toEqual([1])
    await live(world, 12)
    expect(group()?.newest?.session).toBe(2)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: 2, epoch: 2 })
    expect(first.member.receive(await newest(world, device))).toBe('unknown-epoch')
  })

  test('the content encryption of a group stays what it was made with', async () => {
    await world.close()
    world = await createWorld({ config: { objects: { aead: 'aes-ccm-16-64-128' } } })
    const device = await TestDevice.create(world)
    expect((await device.join()).response.policies.aead).toBe(10)
  })

  test('broadcasts are public, keys are not', async () => {
    const device = await TestDevice.create(world)
    await device.join()
    expect((await call(world.server.plain, plainPeer, 'GET', `/bc/${device.name(0)}/1`)).text).toBe('2.05')
    expect((await call(world.server.plain, plainPeer, 'GET', `/ace-group/${device.name(0)}/creds`)).text).toBe('2.05')
    await expect(call(world.server.plain, plainPeer, 'GET', `/ace-group/${device.name(0)}/kdc-cred`)).rejects.toThrow()
  })
})
