import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import type { GroupMember } from '../../protocol/groups/scheme.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { encodeCommand, lastCommandOf } from '../../protocol/objects/command.ts'
import { issueCredential } from '../../protocol/objects/credential.ts'
import { createSealer } from '../../protocol/objects/seal.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { fastClock, makeRig, type Rig } from './device-rig.ts'

const RELAY = { path: '/a/relay', driver: 'simulated-out', group: 1, commandGroup: 8, safe: 'off', every: '1s' }
const LAMP = { ...RELAY, path: '/a/lamp' }
const CLIENT: Address = `0x${'33'.repeat(20)}`

interface Commander {
  readonly member: GroupMember
  readonly sid: Uint8Array
  /** The key server begins to hand out the credential. */
  publish(life?: { iat: number; exp: number }): void
  seal(
    value: boolean,
    changes?: { path?: string[]; seq?: number; iat?: number; session?: number; device?: Uint8Array; key?: Uint8Array },
  ): Uint8Array
  seq: number
}

const now = (): number => Math.floor(fastClock.nowMs() / 1000)

/** A client with the right to command: member of group 8, with a Sender ID and a credential of role w. */
function makeCommander(rig: Rig, options: { bit?: number; known?: boolean; expired?: boolean } = {}): Commander {
  const bit = options.bit ?? 8
  const member = rig.keyServer.client(bit, 0x33)
  const { gid, manager } = rig.keyServer.group(bit)
  const sid = manager.issueSid()
  if (manager.changes() !== undefined) manager.committed()
  const seed = suite.ed25519.generate()
  const signingKey = suite.ed25519.signing(seed)
  const iat = now()
  const groups = new Map([[[...gid].map((b) => b.toString(16).padStart(2, '0')).join(''), [{ sid, from: iat }]]])
  const publish = (life = { iat, exp: iat + 3600 }): void => {
    const claims = { issuer: 'test', subject: CLIENT, role: 'w' as const, publicKey: signingKey.publicKey, groups }
    rig.keyServer.commanders.push(issueCredential(suite, { ...claims, ...life }, rig.keyServer.kdc))
  }
  if (options.known !== false) publish()
  return {
    member,
    publish,
    sid,
    seq: 100,
    seal(value, changes = {}) {
      const session = changes.session ?? member.session
      const K = member.key(session) as Uint8Array
      const device = changes.device ?? addressBytes(rig.address)
      const path = changes.path ?? ['a', 'relay']
      const key = changes.key === undefined ? signingKey : suite.ed25519.signing(changes.key)
      const sealer = createSealer(suite, { K, gid, session, device, sid, path, algorithm: 24, signingKey: key })
      const seq = changes.seq ?? this.seq++
      return sealer.seal({ seq, iat: changes.iat ?? now(), contentFormat: 112, plaintext: encodeCommand(value) }).signed
    },
  }
}

interface Scene {
  readonly rig: Rig
  readonly client: CoapClient
  readonly commander: Commander
  readonly reader: GroupMember
  send(bytes: Uint8Array, path?: string): Promise<string>
  state(path?: string): Promise<{ on: unknown; last: { sid: Uint8Array; seq: number } | undefined }>
}

async function makeScene(): Promise<Scene> {
  const rig = await makeRig({ resources: [RELAY, LAMP] })
  const reader = rig.keyServer.client(1)
  reader.receive(rig.keyServer.publish(1))
  const commander = makeCommander(rig)
  commander.member.receive(rig.keyServer.publish(8))
  await rig.device.start()
  const client = await rig.client()
  const state = async (path = '/a/relay') => {
    const reply = await client.get(path)
    if (!reply.ok) return { on: undefined, last: undefined }
    const { records } = rig.open(reply.payload, path, reader)
    return { on: records[0]?.vb, last: lastCommandOf(records) }
  }
  await expect.poll(async () => (await state()).on, { timeout: 15_000 }).toBe(false)
  await expect.poll(() => rig.keyServer.joins, { timeout: 15_000 }).toBe(2)
  // Past the second in which the device began to remember commands.
  const begun = now()
  await expect.poll(() => now(), { timeout: 5000, interval: 20 }).toBeGreaterThan(begun + 1)
  const send = async (bytes: Uint8Array, path = '/a/relay'): Promise<string> =>
    (await client.post(path, bytes, { contentFormat: ContentFormat.coseSign1 })).codeText
  return { rig, client, commander, reader, send, state }
}

