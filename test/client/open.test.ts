import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import { GroupView, Membership } from '../../client/group.ts'
import { type Asked, type OpenerOptions, type Reading, ReadingOpener } from '../../client/open.ts'
import { ClientState } from '../../client/state.ts'
import { concat, equalBytes } from '../../protocol/bytes.ts'
import { thumbprintOf } from '../../protocol/cose/key.ts'
import { isIotchainError } from '../../protocol/errors.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { encodePack } from '../../protocol/objects/pack.ts'
import { openMemoryStore } from '../../store/memory.ts'
import {
  addressOfNumber,
  SESSION_SECONDS,
  TestClock,
  TestDevice,
  type TestGroup,
  TestKeyServer,
} from './sealed-world.ts'

const CLIENT = addressOfNumber(1)
const PATH = ['s', 'temp']

interface World {
  clock: TestClock
  keyServer: TestKeyServer
  device: TestDevice
  group: TestGroup
  membership: Membership
  state: ClientState
  opener: ReadingOpener
  ask(bytes: Uint8Array, asked?: Partial<Asked>): Promise<Reading>
}

function world(options: Partial<OpenerOptions> = {}): World {
  const clock = new TestClock()
  const keyServer = new TestKeyServer(clock)
  const device = new TestDevice(7)
  const group = keyServer.group(device)
  const source = {
    name: 'key server',
    broadcast: async () => group.newest(),
    archived: async (_: unknown, session: number) => group.broadcasts.get(session),
    credentials: async () => [group.credential()],
  }
  const membership = Membership.fromJoin(
    { gid: group.gid, device: device.address, bit: 0, client: CLIENT, clock, sources: [source] },
    group.join(CLIENT),
  )
  const state = new ClientState(openMemoryStore())
  const opener = new ReadingOpener({
    clock,
    seen: state,
    groupOf: (gid) => (equalBytes(gid, group.gid) ? membership : undefined),
    ...options,
  })
  return {
    clock,
    keyServer,
    device,
    group,
    membership,
    state,
    opener,
    ask: (bytes, asked) => opener.open(bytes, { device: device.address, path: PATH, form: 'signed', ...asked }),
  }
}

const code = (what: string) => expect.objectContaining({ code: what })

