import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { type GroupSource, Membership } from '../../client/group.ts'
import { fileSource } from '../../client/sources.ts'
import { ClientState, type MembershipRecord } from '../../client/state.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { openMemoryStore } from '../../store/memory.ts'
import { addressOfNumber, CHAIN, TestClock, TestDevice, type TestGroup, TestKeyServer } from './sealed-world.ts'

const CLIENT = addressOfNumber(1)

describe('a membership', () => {
  let clock: TestClock
  let group: TestGroup
  let membership: Membership
  const make = (sources: readonly GroupSource[]) =>
    Membership.fromJoin(
      { gid: group.gid, device: group.device.address, bit: 0, client: CLIENT, clock, sources },
      group.join(CLIENT),
    )
  beforeEach(() => {
    clock = new TestClock()
    group = new TestKeyServer(clock).group(new TestDevice(7))
    membership = make([])
  })

  test('heals every session since its join with one later broadcast', () => {
    for (let i = 0; i < 6; i++) group.advance()
    expect(membership.receive(group.newest())).toMatchObject({ session: 7, from: 1 })
    for (let j = 1; j <= 7; j++) expect(membership.key(j)).toEqual(group.key(j))
    expect(membership.key(8)).toBeUndefined()
  })

  test('takes no broadcast twice, none older, none of another group, none that was touched', () => {
    const first = group.advance()
    const second = group.advance()
    membership.receive(second)
    expect(membership.receive(second)).toBe('old')
    expect(membership.receive(first)).toBe('old')
    const other = group.keyServer.group(group.device, 5)
    expect(() => membership.receive(other.newest())).toThrow(expect.objectContaining({ code: 'group/wrong-group' }))
    const touched = group.advance().slice()
    touched[touched.length - 70]! ^= 1
    expect(() => membership.receive(touched)).toThrow(expect.objectContaining({ code: 'group/bad-signature' }))
    expect(membership.session).toBe(3)
  })

  test('fetches the personal key of a new epoch when its first broadcast comes', async () => {
    const fetched: number[] = []
    membership.onUnknownEpoch = async (m) => {
      const { personalKey, keys } = group.join(CLIENT)
      fetched.push(group.manager.epoch)
      m.addPersonal(personalKey)
      m.addKeys(keys)
    }
    group.manager.allocateEpoch({ nbf: clock.seconds + 900 })
    group.manager.activateEpoch()
    group.advance()
    expect(await membership.take(group.newest())).toMatchObject({ session: 2, epoch: 2, from: 1 })
    expect(fetched).toEqual([2])
    expect(membership.key(2)).toEqual(group.key(2))
    expect(membership.epochs).toEqual([1, 2])
  })

  test('without the wallet it says what is missing, and goes on later', async () => {
    membership.onUnknownEpoch = () => Promise.reject(new IotchainError('client/needs-key', 'the wallet is not open'))
    group.manager.allocateEpoch({ nbf: clock.seconds + 900 })
    group.manager.activateEpoch()
    group.advance()
    await expect(membership.take(group.newest())).rejects.toMatchObject({ code: 'client/needs-key' })
    membership.addPersonal(group.join(CLIENT).personalKey)
    expect(membership.receive(group.newest())).toMatchObject({ session: 2 })
  })

  test('asks one source after the other; the one that failed comes last next time', async () => {
    const asked: string[] = []
    const source = (name: string, answer: () => Uint8Array | undefined): GroupSource => ({
      name,
      broadcast: async () => {
        asked.push(name)
        return answer()
      },
    })
    const away = source('away', () => {
      throw new IotchainError('coap/timeout', 'away')
    })
    const behind = source('behind', () => group.broadcasts.get(2))
    const good = source('good', () => group.newest())
    membership = make([away, behind, good])
    group.advance()
    group.advance()
    await membership.fetchBroadcast(3)
    expect(asked).toEqual(['away', 'behind', 'good'])
    asked.length = 0
    await membership.fetchBroadcast()
    expect(asked[0]).toBe('behind')
    membership = make([away])
    await expect(membership.fetchBroadcast()).rejects.toMatchObject({ code: 'coap/timeout' })
    membership = make([source('empty', () => undefined)])
    await expect(membership.fetchBroadcast()).rejects.toMatchObject({ code: 'client/no-broadcast' })
  })

  test('a forged broadcast of one source does not hide the good one of another', async () => {
    const forged = group.advance().slice()
    forged[forged.length - 1]! ^= 1
    membership = make([
      { name: 'forger', broadcast: async () => forged },
      { name: 'honest', broadcast: async () => group.newest() },
    ])
    group.advance()
    await membership.fetchBroadcast()
    expect(membership.session).toBe(3)
  })

  test('a source that shows an old broadcast does not make the view fresh', async () => {
    membership = make([{ name: 'stale', broadcast: async () => group.broadcasts.get(2) }])
    group.advance()
    membership.receive(group.advance())
    const seen = membership.broadcastSeenAt
    clock.seconds += 100
    await membership.fetchBroadcast()
    expect(membership.broadcastSeenAt).toBe(seen)
  })

  test('a broadcast from a file', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'iotchain-broadcast-'))
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
    writeFileSync(join(folder, 'b'), group.advance())
    membership = make([fileSource(join(folder, 'none')), fileSource(join(folder, 'b'))])
    await membership.fetchBroadcast()
    expect(membership.key(2)).toEqual(group.key(2))
  })

  test('kept and taken up again: the same keys, and never back below the session that was kept', async () => {
    const store = openMemoryStore()
    const recordOf = (m: Membership): MembershipRecord => ({
      version: 1,
      client: CLIENT,
      device: group.device.address,
      bit: 0,
      gid: group.gid,
      ...CHAIN,
      keyServer: { uri: 'coaps://x', spki: new Uint8Array(32) },
      kdcCred: m.kdcCred,
      broadcasts: 'coap://x',
      policies: m.policies!,
      credentials: [],
      member: m.state(),
      joinedAt: 0,
    })
    const behind = membership
    const before = recordOf(behind)
    const ahead = make([])
    for (let i = 0; i < 3; i++) group.advance()
    ahead.receive(group.newest())
    const state = new ClientState(store)
    await state.saveMembership(recordOf(ahead))
    // Another command, which has learnt nothing, writes later.
    await state.saveMembership(before)
    const [kept] = await new ClientState(store).memberships(CLIENT)
    const again = new Membership({ ...kept!, clock, state: kept!.member })
    expect(again.session).toBe(4)
    expect(again.receive(group.broadcasts.get(3)!)).toBe('old')
    for (let j = 1; j <= 4; j++) expect(again.key(j)).toEqual(group.key(j))
  })
})
