import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import type { ServedDevice } from '../../keyserver/roster.ts'
import { fromHex, toHex } from '../../protocol/bytes.ts'
import { coseKeyEd25519, thumbprint } from '../../protocol/cose/key.ts'
import { deviceMemberId } from '../../protocol/groups/gid.ts'
import {
  decodeCreds,
  decodeGroupsReply,
  decodeKdcCred,
  decodeNum,
  encodeCredsQuery,
  encodeGroupsQuery,
} from '../../protocol/messages/group-info.ts'
import { encodeJoinRequest, joinProofInput } from '../../protocol/messages/join.ts'
import { decodeNodeKeys, decodeSenderId, nodeName } from '../../protocol/messages/node.ts'
import { decodePolicies } from '../../protocol/messages/policies.ts'
import { verifyCredential } from '../../protocol/objects/credential.ts'
import type { SecureFacts } from '../../transport/coap/transport.ts'
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

let world: World
beforeEach(async () => {
  world = await createWorld()
})
afterEach(() => world.close())

const node = (device: TestDevice, bit = 0) =>
  `/ace-group/${device.name(bit)}/nodes/${nodeName(deviceMemberId(device.octets))}`
const creds = async (device: TestDevice, bit = 0, query = '') =>
  decodeCreds(
    (await call(world.server.plain, plainPeer, 'GET', `/ace-group/${device.name(bit)}/creds${query}`))
      .payload as Uint8Array,
  )
const kdc = () => suite.ed25519.verifying(suite.ed25519.signing(new Uint8Array(32).fill(9)).publicKey)

describe('who a device is', () => {
  test('its certificate authorises its own groups only', async () => {
    const mine = await TestDevice.create(world, 1)
    const other = await TestDevice.create(world, 2)
    expect(await other.tryJoin(0, mine.peer)).toMatchObject({ text: '4.03', problem: 'keyserver/not-yours' })
  })

  test('an expired certificate: no join, and out of the group', async () => {
    const device = await TestDevice.create(world, 1, { days: 1 / 24 })
    const { member } = await device.join()
    await live(world, 60)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: 2 })
    world.clock.pass(3600)
    expect((await device.tryJoin()).problem).toBe('keyserver/certificate')
    await world.server.sessions.tick()
    expect([...(world.server.roster.groups.get(device.name(0))?.manager.members() ?? [])]).toEqual([])
  })

  test('a revoked certificate: no join, no keys, out at the next session', async () => {
    const device = await TestDevice.create(world)
    const reader = new TestClient(world, 7)
    reader.grant(device, [0], 86_400)
    await reader.join(device)
    const { member } = await device.join()
    const serial = [...world.server.roster.devices.values()][0]?.record.certificate?.serial as string
    world.server.certificates.revoke([serial.toUpperCase()])
    expect((await device.tryJoin()).problem).toBe('keyserver/certificate')
    expect((await call(world.server.secure, device.peer, 'GET', node(device))).problem).toBe('keyserver/certificate')
    await live(world, 61)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
  })

  test.each([0, 1])('one that joins while it is being judged stays (%i blocks later)', async (blocks) => {
    const device = await TestDevice.create(world)
    const reader = new TestClient(world, 7)
    reader.grant(device, [0], 86_400)
    await reader.join(device)
    const served = world.server.roster.devices.get(device.address) as ServedDevice
    let goOn = (): void => {}
    const busy = served.gate.run(
      () =>
        new Promise<void>((resolve) => {
          goOn = resolve
        }),
    )
    // Read before the other reads, carried out after the other is in.
    const { chain } = world
    const at = chain.number
    chain.mine(blocks)
    const join = device.join()
    await delay(10)
    chain.number = at
    const refresh = world.server.enforcement.refresh(served)
    await delay(10)
    chain.number = at + blocks
    goOn()
    await Promise.all([busy, join, refresh])
    const { member } = await join
    expect(served.isMember(served.memberId)).toBe(true)
    expect(served.registeredKey).toEqual(thumbprint(suite, device.coseKey))
    expect(served.record.entry).toBeDefined()
    await live(world, 61)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: 2 })
  })

  test('an association whose certificate no longer verifies has no rights', async () => {
    const device = await TestDevice.create(world)
    const certificate = (device.peer.secure as SecureFacts).certificate
    const reply = await device.tryJoin(0, association({ certificate, authorized: false }))
    expect(reply.problem).toBe('keyserver/certificate')
  })

  test('the proof is for this association', async () => {
    const device = await TestDevice.create(world)
    const elsewhere = association()
    const proof = device.signing.sign(joinProofInput(device.gid(0), (elsewhere.secure as SecureFacts).channelBinding()))
    const payload = encodeJoinRequest({ scope: 0, clientCred: device.coseKey, clientCredVerify: proof })
    const reply = await call(world.server.secure, device.peer, 'POST', `/ace-group/${device.name(0)}`, payload)
    expect(reply.problem).toBe('keyserver/bad-proof')
  })

  test('the signing key is the registered one: 4.03 for another, 5.03 while none is deep', async () => {
    const device = await TestDevice.create(world, 1, { register: false })
    expect(await device.tryJoin()).toMatchObject({ text: '5.03', problem: 'keyserver/not-registered' })
    device.register({ signingKey: new Uint8Array(32).fill(1) })
    expect(await device.tryJoin()).toMatchObject({ text: '5.03', problem: 'keyserver/confirmations' })
    world.chain.mine(3)
    expect(await device.tryJoin()).toMatchObject({ text: '4.03', problem: 'keyserver/wrong-key' })
  })

  test('a changed key gets no credential before it is deep; the old one is not renewed either', async () => {
    const device = await TestDevice.create(world)
    await device.join()
    const fresh = coseKeyEd25519(suite.ed25519.signing(new Uint8Array(32).fill(3)).publicKey)
    device.register({ signingKey: thumbprint(suite, fresh) })
    expect((await device.tryJoin()).text).toBe('5.03')
    world.chain.mine(3)
    expect((await device.tryJoin()).problem).toBe('keyserver/wrong-key')
  })

  test('a group identifier that collides is refused', async () => {
    const device = await TestDevice.create(world)
    await device.join()
    expect(() => world.server.roster.checkRoom(device.name(0), device.address, 1)).toThrow(
      expect.objectContaining({ code: 'keyserver/collision' }),
    )
  })
})

