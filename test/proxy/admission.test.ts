import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import { isIotchainError } from '../../protocol/errors.ts'
import { type Gid, gname } from '../../protocol/groups/gid.ts'
import { Admission } from '../../proxy/admission.ts'
import { ObjectArchive } from '../../proxy/archive.ts'
import { GroupCredentials } from '../../proxy/credentials.ts'
import { type KeyServer, KeyServers } from '../../proxy/key-servers.ts'
import { RateLimit } from '../../proxy/rate-limit.ts'
import { parseTarget } from '../../proxy/target.ts'
import { createLogger, silentLogger } from '../../runtime/log.ts'
import { openMemoryStore } from '../../store/memory.ts'
import type { Store } from '../../store/store.ts'
import { TestClock, TestDevice, type TestGroup, TestKeyServer } from '../client/sealed-world.ts'

const code = (what: string) => expect.objectContaining({ code: what })

class StandIn implements KeyServer {
  readonly name = 'coaps://stand-in'
  asked = 0
  away = false
  readonly #world: TestKeyServer
  readonly groups: TestGroup[] = []
  constructor(world: TestKeyServer) {
    this.#world = world
  }
  async kdcCred() {
    return this.#world.kdcCred
  }
  async credentials(gid: Gid) {
    this.asked++
    if (this.away) throw Object.assign(new Error('away'), { name: 'IotchainError', code: 'coap/timeout' })
    const group = this.groups.find((g) => gname(g.gid) === gname(gid))
    return group === undefined ? undefined : [group.credential()]
  }
  plain(): never {
    throw new Error('not used here')
  }
  async close() {}
}

interface World {
  clock: TestClock
  standIn: StandIn
  keyServer: TestKeyServer
  device: TestDevice
  group: TestGroup
  archive: ObjectArchive
  admission: Admission
  credentials: GroupCredentials
  changed: string[]
  lines: string[]
  put(bytes: Uint8Array, path?: string, backlog?: boolean): Promise<string>
}

async function world(store: Store = openMemoryStore(), before?: World): Promise<World> {
  const clock = before?.clock ?? new TestClock()
  const keyServer = before?.keyServer ?? new TestKeyServer(clock)
  const device = before?.device ?? new TestDevice(7)
  const group = before?.group ?? keyServer.group(device)
  const standIn = new StandIn(keyServer)
  standIn.groups.push(group)
  const keyServers = new KeyServers({ servers: [standIn], store, clock, log: silentLogger, unknownPerMinute: 3 })
  await keyServers.load()
  const lines: string[] = []
  const log = createLogger({ name: 'proxy', write: (line) => lines.push(line), monotonicMs: () => clock.monotonicMs() })
  const credentials = new GroupCredentials({ keyServers, store, clock, log, refetchMs: 10_000 })
  await credentials.load()
  const archive = await ObjectArchive.open(store, {
    devices: 4,
    resourcesPerDevice: 4,
    historyBytesPerDevice: 100_000,
    historyKeepSeconds: 86_400,
  })
  const changed: string[] = []
  const admission = new Admission({
    archive,
    credentials,
    clock,
    log,
    maxSkewSeconds: 300,
    maxObjectOctets: 1000,
    rate: new RateLimit({ clock, perSecond: 1, burst: 50, what: 'objects' }),
    historyKeepSeconds: 86_400,
    onChange: (t) => changed.push(t.resource),
  })
  const put = (bytes: Uint8Array, path = 's/temp', backlog = false) =>
    admission.put(parseTarget([device.address, ...path.split('/')]), bytes, backlog)
  return { clock, standIn, keyServer, device, group, archive, admission, credentials, changed, lines, put }
}

