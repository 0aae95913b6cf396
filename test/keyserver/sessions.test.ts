import { afterEach, describe, expect, test } from 'vitest'
import { toHex } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { clientMemberId } from '../../protocol/groups/gid.ts'
import { decodePersonalKey } from '../../protocol/groups/personal-key.ts'
import { addressBytes } from '../../protocol/messages/address.ts'
import { decodeNodeKeys, nodeName } from '../../protocol/messages/node.ts'
import { createLogger } from '../../runtime/log.ts'
import type { Store, StoreOperation } from '../../store/store.ts'
import { call, createWorld, live, newest, plainPeer, TestClient, TestDevice, type World } from './harness.ts'

let world: World
afterEach(() => world.close())

async function setUp(options: Parameters<typeof createWorld>[0] = {}) {
  world = await createWorld(options)
  const device = await TestDevice.create(world)
  const client = new TestClient(world, 7)
  client.grant(device, [0], 86_400)
  return { device, client }
}
const group = (device: TestDevice, bit = 0) => world.server.roster.groups.get(device.name(bit))
const session = (device: TestDevice) => group(device)?.newest?.session as number

describe('time', () => {
  test('a broadcast is out `lead` before its session, and sessions follow each other without gap', async () => {
    const { device } = await setUp()
    await device.join()
    const first = group(device)?.newest
    await live(world, 49)
    expect(session(device)).toBe(1)
    await live(world, 1)
    expect(session(device)).toBe(2)
    expect(group(device)?.newest?.nbf).toBe(first?.exp)
  })

  test('an early session never begins less than the minimum after the last, also inside the lead', async () => {
    const { device, client } = await setUp()
    await device.join()
    await client.join(device)
    await live(world, 52)
    const second = group(device)?.newest?.nbf as number
    client.revoke(device)
    await world.server.headWatch.look()
    await live(world, 20)
    expect(session(device)).toBe(3)
    expect(group(device)?.newest?.nbf).toBe(second + 10)
  })

  test('after an outage sessions go on from now', async () => {
    const { device } = await setUp()
    await device.join()
    world.clock.pass(10_000)
    await world.server.sessions.tick()
    expect(session(device)).toBe(2)
    expect(group(device)?.newest?.nbf).toBe(world.clock.seconds)
  })

  test('a wall clock that is set back makes no session earlier than the last', async () => {
    const lines: Record<string, unknown>[] = []
    const write = (line: string): void => void lines.push(JSON.parse(line))
    const { device } = await setUp({ log: createLogger({ name: 'test', level: 'info', write }) })
    await device.join()
    await live(world, 60)
    const nbf = group(device)?.newest?.nbf as number
    world.clock.jump(-600)
    await live(world, 30)
    expect(group(device)?.newest?.nbf).toBe(nbf)
    const said = lines.filter((line) => String(line['msg']).includes('clock is behind the newest session'))
    expect(said).toHaveLength(1)
    expect(said[0]).toMatchObject({ level: 'error', behindSeconds: expect.any(Number) })
    expect(said[0]?.['behindSeconds']).toBeGreaterThan(500)
  })

  test('a group without members sleeps, and wakes for a joiner', async () => {
    const { device, client } = await setUp()
    const { reply } = await client.join(device)
    expect(reply.text).toBe('2.01')
    client.revoke(device)
    await live(world, 600)
    const asleep = session(device)
    await live(world, 600)
    expect(session(device)).toBe(asleep)
    client.grant(device, [0], 86_400)
    const { response } = await client.join(device)
    expect(response.num).toBe(asleep + 1)
    expect(response.exi).toBeGreaterThan(0)
  })

  test('a token that ends: out at the first session at or after its end', async () => {
    const { device } = await setUp()
    const short = new TestClient(world, 8)
    short.grant(device, [0], 90)
    await device.join()
    const { member } = await short.join(device)
    await live(world, 60)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: 2 })
    await live(world, 60)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
  })

  test('strict expiry cuts a session there', async () => {
    const { device } = await setUp({
      config: {
        sessions: { length: '60s', minimum: '10s', lead: '0s', epoch: '1h', window: '0s', strictExpiry: true },
      },
    })
    const short = new TestClient(world, 8)
    short.grant(device, [0], 25)
    await device.join()
    const end = world.clock.seconds + 25
    await short.join(device)
    await live(world, 30)
    expect(group(device)?.newest?.nbf).toBe(end)
  })
})

