import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import { FalseBroadcasts } from '../../device/false-broadcasts.ts'
import { GroupSession } from '../../device/group-session.ts'
import { Sequence } from '../../device/sequence.ts'
import { toHex } from '../../protocol/bytes.ts'
import { sign1 } from '../../protocol/cose/sign1.ts'
import { BROADCAST_AAD, claimBroadcast } from '../../protocol/groups/broadcast.ts'
import { gname } from '../../protocol/groups/gid.ts'
import type { JoinResponse } from '../../protocol/messages/join.ts'
import { silentLogger } from '../../runtime/log.ts'
import { openMemoryStore } from '../../store/memory.ts'
import { addressOfNumber, TestClock, TestDevice, type TestGroup, TestKeyServer } from '../client/sealed-world.ts'
import { memoryFolder } from './fixtures.ts'

/** Keys and broadcasts that are not for this group, or not good: refused, and everything is as it was. */
const MEMBER = addressOfNumber(5)

interface World {
  clock: TestClock
  keyServer: TestKeyServer
  group: TestGroup
  session: GroupSession
  sequence: Sequence
  answer: JoinResponse
  state(): Promise<unknown>
}

async function world(): Promise<World> {
  const clock = new TestClock()
  const keyServer = new TestKeyServer(clock)
  const device = new TestDevice(7)
  const group = keyServer.group(device)
  const store = openMemoryStore()
  const sequence = Sequence.open(join(memoryFolder(), 'sequence'), 'machine')
  sequence.setSid(gname(group.gid), Uint8Array.of(1))
  const session = await GroupSession.load({
    gid: group.gid,
    bit: 0,
    device: device.bytes,
    signingKey: device.signingKey,
    store,
    sequence,
    time: { nowMs: () => clock.nowMs() },
    falseBroadcasts: new FalseBroadcasts(() => clock.monotonicMs()),
    log: silentLogger,
  })
  const answer = group.join(MEMBER)
  await session.adopt(answer)
  group.advance(300)
  await session.receive(group.newest(), 'key server', true)
  const state = async () => ({
    current: session.current(),
    newest: session.newestSession,
    keys: [1, 2, 3].map((j) => session.key(j)),
    epochEnds: session.epochEnds,
    kdc: session.kdcCred,
    broadcast: session.broadcast,
    stored: await store.get(`group/${gname(group.gid)}`),
  })
  return { clock, keyServer, group, session, sequence, answer, state }
}

test('nothing is sealed below a session that was sealed under before, whatever the store says', async () => {
  const w = await world()
  expect(w.session.current()).toMatchObject({ session: 2 })
  w.sequence.enterSession(gname(w.group.gid), 3)
  expect(w.session.current()).toBeUndefined()
  w.group.advance(300)
  await w.session.receive(w.group.newest(), 'key server', true)
  expect(w.session.current()).toMatchObject({ session: 3 })
})

describe('what is not for this device changes nothing', () => {
  let w: World
  let other: TestGroup
  beforeEach(async () => {
    w = await world()
    other = w.keyServer.group(new TestDevice(8))
    expect((await w.state()) as object).toMatchObject({ current: { session: 2 }, newest: 2 })
  })

  async function refused(code: string, work: () => Promise<unknown>): Promise<void> {
    const before = await w.state()
    await expect(work()).rejects.toThrow(expect.objectContaining({ code }))
    expect(await w.state()).toEqual(before)
  }

  test('personal keys of another group or of no form', async () => {
    const foreign = other.join(MEMBER).personalKey
    const stranger = new TestKeyServer(w.clock).kdcCred
    await refused('group/bad-personal-key', () => w.session.adopt({ ...w.answer, personalKey: foreign }))
    await refused('group/bad-personal-key', () =>
      w.session.adopt({ ...w.answer, kdcCred: stranger, personalKey: foreign }),
    )
    await refused('group/bad-personal-key', () =>
      w.session.adopt({ ...w.answer, kdcCred: stranger, personalKey: w.answer.personalKey.slice(1) }),
    )
    const nodeKeys = { ...w.answer, nextPersonalKey: undefined, senderId: undefined }
    await refused('group/bad-personal-key', () => w.session.addPersonalKeys({ ...nodeKeys, personalKey: foreign }))
    w.group.manager.allocateEpoch({ nbf: w.clock.seconds + 900 })
    const next = w.group.join(MEMBER, { upcoming: true }).personalKey
    await refused('group/bad-personal-key', () =>
      w.session.addPersonalKeys({ ...nodeKeys, personalKey: next, nextPersonalKey: foreign }),
    )
    await refused('group/bad-key', () =>
      w.session.addPersonalKeys({ ...nodeKeys, personalKey: next, keys: [{ session: 0, key: new Uint8Array(16) }] }),
    )
    // nor was the good one of the two kept
    w.group.manager.activateEpoch()
    w.group.advance(300)
    expect(await w.session.receive(w.group.newest(), 'key server', true)).toBe('unknown-epoch')
  })

  test('broadcasts of another group, another key server, another key than they say, of an epoch to come', async () => {
    w.group.advance(300)
    const good = w.group.newest()
    const { message } = claimBroadcast(good, {})
    const { signingKey } = w.keyServer
    const payload = message.payload.slice()
    payload[payload.length - 1]! ^= 1
    const receive = (bytes: Uint8Array) => w.session.receive(bytes, 'somebody', false)
    await refused('group/wrong-group', () => receive(other.newest()))
    await refused('group/kcv-mismatch', () =>
      receive(sign1(message.protectedBytes, payload, BROADCAST_AAD, signingKey)),
    )
    const forger = suite.ed25519.signing(new Uint8Array(32).fill(9))
    await refused('group/bad-signature', () => receive(sign1(message.protectedBytes, payload, BROADCAST_AAD, forger)))
    await refused('group/malformed', () => receive(good.slice(0, -1)))
    expect(await receive(good)).toMatchObject({ session: 3 })

    w.group.manager.allocateEpoch({ nbf: w.clock.seconds + 300 })
    w.group.manager.activateEpoch()
    w.group.advance(300)
    const before = await w.state()
    expect(await receive(w.group.newest())).toBe('unknown-epoch')
    expect(await w.state()).toEqual(before)
    expect(toHex(w.session.key(3) as Uint8Array)).toBe(toHex(w.group.key(3)))
    expect(w.session.key(4)).toBeUndefined()
  })
})