describe('a proxy stores', () => {
  let w: World
  beforeEach(async () => {
    w = await world()
  })
  const latest = () => w.archive.resource(w.device.address, '/s/temp')?.latest

  test('what its device signed, once, and only forward', async () => {
    const [first, second, third] = [w.group.seal(), w.group.seal(), w.group.seal()]
    expect(await w.put(first!.signed)).toBe('created')
    expect(await w.put(third!.signed)).toBe('changed')
    expect(await w.put(third!.signed)).toBe('same')
    await expect(w.put(second!.signed)).rejects.toThrow(code('proxy/order'))
    expect(Buffer.from(latest()!.bytes)).toEqual(Buffer.from(third!.signed))
    expect(w.changed).toEqual(['/s/temp', '/s/temp'])
    expect(w.standIn.asked).toBe(2)
  })

  test('a new incarnation counts as later, whatever its sequence numbers', async () => {
    await w.put(w.group.seal({ seq: 9000 }).signed)
    const stale = w.group.seal({ seq: 9001 }).signed
    w.clock.seconds += 20
    w.device.sids.push({ sid: Uint8Array.of(7, 1), from: w.clock.seconds })
    expect(await w.put(w.group.seal({ seq: 1 }).signed)).toBe('changed')
    await expect(w.put(stale)).rejects.toThrow(code('proxy/order'))
  })

  test('backlog goes to the past, whatever is the latest; twice is once', async () => {
    const old = w.group.seal().signed
    await w.put(w.group.seal().signed)
    w.clock.seconds += 1000
    expect(await w.put(old, 's/temp', true)).toBe('changed')
    expect(await w.put(old, 's/temp', true)).toBe('same')
    expect(latest()!.seq).toBe(2)
    expect((await w.archive.list(w.device.address, '/s/temp', 0, 1e11)).map((e) => e.seq)).toEqual([1])
    await expect(w.put(w.group.seal({ seq: 1, value: 3 }).signed, 's/temp', true)).rejects.toThrow(code('proxy/order'))
  })

  test('packs, under their own sequence number only, never as latest', async () => {
    const pack = w.group.seal({ path: ['s', 'temp', '@pack'], seq: 5, contentFormat: 60 }).signed
    await expect(w.put(pack, 's/temp/@pack/6')).rejects.toThrow(code('object/swapped'))
    expect(await w.put(pack, 's/temp/@pack/5')).toBe('created')
    expect(await w.put(pack, 's/temp/@pack')).toBe('same')
    expect(latest()).toBeUndefined()
    await expect(w.put(pack, 's/temp')).rejects.toThrow(code('object/bad-signature'))
  })

  test('a tombstone forgets what is before it and lets nothing of it back', async () => {
    const kept = w.group.seal().signed
    await w.put(kept)
    await w.put(w.group.seal().signed)
    const gone = w.group.seal({ path: ['s', 'temp', '@gone'] }).signed
    await w.put(gone, 's/temp/@gone')
    expect(latest()).toBeUndefined()
    expect(await w.archive.list(w.device.address, '/s/temp', 0, 1e11)).toEqual([])
    await expect(w.put(kept, 's/temp', true)).rejects.toThrow(code('proxy/order'))
    expect(await w.put(gone, 's/temp/@gone')).toBe('same')
    expect(await w.put(w.group.seal().signed)).toBe('created')
  })

  test('a tombstone that comes late takes away what is before it, and leaves what is after', async () => {
    const before = w.group.seal().signed
    await w.put(before)
    const gone = w.group.seal({ path: ['s', 'temp', '@gone'] }).signed
    // longer than the proxy keeps history
    w.clock.seconds += 90_000
    const after = w.group.seal()
    await w.put(after.signed)
    expect(await w.put(gone, 's/temp/@gone', true)).toBe('changed')
    expect(latest()?.seq).toBe(after.seq)
    expect(await w.archive.list(w.device.address, '/s/temp', 0, 1e11)).toEqual([])
    await expect(w.put(before, 's/temp', true)).rejects.toThrow(code('proxy/order'))
    const ahead = w.group.seal({ path: ['s', 'temp', '@gone'], iat: w.clock.seconds + 61 }).signed
    await expect(w.put(ahead, 's/temp/@gone')).rejects.toThrow(code('object/future'))
  })

  test('after a restart, without its key server, and the order holds', async () => {
    const store = openMemoryStore()
    const first = await world(store, w)
    const old = w.group.seal().signed
    await first.put(w.group.seal().signed)
    const second = await world(store, first)
    second.standIn.away = true
    await expect(second.put(old)).rejects.toThrow(code('proxy/order'))
    expect(await second.put(w.group.seal().signed)).toBe('changed')
    expect(second.standIn.asked).toBe(0)
  })
})