describe('epochs', () => {
  test('the next personal key is handed out before the border, and opens the sessions behind it', async () => {
    const { device, client } = await setUp()
    const { member } = await client.join(device)
    await live(world, 3360)
    const path = `/ace-group/${device.name(0)}/nodes/${nodeName(clientMemberId(addressBytes(client.address)))}`
    const reply = await call(world.server.secure, client.peer, 'GET', path)
    const keys = decodeNodeKeys(reply.payload as Uint8Array)
    expect(decodePersonalKey(keys.nextPersonalKey as Uint8Array).epoch).toBe(2)
    await live(world, 360)
    expect(group(device)?.manager.epoch).toBe(2)
    expect(member.receive(await newest(world, device))).toBe('unknown-epoch')
    member.addPersonal(decodePersonalKey(keys.nextPersonalKey as Uint8Array))
    const received = member.receive(await newest(world, device))
    expect(received).toMatchObject({ epoch: 2 })
    // one broadcast of the new epoch heals back across the border
    expect(member.key(2)).toHaveLength(16)
  })

  test('an old epoch’s key for who was a member in it, the archive of its broadcasts for all', async () => {
    const { device, client } = await setUp()
    await client.join(device)
    await live(world, 3900)
    const path = `/ace-group/${device.name(0)}/nodes/${nodeName(clientMemberId(addressBytes(client.address)))}`
    const old = decodeNodeKeys(
      (await call(world.server.secure, client.peer, 'GET', `${path}?epoch=1`)).payload as Uint8Array,
    )
    expect(decodePersonalKey(old.personalKey).epoch).toBe(1)
    expect(old.keys).toEqual([])
    expect((await call(world.server.plain, plainPeer, 'GET', `/bc/${device.name(0)}/3`)).text).toBe('2.05')
    const late = new TestClient(world, 9)
    late.grant(device, [0], 3600)
    await late.join(device)
    const foreign = path.replace(client.address.slice(2), late.address.slice(2))
    expect((await call(world.server.secure, late.peer, 'GET', `${foreign}?epoch=1`)).text).toMatch(/^4/)
    expect((await call(world.server.secure, late.peer, 'GET', path)).problem).toBe('keyserver/login-required')
  })

  test('epoch secrets lie in files of their own and go at retention', async () => {
    const { device } = await setUp({
      config: {
        sessions: {
          length: '60s',
          minimum: '10s',
          lead: '0s',
          epoch: '2m',
          window: '0s',
          windowSessions: 2,
          retainEpochs: 1,
        },
      },
    })
    await device.join()
    const { readdirSync } = await import('node:fs')
    await live(world, 1200)
    const files = readdirSync(`${world.folder}/epochs`)
    expect(group(device)?.manager.epoch).toBeGreaterThan(6)
    expect(files.length).toBeLessThanOrEqual(4)
    expect(files.every((f) => f.startsWith(device.name(0)))).toBe(true)
  })
})

describe('the chain away', () => {
  const config = {
    chain: {
      rpcUrl: 'http://127.0.0.1:1',
      id: 20180415,
      registry: `0x${'11'.repeat(20)}`,
      confirmations: 3,
      grace: '5m',
    },
  }

  test('for a while the last reading is used; then token holders are suspended, devices go on', async () => {
    const { device, client } = await setUp({ config })
    const onDevice = await device.join()
    const { member } = await client.join(device)
    world.chain.away = true
    await live(world, 240)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: 5 })
    await live(world, 180)
    const blind = await newest(world, device)
    expect(member.receive(blind)).toBe('not-for-me')
    expect(onDevice.member.receive(blind)).toMatchObject({ session: expect.any(Number) })
    world.chain.away = false
    await live(world, 61)
    const back = member.receive(await newest(world, device))
    expect(back).toMatchObject({ session: expect.any(Number) })
    // the gap is healed
    expect(member.key(session(device) - 1)).toHaveLength(16)
  })

  test('one whose token was replaced meanwhile is not resumed, but joins anew', async () => {
    const { device, client } = await setUp({ config })
    await device.join()
    const { member, response } = await client.join(device)
    world.chain.away = true
    await live(world, 420)
    client.revoke(device)
    client.grant(device, [0], 86_400)
    world.chain.away = false
    await live(world, 61)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
    world.server.forget(client.peer.key)
    const again = await client.join(device)
    expect(decodePersonalKey(again.response.personalKey).start).toBeGreaterThan(
      decodePersonalKey(response.personalKey).start,
    )
  })

  test('a restart while the chain is away keeps the members', async () => {
    const { device, client } = await setUp({ config, onDisk: true })
    await device.join()
    const { member } = await client.join(device)
    await live(world, 61)
    world.chain.away = true
    await world.restart()
    await live(world, 61)
    expect(member.receive(await newest(world, device))).toMatchObject({ session: expect.any(Number) })
    await live(world, 420)
    expect(member.receive(await newest(world, device))).toBe('not-for-me')
  })
})