describe('Sender IDs and credentials', () => {
  test('a new one on request, and the credential names both, oldest first', async () => {
    const device = await TestDevice.create(world)
    const { response } = await device.join()
    world.clock.pass(1)
    const reply = await call(world.server.secure, device.peer, 'PUT', node(device))
    const sid = decodeSenderId(reply.payload as Uint8Array)
    expect(toHex(sid)).not.toBe(toHex(response.senderId as Uint8Array))
    const list = await creds(device)
    const newestCredential = verifyCredential(suite, list.creds.at(-1) as Uint8Array, { key: kdc() })
    expect(newestCredential.subject).toBe(device.address)
    expect(newestCredential.groups.get(device.name(0))?.map((g) => toHex(g.sid))).toEqual([
      toHex(response.senderId as Uint8Array),
      toHex(sid),
    ])
    expect(toHex(list.peerIdentifiers.at(-1) as Uint8Array)).toBe(toHex(sid))
  })

  test('Sender IDs on request are rationed by the hour; the record holds what can still be verified, and no more', async () => {
    const device = await TestDevice.create(world)
    const { response } = await device.join()
    const issued = [{ sid: toHex(response.senderId as Uint8Array), from: world.clock.seconds }]
    const record = () =>
      world.server.roster.device(device.address).record.senderIds[device.name(0)]?.map((r) => toHex(r.sid)) ?? []
    const retention = 96 * 60 + 2 * 3600
    for (let hour = 0; hour < 12; hour++) {
      for (;;) {
        const reply = await call(world.server.secure, device.peer, 'PUT', node(device))
        if (reply.text === '4.29') {
          expect(reply.problem).toBe('group/quota')
          expect(reply.maxAge).toBeGreaterThan(3000)
          break
        }
        issued.push({ sid: toHex(decodeSenderId(reply.payload as Uint8Array)), from: world.clock.seconds })
        expect(issued.length).toBeLessThanOrEqual(16 * (hour + 1))
        // each may have sealed until the next one was issued
        const needed = issued.filter((_, i) => (issued[i + 1]?.from ?? Infinity) >= world.clock.seconds - retention)
        expect(record()).toEqual(needed.map(({ sid }) => sid))
        world.clock.pass(10)
      }
      await live(world, 3600)
    }
    expect(issued).toHaveLength(12 * 16)
    expect(new Set(issued.map(({ sid }) => sid)).size).toBe(issued.length)
    expect(record().length).toBeLessThan(16 * 5)
    await world.restart()
    await live(world, 60)
    const newestCredential = verifyCredential(suite, (await creds(device)).creds.at(-1) as Uint8Array, { key: kdc() })
    expect(newestCredential.groups.get(device.name(0))?.at(-1)?.sid).toEqual(fromHex(issued.at(-1)?.sid as string))
  })

  test('one that was out comes back with another Sender ID', async () => {
    const device = await TestDevice.create(world)
    const first = await device.join()
    await call(world.server.secure, device.peer, 'DELETE', node(device))
    expect((await call(world.server.secure, device.peer, 'GET', node(device))).problem).toBe('keyserver/not-member')
    await live(world, 61)
    const again = await device.join()
    expect(again.reply.text).toBe('2.01')
    expect(again.response.senderId).not.toEqual(first.response.senderId)
  })

  test('rejoins are rationed', async () => {
    const device = await TestDevice.create(world)
    let last = await device.tryJoin()
    for (let i = 0; i < 5; i++) {
      await call(world.server.secure, device.peer, 'DELETE', node(device))
      await live(world, 61)
      last = await device.tryJoin()
    }
    expect(last).toMatchObject({ text: '4.29', problem: 'group/quota' })
    expect(last.maxAge).toBeGreaterThan(0)
  })

  test('one credential for all groups of a device; another one when a group is added', async () => {
    const device = await TestDevice.create(world)
    await device.join(0)
    world.clock.pass(1)
    await device.join(5)
    const list = await creds(device, 5)
    const credential = verifyCredential(suite, list.creds.at(-1) as Uint8Array, { key: kdc() })
    expect([...credential.groups.keys()].sort()).toEqual([device.name(0), device.name(5)].sort())
  })

  test('renewed at half of their life, kept for their time, filtered by FETCH', async () => {
    const device = await TestDevice.create(world)
    const { response } = await device.join()
    const start = world.clock.seconds
    await live(world, 120)
    expect((await creds(device)).creds).toHaveLength(1)
    world.clock.pass(25 * 3600)
    await world.server.sessions.tick()
    const two = await creds(device)
    expect(two.creds).toHaveLength(2)
    const [a, b] = two.creds.map((c) => verifyCredential(suite, c, { key: kdc() }))
    expect((a?.exp ?? 0) - (b?.iat ?? 0)).toBeGreaterThan(20 * 3600)
    world.clock.pass(25 * 3600)
    await world.server.sessions.tick()
    expect((await creds(device, 0, `?at=${start + 60}`)).creds).toHaveLength(1)
    // an object may have been sealed by a clock that is 60 s behind
    expect((await creds(device, 0, `?at=${start - 60}`)).creds).toHaveLength(1)
    expect((await creds(device, 0, `?at=${start - 61}`)).creds).toHaveLength(0)
    expect((await creds(device, 0, `?at=${a?.exp}`)).creds).toHaveLength(2)
    const query = encodeCredsQuery({ inclusion: true, senderIds: [response.senderId as Uint8Array] })
    const fetched = await call(world.server.plain, plainPeer, 'FETCH', `/ace-group/${device.name(0)}/creds`, query)
    expect(decodeCreds(fetched.payload as Uint8Array).creds.length).toBeGreaterThan(0)
    const none = encodeCredsQuery({ inclusion: false, senderIds: [response.senderId as Uint8Array] })
    const empty = await call(world.server.plain, plainPeer, 'FETCH', `/ace-group/${device.name(0)}/creds`, none)
    expect(decodeCreds(empty.payload as Uint8Array).creds).toEqual([])
  })

  test('renewed in the middle of a long session too, with half of the life before left', async () => {
    await world.close()
    const sessions = { length: '72h', minimum: '10s', lead: '30s', epoch: '144h', window: '0s' }
    world = await createWorld({ config: { sessions } })
    const device = await TestDevice.create(world)
    await device.join()
    await live(world, 61)
    const day = 24 * 3600
    world.clock.pass(day - 600)
    await live(world, 61)
    expect((await creds(device)).creds).toHaveLength(1)
    world.clock.pass(140)
    await live(world, 61)
    const two = (await creds(device)).creds.map((c) => verifyCredential(suite, c, { key: kdc() }))
    expect(two).toHaveLength(2)
    expect((two[0]?.exp ?? 0) - (two[1]?.iat ?? 0)).toBeGreaterThanOrEqual(day)
    // session 1 goes on
    expect(world.server.roster.groups.get(device.name(0))?.newest?.session).toBe(1)
  })

  test('a device that is out gets no credential any more', async () => {
    const device = await TestDevice.create(world)
    await device.join()
    device.register({ active: false })
    await live(world, 61)
    world.clock.pass(49 * 3600)
    await world.server.sessions.tick()
    expect((await creds(device)).creds).toEqual([])
  })
})