describe('a proxy whose clock is wrong', () => {
  /** Seals as the rest of the world does, by a clock that shows so much more than the proxy's. */
  const ahead = (w: World, seconds: number): Uint8Array => w.group.seal({ iat: w.clock.seconds + seconds }).signed
  const toldOf = (w: World, what: string): number => w.lines.filter((line) => line.includes(what)).length

  test('behind: refused for now, told once in a while, and taken when the clock is right', async () => {
    const w = await world()
    const early = ahead(w, 3600)
    for (let i = 0; i < 5; i++) {
      await expect(w.put(early)).rejects.toMatchObject({ code: 'object/future', retryAfterSeconds: 60 })
    }
    expect(toldOf(w, 'the clock of this proxy seems to be behind')).toBe(1)
    w.clock.seconds += 3600
    expect(await w.put(early)).toBe('created')
  })

  test('a stranger makes it say nothing of clocks', async () => {
    const w = await world()
    const forged = ahead(w, 3600)
    forged[forged.length - 1]! ^= 1
    await expect(w.put(forged)).rejects.toThrow(code('object/future'))
    expect(toldOf(w, 'clock')).toBe(0)
  })

  test.each([
    ['behind', -7200],
    ['ahead', 3 * 86_400],
  ])('%s by so much that no credential is in force: the device comes again', async (where, off) => {
    const w = await world()
    const credential = w.group.credential()
    w.standIn.credentials = async () => [credential]
    const sealed = w.group.seal().signed
    w.clock.wrongBy = off
    for (let i = 0; i < 3; i++) {
      await expect(w.put(sealed)).rejects.toMatchObject({ code: 'proxy/clock', retryAfterSeconds: 60 })
    }
    expect(toldOf(w, `the clock of this proxy seems to be ${where}`)).toBe(1)
    w.clock.wrongBy = 0
    w.clock.seconds += 60
    expect(await w.put(sealed)).toBe('created')
  })
})

