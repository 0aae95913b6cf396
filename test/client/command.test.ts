import { describe, expect, onTestFinished, test } from 'vitest'
import { suite } from '#crypto'
import { IotClient } from '../../client/client.ts'
import { type CommandSender, confirmsCommand, sealCommand, sendCommand } from '../../client/command.ts'
import type { ObjectPlace } from '../../client/fetch.ts'
import { ClientState } from '../../client/state.ts'
import { coseKeyEd25519 } from '../../protocol/cose/key.ts'
import { clientMemberId, gname } from '../../protocol/groups/gid.ts'
import { encodePersonalKey } from '../../protocol/groups/personal-key.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import type { JoinResponse } from '../../protocol/messages/join.ts'
import { issueCredential } from '../../protocol/objects/credential.ts'
import { openMemoryStore } from '../../store/memory.ts'
import { fastClock, makeRig, type Rig } from '../device/device-rig.ts'
import { CHAIN } from '../device/key-server-double.ts'
import { addressOfNumber, TestClock, TestDevice, TestKeyServer } from './sealed-world.ts'

/** The client's commands against the real device. */
const CLIENT: Address = `0x${'44'.repeat(20)}`
const READERS = 1
const COMMANDERS = 8
const RELAY = {
  path: '/a/relay',
  driver: 'simulated-out',
  group: READERS,
  commandGroup: COMMANDERS,
  safe: 'off',
  every: '1s',
}
const now = (): number => Math.floor(fastClock.nowMs() / 1000)

/** What the key server would answer this client, and the credential that it would issue for its commands. */
function joinOf(rig: Rig, bit: number, commandSeed?: Uint8Array): JoinResponse {
  const { gid, manager } = rig.keyServer.group(bit)
  const result = manager.join(clientMemberId(addressBytes(CLIENT)), { mode: 'current', now: now() })
  const senderId = commandSeed === undefined ? undefined : manager.issueSid()
  if (manager.changes() !== undefined) manager.committed()
  if (commandSeed !== undefined && senderId !== undefined) {
    rig.keyServer.commanders.push(
      issueCredential(
        suite,
        {
          issuer: 'test',
          subject: CLIENT,
          role: 'w',
          iat: now(),
          exp: now() + 3600,
          publicKey: suite.ed25519.signing(commandSeed).publicKey,
          groups: new Map([[gname(gid), [{ sid: senderId, from: now() }]]]),
        },
        rig.keyServer.kdc,
      ),
    )
  }
  return {
    keys: result.keys.map((k) => ({ session: k.session, key: k.K })),
    num: manager.session,
    exp: now() + 3600,
    exi: 3600,
    serverTime: now(),
    creds: bit === READERS ? [rig.keyServer.credential()] : [],
    peerIdentifiers: [],
    policies: {
      sessionSeconds: 3600,
      graceSeconds: 60,
      aead: 24,
      window: 96,
      epochSeconds: 86_400,
      maxAgeSeconds: 3600,
      confirmations: 3,
    },
    kdcCred: coseKeyEd25519(rig.keyServer.kdc.publicKey),
    senderId,
    controlUri: 'x',
    personalKey: encodePersonalKey(result.personal),
    controlGroupUri: `coap://127.0.0.1:${rig.keyServer.port}/bc/${gname(gid)}`,
  }
}