describe('commit before send', () => {
  function failing() {
    const control = {
      fail: false,
      /** broadcasts in batches that failed */
      refused: [] as string[],
      store: (inner: Store): Store => ({
        get: (key) => inner.get(key),
        range: (range) => inner.range(range),
        close: () => inner.close(),
        async batch(operations, options) {
          if (control.fail) {
            for (const o of operations)
              if (o.type === 'put' && o.key.startsWith('bc/')) control.refused.push(toHex(o.value))
            throw new IotchainError('store/full', 'the disk is full')
          }
          await inner.batch(operations, options)
        },
      }),
    }
    return control
  }

  test('a full disk: no broadcast, no key leaves; with room again the very same broadcast goes out', async () => {
    const disk = failing()
    const { device, client } = await setUp({ wrapStore: disk.store })
    await device.join()
    await live(world, 40)
    disk.fail = true
    await live(world, 30)
    expect((await client.tryJoin(device)).text).toBe('5.03')
    expect(session(device)).toBe(1)
    expect(group(device)?.manager.session).toBe(2)
    disk.fail = false
    await live(world, 3)
    expect(session(device)).toBe(2)
    const stored = toHex((await world.server.storage.broadcast(device.name(0), 2)) as Uint8Array)
    expect(stored).toBe(toHex(await newest(world, device)))
    expect(disk.refused.length).toBeGreaterThan(1)
    expect(new Set(disk.refused)).toEqual(new Set([stored]))
    expect((await client.tryJoin(device)).text).toMatch(/^2/)
  })

  /** Keeps what was not written with `sync` in memory only: a cut of the power takes it away. */
  function losingPower() {
    const control = {
      store: (inner: Store): Store => {
        let volatile: StoreOperation[] = []
        return {
          async get(key) {
            const newest = volatile.findLast((o) => o.key === key)
            if (newest === undefined) return inner.get(key)
            return newest.type === 'put' ? newest.value : undefined
          },
          range: (range) => inner.range(range),
          close: () => inner.close(),
          async batch(operations, options) {
            volatile.push(...operations)
            if (options?.sync !== true) return
            const all = volatile
            volatile = []
            await inner.batch(all)
          },
        }
      },
    }
    return control
  }

  test('what left the key server survives a cut of the power: broadcasts, members, Sender IDs', async () => {
    const { device, client } = await setUp({ onDisk: true, wrapStore: losingPower().store })
    const first = await device.join()
    const reader = await client.join(device)
    await live(world, 130)
    const before = toHex(await newest(world, device))
    await world.restart()
    expect(toHex(await newest(world, device))).toBe(before)
    expect((await device.join()).response.senderId).toEqual(first.response.senderId)
    expect((await client.join(device)).response.personalKey).toEqual(reader.response.personalKey)
  })

  test('everything is as it was after a restart: session, members, leaves, Sender IDs', async () => {
    const { device, client } = await setUp({ onDisk: true })
    const first = await device.join()
    const reader = await client.join(device)
    await live(world, 130)
    const before = toHex(await newest(world, device))
    await world.restart()
    expect(toHex(await newest(world, device))).toBe(before)
    const again = await device.join()
    expect(again.reply.text).toBe('2.04')
    expect(again.response.senderId).toEqual(first.response.senderId)
    expect(again.response.personalKey).toEqual(first.response.personalKey)
    await live(world, 60)
    expect(reader.member.receive(await newest(world, device))).toMatchObject({ session: expect.any(Number) })
  })

  test('a lost epoch key file: a new tree, healing begins after it, nobody is locked out', async () => {
    const { device } = await setUp({ onDisk: true })
    await device.join()
    await live(world, 130)
    const { readdirSync, rmSync } = await import('node:fs')
    for (const f of readdirSync(`${world.folder}/epochs`)) rmSync(`${world.folder}/epochs/${f}`)
    const before = session(device)
    await world.restart()
    await live(world, 61)
    expect(session(device)).toBe(before + 1)
    expect(group(device)?.manager.epoch).toBe(2)
    const { member } = await device.join()
    await live(world, 61)
    expect(member.receive(await newest(world, device))).toMatchObject({ from: before + 1 })
  })

  test('the archive is bounded, oldest first, never inside the window', async () => {
    const { device } = await setUp({
      config: {
        sessions: { length: '60s', minimum: '10s', lead: '0s', epoch: '1h', window: '0s', windowSessions: 5 },
        limits: { archiveMiB: 0.003 },
      },
    })
    await device.join()
    await live(world, 60 * 30)
    const there = async (j: number) =>
      (await call(world.server.plain, plainPeer, 'GET', `/bc/${device.name(0)}/${j}`)).text
    const last = session(device)
    expect(await there(1)).toBe('4.04')
    for (let j = last - 4; j <= last; j++) expect(await there(j)).toBe('2.05')
  })

  test('a window measured in time is kept whole, however many sessions it has; what is older takes the room', async () => {
    const { device } = await setUp({
      config: {
        sessions: { length: '60s', minimum: '10s', lead: '0s', epoch: '1h', window: '20m', windowSessions: 2 },
        limits: { archiveMiB: 0.0005 },
      },
    })
    await device.join()
    await live(world, 60 * 40)
    const there = async (j: number) =>
      (await call(world.server.plain, plainPeer, 'GET', `/bc/${device.name(0)}/${j}`)).text
    const last = session(device)
    for (let j = last - 19; j <= last; j++) expect(await there(j)).toBe('2.05')
    // about two of 240 octets fit into 524
    expect(await there(last - 21)).toBe('2.05')
    expect(await there(last - 24)).toBe('4.04')
  })
})