describe('a proxy refuses', () => {
  let w: World
  beforeEach(async () => {
    w = await world()
    await w.put(w.group.seal().signed)
  })
  const refused = async (bytes: Uint8Array, what: string, path?: string, backlog?: boolean) => {
    const before = w.archive.resource(w.device.address, '/s/temp')?.latest?.seq
    await expect(w.put(bytes, path, backlog)).rejects.toThrow(code(what))
    expect(w.archive.resource(w.device.address, '/s/temp')?.latest?.seq).toBe(before)
  }

  test('objects without signature', async () => {
    const { encrypt0, mac } = w.group.seal()
    await refused(encrypt0, 'object/malformed')
    await refused(mac, 'object/malformed')
    await refused(new Uint8Array(0), 'object/malformed')
  })

  test('another resource’s object, another device’s, another signer’s', async () => {
    await refused(w.group.seal({ path: ['s', 'humidity'] }).signed, 'object/bad-signature')
    const thief = new TestDevice(9)
    await refused(w.group.seal({ signer: thief }).signed, 'object/unknown-signer')
    await refused(w.group.seal({ device: thief, sid: w.device.sid }).signed, 'object/unknown-signer')
    const target = parseTarget([thief.address, 's', 'temp'])
    await expect(w.admission.put(target, w.group.seal().signed, false)).rejects.toThrow(code('proxy/unknown-device'))
  })

  test('a signature that a member made again over another’s ciphertext', async () => {
    const member = new TestDevice(9)
    member.sids = [{ sid: Uint8Array.of(9), from: 0 }]
    const stolen = w.group.seal({ signer: member }).signed
    await refused(stolen, 'object/unknown-signer')
    // Under the member's own name the Sender ID is not its own.
    const books = await w.credentials.of(w.group.gid)
    books.add(w.group.credential({ device: member }))
    w.clock.seconds += 11
    const target = parseTarget([member.address, 's', 'temp'])
    await expect(w.admission.put(target, stolen, false)).rejects.toThrow(code('object/unknown-sid'))
  })

  test('a changed octet', async () => {
    const { signed } = w.group.seal()
    await fc.assert(
      fc.asyncProperty(fc.nat(signed.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
        const bytes = signed.slice()
        bytes[at]! ^= change
        const outcome = await w.put(bytes).then(
          (what) => what,
          (error: unknown) => (isIotchainError(error) ? 'refused' : 'crashed'),
        )
        expect(outcome).toBe('refused')
      }),
      { numRuns: 120, seed: 5 },
    )
    expect(w.archive.resource(w.device.address, '/s/temp')?.latest?.seq).toBe(1)
  })

  test('what was sealed too long ago, or will be', async () => {
    await refused(w.group.seal({ iat: w.clock.seconds - 301 }).signed, 'proxy/too-old')
    await refused(w.group.seal({ iat: w.clock.seconds + 61 }).signed, 'object/future')
    await refused(w.group.seal({ iat: w.clock.seconds + 61 }).signed, 'object/future', 's/temp', true)
    await refused(w.group.seal({ iat: w.clock.seconds - 86_401 }).signed, 'proxy/too-old', 's/temp', true)
  })

  test('too large, too many, too fast', async () => {
    await refused(new Uint8Array(1001), 'proxy/too-large')
    for (const name of ['a', 'b', 'c']) await w.put(w.group.seal({ path: [name] }).signed, name)
    await refused(w.group.seal({ path: ['d'] }).signed, 'proxy/quota', 'd')
    for (let i = 0; i < 46; i++) await w.put(w.group.seal().signed)
    await expect(w.put(w.group.seal().signed)).rejects.toMatchObject({ code: 'proxy/rate', retryAfterSeconds: 1 })
    w.clock.seconds += 1
    expect(await w.put(w.group.seal().signed)).toBe('changed')
  })

  test('junk uses nothing of the device’s rate up', async () => {
    for (let i = 0; i < 200; i++) {
      const bytes = w.group.seal().signed
      bytes[bytes.length - 1]! ^= 1
      await refused(bytes, 'object/bad-signature')
    }
    expect(await w.put(w.group.seal().signed)).toBe('changed')
  })

  test('unknown Sender IDs and signers ask the key server once in a while only', async () => {
    const asked = w.standIn.asked
    for (let i = 1; i < 30; i++) await refused(w.group.seal({ sid: Uint8Array.of(i, i) }).signed, 'proxy/rate')
    w.clock.seconds += 11
    await refused(w.group.seal({ sid: Uint8Array.of(5, 5) }).signed, 'object/unknown-sid')
    expect(w.standIn.asked - asked).toBe(1)
  })

  test('groups of nobody: asked about at a bounded rate, then 4.29', async () => {
    const asked = w.standIn.asked
    const codes: string[] = []
    for (let bit = 1; bit <= 6; bit++) {
      const stranger = w.keyServer.group(w.device, bit).seal().signed
      codes.push(await w.put(stranger).catch((e) => e.code))
      codes.push(await w.put(stranger).catch((e) => e.code))
    }
    expect(w.standIn.asked - asked).toBeLessThanOrEqual(3)
    expect(codes.filter((c) => c === 'proxy/unknown-group').length).toBe(4)
    expect(codes.filter((c) => c === 'proxy/rate').length).toBe(8)
  })

  test('paths that no resource has', () => {
    const at =
      (...path: string[]) =>
      () =>
        parseTarget([w.device.address, ...path])
    for (const path of [
      [],
      [''],
      ['s', ''],
      ['..', 's'],
      ['@x'],
      ['s', '@other'],
      ['s', '@pack', 'x'],
      ['s', '@pack', '1', '2'],
    ]) {
      expect(at(...path)).toThrow(code('proxy/bad-path'))
    }
    expect(at(...Array.from({ length: 17 }, () => 'a'))).toThrow(code('proxy/bad-path'))
    expect(at('a'.repeat(600))).toThrow(code('proxy/bad-path'))
    expect(at('s', '@pack', String(2 ** 40))).toThrow(code('proxy/bad-path'))
    expect(() => parseTarget([w.device.address.toUpperCase(), 's'])).toThrow(code('proxy/bad-path'))
    expect(parseTarget([w.device.address, 's', '@past', '07.12'])).toMatchObject({ kind: 'past', seq: 12 })
  })
})