async function scene() {
  const rig = await makeRig({ resources: [RELAY] })
  rig.keyServer.publish(READERS)
  rig.keyServer.publish(COMMANDERS)
  await rig.device.start()
  await expect.poll(() => rig.keyServer.joins, { timeout: 15_000 }).toBe(2)
  const state = new ClientState(openMemoryStore())
  const chain = { chainId: CHAIN.id, registry: CHAIN.registry }
  const client = new IotClient({ chain, clock: fastClock, state })
  onTestFinished(() => client.close())
  const commandSeed = suite.ed25519.generate()
  const join = (bit: number, seed?: Uint8Array) =>
    client.joinOn({ join: async () => joinOf(rig, bit, seed) } as never, {
      signer: { address: CLIENT, signStruct: async () => new Uint8Array(65) },
      keyServer: { uri: 'coaps://x', spki: new Uint8Array(32) },
      device: rig.address,
      bit,
      commandSeed: seed,
    })
  await join(READERS)
  const membership = await join(COMMANDERS, commandSeed)
  rig.keyServer.publish(READERS)
  rig.keyServer.publish(COMMANDERS)
  const record = await state.membership(CLIENT, membership.gid)
  const sender: CommandSender = {
    membership,
    senderId: record!.senderId!,
    commandSeed,
    state,
    clock: fastClock,
    startMs: fastClock.nowMs(),
  }
  const connection = await client.connections.to(`coap://127.0.0.1:${rig.device.address?.port}`)
  const place: ObjectPlace = { connection, via: 'device', device: rig.address, path: ['a', 'relay'] }
  await expect
    .poll(
      () =>
        client.read(place).then(
          (r) => r.records[0]?.value,
          (e) => e.code,
        ),
      { timeout: 15_000 },
    )
    .toBe(false)
  // Past the second in which the device began to remember commands.
  const begun = now()
  await expect.poll(now, { timeout: 5000, interval: 20 }).toBeGreaterThan(begun + 1)
  return { rig, client, sender, place }
}

describe('a client commands', () => {
  test('an actuator, and believes its signed state only', async () => {
    const { client, sender, place } = await scene()
    const before = await client.read(place)
    const order = await sendCommand(sender, place, true)
    expect(confirmsCommand(before, order)).toBe(false)
    await expect
      .poll(
        () =>
          client.read(place).then(
            (r) => confirmsCommand(r, order),
            () => false,
          ),
        { timeout: 5000 },
      )
      .toBe(true)
    expect((await client.read(place)).records[0]?.value).toBe(true)
    const next = await sendCommand(sender, place, false)
    expect(next.seq).toBeGreaterThan(order.seq)
  })

  test('what is replayed, redirected or sent to a proxy is refused', async () => {
    const { rig, sender, place } = await scene()
    await sender.membership.fetchBroadcast()
    const { bytes } = await sealCommand(sender, place.path, true)
    const put = (octets: Uint8Array) => place.connection.put(place.path, octets, { contentFormat: 18 })
    expect((await put(bytes)).codeText).toBe('2.04')
    expect((await put(bytes)).codeText).toBe('4.09')
    const elsewhere = await sealCommand(sender, ['a', 'lamp'], true)
    expect((await put(elsewhere.bytes)).codeText).toBe('4.01')
    await expect(sendCommand(sender, { ...place, via: 'proxy' }, true)).rejects.toMatchObject({
      code: 'client/wrong-form',
    })
    // The right is revoked: from the next session on there is no key to seal under.
    const { manager } = rig.keyServer.group(COMMANDERS)
    manager.leave(clientMemberId(addressBytes(CLIENT)))
    if (manager.changes() !== undefined) manager.committed()
    rig.keyServer.publish(COMMANDERS)
    await expect
      .poll(
        () =>
          sendCommand(sender, place, true).then(
            () => 'taken',
            (e) => e.code,
          ),
        { timeout: 8000, interval: 200 },
      )
      .toMatch(/client\/(forbidden|no-session)/)
  })
})

describe('sequence numbers of a client', () => {
  test('never repeat, whatever is restarted or restored', async () => {
    const clock = new TestClock()
    const group = new TestKeyServer(clock).group(new TestDevice(7))
    const sid = Uint8Array.of(5)
    const used = new Set<number>()
    let store = openMemoryStore()
    const take = async (state: ClientState, startMs: number): Promise<void> => {
      for (;;) {
        const taken = await state.takeSequence(group.gid, sid, startMs, clock.nowMs())
        if ('seq' in taken) {
          expect(used.has(taken.seq)).toBe(false)
          used.add(taken.seq)
          return
        }
        clock.seconds += Math.max(1, Math.ceil(taken.waitMs / 1000))
      }
    }
    for (let run = 0; run < 12; run++) {
      // Every third run finds an empty folder: the oldest backup that there can be.
      if (run % 3 === 2) store = openMemoryStore()
      const state = new ClientState(store)
      const startMs = clock.nowMs()
      for (let i = 0; i < 300; i++) await take(state, startMs)
    }
    expect(used.size).toBe(3600)
    expect(addressOfNumber(1)).toMatch(/^0x01/)
  })
})