describe('commands', () => {
  test('a good one moves the actuator, and the sealed state names it', async () => {
    const { commander, send, state } = await makeScene()
    expect(await send(commander.seal(true))).toBe('2.04')
    await expect.poll(async () => (await state()).on, { timeout: 5000 }).toBe(true)
    expect((await state()).last).toEqual({ sid: commander.sid, seq: 100 })
    expect((await state('/a/lamp')).on).toBe(false)
    expect(await send(commander.seal(false))).toBe('2.04')
    await expect.poll(async () => (await state()).on, { timeout: 5000 }).toBe(false)
    expect((await state()).last?.seq).toBe(101)
  })

  test('replayed, old, future, redirected, foreign and broken ones are refused, each with its code', async () => {
    const { rig, client, commander, send, state } = await makeScene()
    const good = commander.seal(true, { seq: 200 })
    expect(await send(good)).toBe('2.04')
    expect(await send(good)).toBe('4.09')
    expect(await send(commander.seal(false, { seq: 199 }))).toBe('4.09')
    expect(await send(commander.seal(false, { iat: now() - 31 }))).toBe('4.09')
    expect(await send(commander.seal(false, { iat: now() + 40 }))).toBe('4.09')
    expect(await send(commander.seal(false, { path: ['a', 'lamp'], seq: 300 }))).toBe('4.01')
    expect(await send(commander.seal(false, { device: new Uint8Array(20).fill(9), seq: 301 }))).toBe('4.01')
    expect(await send(commander.seal(false, { key: suite.ed25519.generate(), seq: 302 }))).toBe('4.01')
    const stripped = commander.seal(false, { seq: 303 })
    stripped[stripped.length - 1] = (stripped[stripped.length - 1] as number) ^ 1
    expect(await send(stripped)).toBe('4.01')
    expect(await send(new Uint8Array(50))).toBe('4.00')
    expect((await client.post('/a/relay', good, { contentFormat: ContentFormat.cbor })).codeText).toBe('4.15')
    expect((await state()).on).toBe(true)
    expect((await state()).last?.seq).toBe(200)
    const reader = makeCommander(rig, { bit: 1 })
    reader.member.receive(rig.keyServer.publish(1))
    expect(await send(reader.seal(false, { seq: 400 }))).toBe('4.03')
  })

  test('without a credential of role w nobody commands; one that came later is fetched once', async () => {
    const { rig, send, state } = await makeScene()
    const later = makeCommander(rig, { known: false })
    later.member.receive(rig.keyServer.publish(8))
    const begun = now()
    await expect.poll(() => now(), { timeout: 5000 }).toBeGreaterThan(begun + 1)
    expect(await send(later.seal(true))).toBe('4.01')
    later.publish()
    expect(await send(later.seal(true))).toBe('4.01')
    expect((await state()).on).toBe(false)
    // Asked for again only after ten seconds.
    await expect.poll(() => send(later.seal(true)), { timeout: 10_000, interval: 100 }).toBe('2.04')
  })

  test('a credential that ended is asked after: the right may have been renewed', async () => {
    const { rig, send } = await makeScene()
    const renewed = makeCommander(rig, { known: false })
    renewed.member.receive(rig.keyServer.publish(8))
    const begun = now()
    renewed.publish({ iat: begun, exp: begun + 15 })
    await expect.poll(() => now(), { timeout: 5000 }).toBeGreaterThan(begun + 1)
    expect(await send(renewed.seal(true))).toBe('2.04')
    await expect.poll(() => now(), { timeout: 10_000, interval: 20 }).toBeGreaterThan(begun + 15)
    renewed.member.receive(rig.keyServer.publish(8))
    // 4.03 until the device has the session too
    await expect.poll(() => send(renewed.seal(false)), { timeout: 10_000, interval: 50 }).toBe('4.01')
    renewed.publish({ iat: begun, exp: begun + 3600 })
    await expect.poll(() => send(renewed.seal(false)), { timeout: 15_000, interval: 100 }).toBe('2.04')
  })

  test('after a session is over its commands count for ten seconds', async () => {
    const { rig, commander, send } = await makeScene()
    const first = commander.member.session
    commander.member.receive(rig.keyServer.publish(8))
    const { nbf } = commander.member.times(commander.member.session) as { nbf: number }
    await expect.poll(() => now(), { timeout: 5000, interval: 20 }).toBeGreaterThanOrEqual(nbf)
    expect(await send(commander.seal(true, { session: first }))).toBe('2.04')
    await expect.poll(() => now(), { timeout: 10_000, interval: 20 }).toBeGreaterThan(nbf + 11)
    expect(await send(commander.seal(false, { session: first }))).toBe('4.03')
    expect(await send(commander.seal(false))).toBe('2.04')
  })

  test('a revoked one is left out of the next session', async () => {
    const { rig, commander, send } = await makeScene()
    const { manager } = rig.keyServer.group(8)
    for (const m of [...manager.members()]) if (m.id[0] === 1) manager.leave(m.id)
    const next = rig.keyServer.publish(8)
    expect(commander.member.receive(next)).toBe('not-for-me')
    const begun = now()
    await expect.poll(() => now(), { timeout: 10_000, interval: 20 }).toBeGreaterThan(begun + 12)
    expect(await send(commander.seal(true))).toBe('4.03')
  })

  test('the number is remembered across restarts; memory that was lost takes only what was sealed after', async () => {
    const { rig, commander } = await makeScene()
    const client = await rig.client()
    const before = commander.seal(true, { seq: 500 })
    expect((await client.post('/a/relay', before, { contentFormat: 18 })).codeText).toBe('2.04')
    await rig.restart()
    const again = await rig.client()
    const send = async (bytes: Uint8Array) => (await again.post('/a/relay', bytes, { contentFormat: 18 })).codeText
    await expect.poll(() => send(before), { timeout: 10_000 }).toBe('4.09')
    const old = commander.seal(true, { seq: 501 })
    await rig.device.stop()
    rmSync(join(rig.folder, 'state/db'), { recursive: true })
    const begun = now()
    await expect.poll(() => now(), { timeout: 5000, interval: 20 }).toBeGreaterThan(begun + 1)
    await rig.restart()
    const third = await rig.client()
    const post = async (bytes: Uint8Array) => (await third.post('/a/relay', bytes, { contentFormat: 18 })).codeText
    const started = now()
    await expect.poll(() => now(), { timeout: 5000, interval: 20 }).toBeGreaterThan(started + 1)
    await expect.poll(() => post(commander.seal(false, { seq: 499 })), { timeout: 15_000 }).toBe('2.04')
    expect(await post(old)).toBe('4.09')
  })
})