describe('what else is asked of a group', () => {
  test('its number, its policies, the key that signs, its name', async () => {
    const device = await TestDevice.create(world)
    await device.join()
    const peer = association()
    const get = async (what: string) =>
      (await call(world.server.secure, peer, 'GET', `/ace-group/${device.name(0)}/${what}`)).payload as Uint8Array
    expect(decodeNum(await get('num'))).toBe(1)
    expect(decodePolicies(await get('policies'))).toMatchObject({ sessionSeconds: 60, aead: 24, confirmations: 3 })
    expect(decodeKdcCred(await get('kdc-cred'))).toEqual(coseKeyEd25519(kdc().publicKey))
    const unknown = new Uint8Array(8).fill(1)
    const names = await call(
      world.server.secure,
      peer,
      'FETCH',
      '/ace-group',
      encodeGroupsQuery([device.gid(0), unknown]),
    )
    expect(decodeGroupsReply(names.payload as Uint8Array).map((g) => g.gname)).toEqual([device.name(0)])
  })

  test('a member sees its own keys and nobody else’s', async () => {
    const device = await TestDevice.create(world)
    await device.join()
    const reply = await call(world.server.secure, device.peer, 'GET', node(device))
    expect(decodeNodeKeys(reply.payload as Uint8Array)).toMatchObject({ num: 1, serverTime: world.clock.seconds })
    const other = await TestDevice.create(world, 2)
    expect((await call(world.server.secure, other.peer, 'GET', node(device))).problem).toBe('keyserver/not-yours')
    expect((await call(world.server.secure, association(), 'GET', node(device))).problem).toBe(
      'keyserver/login-required',
    )
  })

  test.each(['x', '0', '0123456789abcdef', 'ABCDEF0123456789'])('no such group: %s', async (name) => {
    const reply = await call(world.server.plain, plainPeer, 'GET', `/bc/${name}`)
    expect(reply).toMatchObject({ text: '4.04', problem: 'keyserver/no-group' })
  })

  test('no such session: 4.04', async () => {
    const device = await TestDevice.create(world)
    await device.join()
    for (const j of ['0', '2', '99999999999', '-1', 'x', '1.0']) {
      expect((await call(world.server.plain, plainPeer, 'GET', `/bc/${device.name(0)}/${j}`)).text).toBe('4.04')
    }
  })

  test('garbage is 4.00', async () => {
    const device = await TestDevice.create(world)
    const peer = association()
    for (const path of ['/authz-info', `/ace-group/${device.name(0)}`]) {
      for (const payload of [new Uint8Array(0), Uint8Array.of(0xff), Uint8Array.of(0xa0), new Uint8Array(300)]) {
        expect((await call(world.server.secure, peer, 'POST', path, payload)).text).toBe('4.00')
      }
    }
  })

  test('an association made with an enrolment code gets nothing of all this', async () => {
    const device = await TestDevice.create(world)
    await device.join()
    const peer = association({ pskIdentity: 'enrol:0123456789abcdef' })
    for (const [method, path] of [
      ['GET', `/ace-group/${device.name(0)}/kdc-cred`],
      ['GET', `/bc/${device.name(0)}`],
      ['GET', '/.well-known/core'],
      ['POST', '/authz-info'],
      ['GET', node(device)],
    ] as const) {
      expect((await call(world.server.secure, peer, method, path)).problem).toBe('keyserver/not-yours')
    }
  })
})