describe('a client opens', () => {
  let w: World
  beforeEach(() => {
    w = world()
  })

  test('a signed object, and finds the records in it', async () => {
    const reading = await w.ask(w.group.seal({ value: 21.5 }).signed)
    expect(reading.records).toEqual([
      expect.objectContaining({ name: 'temp', unit: 'Cel', value: 21.5, time: w.clock.seconds }),
    ])
    expect(reading).toMatchObject({ form: 'signed', stale: false, oldSession: false, repeated: false })
  })

  test('a mac-object, after a look at the newest broadcast', async () => {
    expect((await w.ask(w.group.seal().mac, { form: 'mac' })).form).toBe('mac')
    expect(w.membership.broadcastSeenAt).toBe(w.clock.seconds)
  })

  test('the same object again is marked as repeated, in either form', async () => {
    const { signed, mac } = w.group.seal()
    await w.ask(signed)
    expect((await w.ask(signed)).repeated).toBe(true)
    expect((await w.ask(mac, { form: 'mac' })).repeated).toBe(true)
  })

  test('objects of a session whose broadcast it lost, with a later one', async () => {
    const objects = [w.group.seal().signed]
    for (let i = 0; i < 5; i++) {
      w.group.advance()
      objects.push(w.group.seal().signed)
    }
    // Only the newest broadcast is taken, when the first of them is opened.
    for (const [i, bytes] of objects.entries()) {
      expect((await w.ask(bytes, { kind: 'past' })).header.session).toBe(i + 1)
    }
    expect(w.membership.session).toBe(6)
  })

  test('an object of a new incarnation, whose credential it has to fetch', async () => {
    await w.ask(w.group.seal({ seq: 1000 }).signed)
    w.clock.seconds += 60
    w.device.sids.push({ sid: Uint8Array.of(7, 1), from: w.clock.seconds })
    expect((await w.ask(w.group.seal({ seq: 1 }).signed)).header.seq).toBe(1)
  })

  test('an object of a session that was superseded more than the grace before: with a warning', async () => {
    w.group.advance(300)
    await w.membership.fetchBroadcast()
    w.clock.seconds += 100
    const late = w.group.seal({ session: 1 })
    expect((await w.ask(late.signed)).oldSession).toBe(true)
    await expect(w.ask(late.mac, { form: 'mac' })).rejects.toThrow(code('object/old-session'))
  })

  test('a mac-object, no longer once the broadcast of a later session leaves the member out', async () => {
    await w.membership.fetchBroadcast()
    w.group.leave(CLIENT)
    w.group.advance(300)
    w.clock.seconds += 50
    expect((await w.ask(w.group.seal({ session: 1 }).mac, { form: 'mac' })).header.session).toBe(1)
    w.clock.seconds += 11
    await expect(w.ask(w.group.seal({ session: 1 }).mac, { form: 'mac' })).rejects.toThrow(code('object/old-session'))
  })

  test('a mac-object, no longer once its session is over, also when none followed', async () => {
    await w.membership.fetchBroadcast()
    w.clock.seconds += SESSION_SECONDS + 20
    const { mac } = w.group.seal()
    w.clock.seconds += 40
    await w.ask(mac, { form: 'mac' })
    w.clock.seconds += 1
    await expect(w.ask(mac, { form: 'mac' })).rejects.toThrow(code('object/old-session'))
  })

  test('a pack, under the sequence number of its URI', async () => {
    const at = w.clock.seconds
    const plaintext = encodePack({
      fromSeq: 1,
      toSeq: 2,
      from: at - 20,
      to: at,
      records: [
        { n: 'temp', u: 'Cel', v: 20, t: at - 20 },
        { n: 'temp', u: 'Cel', v: 21, t: at },
      ],
    })
    const { signed, seq } = w.group.seal({ path: [...PATH, '@pack'], plaintext, contentFormat: 60 })
    const pack = await w.ask(signed, { kind: 'pack', seq })
    expect(pack.records.map((r) => r.value)).toEqual([20, 21])
    await expect(w.ask(signed, { kind: 'pack', seq: seq + 1 })).rejects.toThrow(code('object/swapped'))
    expect(await w.state.accepted(w.device.address, PATH)).toBeUndefined()
  })
})

