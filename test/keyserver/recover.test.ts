import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import { type Mirror, recover, requireRevocationAnswer } from '../../keyserver/recover.ts'
import { Storage } from '../../keyserver/storage.ts'
import { toHex } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { decodePersonalKey } from '../../protocol/groups/personal-key.ts'
import { openLevelStore } from '../../store/level.ts'
import { createWorld, live, newest, TestClient, TestDevice, type World } from './harness.ts'

const broadcastKey = suite.ed25519.signing(new Uint8Array(32).fill(9))
const verifyKey = suite.ed25519.verifying(broadcastKey.publicKey)
let folder: string
let backup: string
let world: World
let device: TestDevice
let client: TestClient

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'iotchain-recover-'))
  backup = mkdtempSync(join(tmpdir(), 'iotchain-backup-'))
  world = await createWorld({ folder, onDisk: true })
  device = await TestDevice.create(world)
  client = new TestClient(world, 7)
  client.grant(device, [0], 10 * 86_400)
})
afterEach(async () => {
  await world.close()
  rmSync(folder, { recursive: true, force: true })
  rmSync(backup, { recursive: true, force: true })
})

/** Goes on with the state of a moment ago, after `recover`. */
async function restoreAndRecover(mirrors: Mirror[], warnings: string[] = []) {
  await world.close()
  rmSync(folder, { recursive: true, force: true })
  cpSync(backup, folder, { recursive: true })
  const store = await openLevelStore(join(folder, 'store'))
  const report = await recover({
    suite,
    storage: new Storage(store),
    folder,
    verifyKey,
    mirrors,
    revoked: ['0ABC'],
    now: world.clock.seconds,
    minSessionSeconds: 10,
    onWarning: (text) => warnings.push(text),
  })
  await store.close()
  const { clock, chain } = world
  world = await createWorld({ folder, onDisk: true, clock, chain: () => chain })
  Object.assign(device, { world })
  Object.assign(client, { world })
  return report
}

async function backUp(): Promise<void> {
  await world.restart()
  await world.close()
  cpSync(folder, backup, { recursive: true })
  const { clock, chain } = world
  world = await createWorld({ folder, onDisk: true, clock, chain: () => chain })
  Object.assign(device, { world })
  Object.assign(client, { world })
}

describe('a backup of yesterday', () => {
  test('no session, epoch or Sender ID comes twice, and everybody gets in again', async () => {
    const first = await device.join()
    const reader = await client.join(device)
    await live(world, 130)
    await backUp()
    const published = new Set<string>()
    await live(world, 4000)
    const last = world.server.roster.groups.get(device.name(0))?.newest?.session as number
    const epoch = world.server.roster.groups.get(device.name(0))?.manager.epoch as number
    const lostBroadcast = await newest(world, device)
    published.add(toHex(lostBroadcast))
    await restoreAndRecover([])
    const group = () => world.server.roster.groups.get(device.name(0))
    expect(group()?.newest).toBeUndefined()
    expect([...(group()?.manager.members() ?? [])]).toEqual([])
    const again = await device.join()
    expect(again.reply.text).toBe('2.01')
    expect(again.response.num).toBeGreaterThan(last)
    expect(decodePersonalKey(again.response.personalKey).epoch).toBeGreaterThan(epoch)
    expect(Number.parseInt(toHex(again.response.senderId as Uint8Array), 16)).toBeGreaterThan(65_536)
    expect(again.response.senderId).not.toEqual(first.response.senderId)
    const anew = await client.join(device)
    await live(world, 61)
    const broadcast = await newest(world, device)
    expect(reader.member.receive(broadcast)).toBe('unknown-epoch')
    expect(anew.member.receive(broadcast)).toMatchObject({ from: again.response.num })
    expect(world.server.certificates.isRevoked('0abc')).toBe(true)
  })

  test('what a mirror has seen counts, what is forged does not', async () => {
    await device.join()
    await backUp()
    await live(world, 60 * 30)
    const seen = await newest(world, device)
    world.clock.jump(-60 * 30)
    const warnings: string[] = []
    const forged = seen.slice()
    forged[forged.length - 1] = (forged[forged.length - 1] ?? 0) ^ 1
    const report = await restoreAndRecover(
      [
        { name: 'good', newest: async () => seen },
        { name: 'forger', newest: async () => forged },
        { name: 'empty', newest: async () => undefined },
        {
          name: 'away',
          newest: async () => {
            throw new IotchainError('coap/timeout', 'no answer')
          },
        },
      ],
      warnings,
    )
    expect(report[0]?.seenSession).toBeGreaterThan(25)
    expect(report[0]?.first).toBeGreaterThan((report[0]?.seenSession as number) + 15)
    expect(warnings).toHaveLength(2)
  })

  test('codes are void', async () => {
    const { text } = world.server.codes.create({
      randomBytes: (n) => suite.randomBytes(n),
      owner: `0x${'0a'.repeat(20)}`,
      expiresAt: world.clock.seconds + 86_400,
    })
    expect(text).toHaveLength(32)
    await device.join()
    await backUp()
    await restoreAndRecover([])
    expect(readdirSync(join(folder, 'codes'))).toEqual([])
    expect(readdirSync(join(folder, 'epochs'))).toEqual([])
  })

  test('twice is as good as once', async () => {
    await device.join()
    await backUp()
    const [one] = await restoreAndRecover([])
    await backUp()
    const [two] = await restoreAndRecover([])
    expect(two?.first).toBeGreaterThan(one?.first as number)
    expect((await device.join()).response.num).toBeGreaterThanOrEqual(two?.first as number)
  })
})

test('the operator has to say what became of certificates', () => {
  expect(() => requireRevocationAnswer([], false)).toThrow(expect.objectContaining({ code: 'config/invalid' }))
  expect(() => requireRevocationAnswer([], true)).not.toThrow()
  expect(() => requireRevocationAnswer(['x'], false)).not.toThrow()
})