describe('a client refuses', () => {
  let w: World
  beforeEach(() => {
    w = world()
  })
  const refused = (bytes: Uint8Array, what: string, asked?: Partial<Asked>) =>
    expect(w.ask(bytes, asked)).rejects.toThrow(code(what))

  test('object/no-access: a session before its join', async () => {
    const group = w.keyServer.group(w.device, 3)
    const before = group.seal().signed
    group.advance()
    const late = addressOfNumber(2)
    const membership = Membership.fromJoin(
      {
        gid: group.gid,
        device: w.device.address,
        bit: 3,
        client: late,
        clock: w.clock,
        sources: [
          {
            name: 'x',
            broadcast: async () => group.newest(),
            credentials: async (_, at) => [group.credential({ iat: (at ?? w.clock.seconds) - 10 })],
          },
        ],
      },
      group.join(late),
    )
    const opener = new ReadingOpener({ clock: w.clock, seen: w.state, groupOf: () => membership })
    const asked: Asked = { device: w.device.address, path: PATH, form: 'signed', kind: 'past' }
    await expect(opener.open(before, asked)).rejects.toThrow(code('object/no-access'))
    expect((await opener.open(group.seal().signed, asked)).header.session).toBe(2)
  })

  test('object/no-access: a session after it was revoked', async () => {
    await w.ask(w.group.seal().signed)
    w.group.leave(CLIENT)
    w.group.advance()
    await refused(w.group.seal().signed, 'object/no-access')
  })

  test('object/no-access: any session, when it never was a member', async () => {
    const stranger = new GroupView({
      gid: w.group.gid,
      device: w.device.address,
      bit: 0,
      kdcCred: w.keyServer.kdcCred,
      clock: w.clock,
    })
    stranger.addCredentials([w.group.credential()])
    const opener = new ReadingOpener({ clock: w.clock, seen: w.state, groupOf: () => stranger })
    const asked: Asked = { device: w.device.address, path: PATH, form: 'signed' }
    await expect(opener.open(w.group.seal().signed, asked)).rejects.toThrow(code('object/no-access'))
    const broken = w.group.seal().signed
    broken[broken.length - 1]! ^= 1
    await expect(opener.open(broken, asked)).rejects.toThrow(code('object/bad-signature'))
  })

  test('client/foreign-group: a group that is none of the device’s', async () => {
    await refused(w.keyServer.group(w.device, 5).seal().signed, 'client/foreign-group')
  })

  test('object/swapped: the object of another path, once that path is known', async () => {
    const humidity = w.group.seal({ path: ['s', 'humidity'] }).signed
    await refused(humidity, 'object/bad-signature')
    await w.ask(humidity, { path: ['s', 'humidity'] })
    await refused(w.group.seal({ path: ['s', 'humidity'] }).signed, 'object/swapped')
  })

  test('object/wrong-device: the object of another device of the group', async () => {
    const other = new TestDevice(9)
    w.membership.addCredentials([w.group.credential({ device: other })])
    await refused(w.group.seal({ device: other }).signed, 'object/wrong-device')
  })

  test('client/not-signed: the signature stripped', async () => {
    const { encrypt0, mac } = w.group.seal()
    await refused(encrypt0, 'client/not-signed')
    await refused(mac, 'client/not-signed')
    await refused(w.group.seal().signed, 'client/wrong-form', { form: 'mac' })
  })

  test('object/re-signed: the signature made again by another device', async () => {
    const thief = new TestDevice(9)
    w.membership.addCredentials([w.group.credential({ device: thief })])
    await refused(w.group.seal({ signer: thief }).signed, 'object/re-signed')
  })

  test('object/unknown-signer: a signature by a key without credential', async () => {
    await refused(w.group.seal({ signer: new TestDevice(33) }).signed, 'object/unknown-signer')
  })

  test('object/unknown-sid: a Sender ID that the device never had', async () => {
    await refused(w.group.seal({ sid: Uint8Array.of(99) }).signed, 'object/unknown-sid')
  })

  test('object/not-covered: sealed when no credential was in force', async () => {
    w.clock.seconds += 49 * 3600
    w.group.advance(0)
    await refused(w.group.seal({ iat: w.clock.seconds - 49 * 3600 - 4000 }).signed, 'object/not-covered')
  })

  test('object/rollback: an object that is older than one accepted before', async () => {
    const old = w.group.seal().signed
    await w.ask(w.group.seal().signed)
    await refused(old, 'object/rollback')
  })

  test('client/replay: one that it accepted itself, after a later one', async () => {
    const old = w.group.seal().signed
    await w.ask(old)
    await w.ask(w.group.seal().signed)
    await refused(old, 'client/replay')
  })

  test('object/rollback: an earlier incarnation', async () => {
    const earlier = w.group.seal({ seq: 5000 }).signed
    w.device.sids.push({ sid: Uint8Array.of(7, 1), from: w.clock.seconds })
    await w.ask(w.group.seal({ seq: 1 }).signed)
    await refused(earlier, 'object/rollback')
  })

  test('object/equivocation: two objects with one sequence number', async () => {
    await w.ask(w.group.seal({ seq: 50, value: 1 }).signed)
    await refused(w.group.seal({ seq: 50, value: 2 }).signed, 'object/equivocation')
  })

  test('object/future: sealed in the future', async () => {
    await refused(w.group.seal({ iat: w.clock.seconds + 61 }).signed, 'object/future')
  })

  test('client/stale: sealed longer ago than the group allows; shown when asked for', async () => {
    const old = w.group.seal().signed
    w.clock.seconds += 601
    await refused(old, 'client/stale')
    const lenient = new ReadingOpener({
      clock: w.clock,
      seen: w.state,
      groupOf: () => w.membership,
      allowStale: true,
    })
    const reading = await lenient.open(old, { device: w.device.address, path: PATH, form: 'signed' })
    expect(reading.stale).toBe(true)
  })

  test('object/outside-session: not sealed within the life of its session', async () => {
    w.group.advance()
    await w.membership.fetchBroadcast()
    await refused(w.group.seal({ iat: w.clock.seconds - 31 }).signed, 'object/outside-session')
  })

  test('object/unfresh-broadcast: a mac-object while the newest broadcast is not to be had', async () => {
    await w.membership.fetchBroadcast()
    w.membership.sources = []
    w.clock.seconds += 61
    await refused(w.group.seal().mac, 'object/unfresh-broadcast', { form: 'mac' })
  })

  test('object/bad-mac: a mac-object changed on the way', async () => {
    const { mac } = w.group.seal()
    mac[mac.length - 1]! ^= 1
    await refused(mac, 'object/bad-mac', { form: 'mac' })
    await refused(w.group.seal({ path: ['s', 'humidity'] }).mac, 'object/bad-mac', { form: 'mac' })
  })

  test('client/unregistered-signer: the registry on chain names another key', async () => {
    let registered = thumbprintOf(suite, w.device.signingKey.publicKey)
    w = world({ registry: { signingKeyOf: async () => registered } })
    registered = thumbprintOf(suite, w.device.signingKey.publicKey)
    await w.ask(w.group.seal().signed)
    registered = new Uint8Array(32)
    await refused(w.group.seal().signed, 'client/unregistered-signer')
  })

  test('nothing is remembered of what was refused', async () => {
    await w.ask(w.group.seal({ seq: 10 }).signed)
    const before = await w.state.accepted(w.device.address, PATH)
    const attempts = [
      w.group.seal({ seq: 900, iat: w.clock.seconds + 4000 }).signed,
      w.group.seal({ seq: 901, signer: new TestDevice(33) }).signed,
      w.group.seal({ seq: 902, path: ['s', 'x'] }).signed,
    ]
    for (const bytes of attempts) await expect(w.ask(bytes)).rejects.toThrow()
    expect(await w.state.accepted(w.device.address, PATH)).toEqual(before)
    expect((await w.ask(w.group.seal({ seq: 11 }).signed)).header.seq).toBe(11)
  })

  test('property: any change of any octet is refused with a code, and never accepted', async () => {
    const { signed } = w.group.seal()
    await fc.assert(
      fc.asyncProperty(fc.nat(signed.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
        const bytes = signed.slice()
        bytes[at]! ^= change
        const outcome = await w.ask(bytes).then(
          () => 'accepted',
          (error: unknown) => (isIotchainError(error) ? 'refused' : 'crashed'),
        )
        expect(outcome).toBe('refused')
      }),
      { numRuns: 150, seed: 3 },
    )
  })

  test('property: octets of any kind are refused with a code', async () => {
    const head = w.group.seal().signed.subarray(0, 40)
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.boolean(), async (tail, start) => {
        const bytes = start ? concat(head, tail) : tail
        const outcome = await w.ask(bytes).catch((error: unknown) => isIotchainError(error))
        expect(outcome).toBe(true)
      }),
      { numRuns: 150, seed: 4 },
    )
  })
})

describe('what was accepted survives', () => {
  test('a new client on the same state goes on where the old one was', async () => {
    const w = world()
    const store = openMemoryStore()
    const open = (bytes: Uint8Array, membership: Membership) =>
      new ReadingOpener({ clock: w.clock, seen: new ClientState(store), groupOf: () => membership }).open(bytes, {
        device: w.device.address,
        path: PATH,
        form: 'signed',
      })
    const old = w.group.seal().signed
    await open(w.group.seal().signed, w.membership)
    const again = new Membership({
      gid: w.group.gid,
      device: w.device.address as Address,
      bit: 0,
      client: CLIENT,
      clock: w.clock,
      kdcCred: w.keyServer.kdcCred,
      state: w.membership.state(),
    })
    again.addCredentials([w.group.credential()])
    await expect(open(old, again)).rejects.toThrow(code('object/rollback'))
    expect((await open(w.group.seal().signed, again)).header.session).toBe(1)
    expect(SESSION_SECONDS).toBe(900)
  })
})
