import { beforeEach, describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import { Commands } from '../../device/commands.ts'
import { Credentials } from '../../device/credentials.ts'
import type { GroupSession } from '../../device/group-session.ts'
import { coseKeyEd25519 } from '../../protocol/cose/key.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { encodeCommand } from '../../protocol/objects/command.ts'
import { issueCredential } from '../../protocol/objects/credential.ts'
import { createSealer } from '../../protocol/objects/seal.ts'
import { silentLogger } from '../../runtime/log.ts'
import { openMemoryStore } from '../../store/memory.ts'
import type { Store } from '../../store/store.ts'

/** The rules of a command one by one, on a clock that stands (protocol.md "Commands"). */
const DEVICE = new Uint8Array(20).fill(0xd1)
const GID = new Uint8Array(8).fill(5)
const GNAME = '0505050505050505'
const CLIENT = `0x${'33'.repeat(20)}` as const
const SID = Uint8Array.of(0, 7)
const K = new Uint8Array(16).fill(1)
const START = 1_800_000_000
const SESSION = 12
const kdc = suite.ed25519.signing(new Uint8Array(32).fill(2))
const signingKey = suite.ed25519.signing(new Uint8Array(32).fill(3))

interface World {
  now: number
  commands: Commands
  /** what was done, in order */
  done: string[]
  fail: boolean
  fetched: number
  /** the session that runs, and when the one of the commands was superseded */
  current: number
  supersededAt: number | undefined
  take(changes?: Partial<Seal>): Promise<string>
}

interface Seal {
  seq: number
  iat: number
  gid: Uint8Array
  contentFormat: number
  plaintext: Uint8Array
}

let w: World
let inner: Store

async function world(mayCommand = true): Promise<World> {
  const world: World = {
    now: START,
    done: [],
    fail: false,
    fetched: 0,
    current: SESSION,
    supersededAt: undefined,
    commands: undefined as unknown as Commands,
    async take(changes = {}) {
      const { seq = 10, iat = world.now, gid = GID, contentFormat = 112, plaintext = encodeCommand(true) } = changes
      const path = ['a', 'relay']
      const scope = { K, gid, session: SESSION, device: DEVICE, sid: SID, path, algorithm: 24 as const, signingKey }
      const { signed } = createSealer(suite, scope).seal({ seq, iat, contentFormat, plaintext })
      try {
        await world.commands.take(signed, '/a/relay', group, async () => void world.done.push('act'))
        return 'taken'
      } catch (error) {
        return (error as IotchainError).code
      }
    },
  }
  const group = {
    gid: GID,
    gname: GNAME,
    key: (session: number) => (session === SESSION ? K : undefined),
    current: () => ({ session: world.current, nbf: START - 100, exp: START + 10_000 }),
    supersededAt: () => world.supersededAt,
    times: () => ({ session: SESSION, nbf: START - 100, exp: START + 800 }),
  } as unknown as GroupSession
  const store: Store = {
    ...inner,
    get: (key) => inner.get(key),
    async batch(operations, options) {
      if (world.fail) throw new IotchainError('store/full', 'no room')
      await inner.batch(operations, options)
      if (operations.some((o) => o.key.startsWith('c/')))
        world.done.push(options?.sync === true ? 'durable' : 'written')
    },
  }
  const credentials = new Credentials({ device: DEVICE, log: silentLogger, store: openMemoryStore() })
  const groups = new Map([[GNAME, [{ sid: SID, from: START - 1000 }]]])
  const claims = {
    issuer: 'test',
    subject: CLIENT,
    role: mayCommand ? ('w' as const) : undefined,
    iat: START - 1000,
    exp: START + 80_000,
    groups,
  }
  const credential = issueCredential(suite, { ...claims, publicKey: signingKey.publicKey }, kdc)
  await credentials.add(coseKeyEd25519(kdc.publicKey), [credential], START)
  world.commands = await Commands.open(
    {
      device: DEVICE,
      store,
      credentials,
      log: silentLogger,
      nowSeconds: () => world.now,
      monotonicMs: () => (world.now - START) * 1000,
      fetchCredentials: async () => void world.fetched++,
    },
    ['/a/relay'],
  )
  // the memory of commands begins at START
  expect(await world.take({ iat: START })).toBe(mayCommand ? 'device/command-replayed' : 'device/command-unsigned')
  world.now = START + 100
  return world
}

beforeEach(async () => {
  inner = openMemoryStore()
  w = await world()
})

describe('a command', () => {
  test('is durable before the line moves', async () => {
    expect(await w.take()).toBe('taken')
    expect(w.done).toEqual(['durable', 'act'])
  })

  test('moves nothing while its number cannot be written, and may be sent again', async () => {
    w.fail = true
    expect(await w.take()).toBe('store/full')
    expect(w.done).toEqual([])
    w.fail = false
    expect(await w.take()).toBe('taken')
  })

  test('counts once, also after a restart, and so does every lower number', async () => {
    expect(await w.take({ seq: 10 })).toBe('taken')
    expect(await w.take({ seq: 10 })).toBe('device/command-replayed')
    expect(await w.take({ seq: 9 })).toBe('device/command-replayed')
    w = await world()
    expect(await w.take({ seq: 10 })).toBe('device/command-replayed')
    expect(await w.take({ seq: 11 })).toBe('taken')
    expect(w.done).toEqual(['durable', 'act'])
  })

  test('is fresh for 30 seconds either way', async () => {
    expect(await w.take({ seq: 1, iat: w.now - 31 })).toBe('device/command-replayed')
    expect(await w.take({ seq: 2, iat: w.now + 31 })).toBe('device/command-replayed')
    expect(await w.take({ seq: 3, iat: w.now - 30 })).toBe('taken')
    expect(await w.take({ seq: 4, iat: w.now + 30 })).toBe('taken')
  })

  test('sealed before the memory of commands began counts for nothing', async () => {
    w.now = START + 20
    expect(await w.take({ seq: 1, iat: START })).toBe('device/command-replayed')
    expect(await w.take({ seq: 1, iat: START + 1 })).toBe('taken')
  })

  test('of a superseded session counts for ten seconds, of one unknown never', async () => {
    w.current = SESSION + 1
    expect(await w.take({ seq: 1 })).toBe('device/command-forbidden')
    w.supersededAt = w.now - 10
    expect(await w.take({ seq: 2 })).toBe('taken')
    w.supersededAt = w.now - 11
    expect(await w.take({ seq: 3 })).toBe('device/command-forbidden')
  })

  test('is for this group, and is a command', async () => {
    expect(await w.take({ gid: new Uint8Array(8).fill(6) })).toBe('device/command-forbidden')
    expect(await w.take({ contentFormat: 60 })).toBe('object/bad-command')
    expect(w.done).toEqual([])
  })

  test('comes from a holder of role w; for others the key server is asked once in ten seconds', async () => {
    inner = openMemoryStore()
    w = await world(false)
    const asked = w.fetched
    expect(await w.take({ seq: 1 })).toBe('device/command-unsigned')
    expect(w.fetched).toBe(asked + 1)
    w.now += 9
    expect(await w.take({ seq: 2 })).toBe('device/command-unsigned')
    expect(w.fetched).toBe(asked + 1)
    w.now += 1
    expect(await w.take({ seq: 3 })).toBe('device/command-unsigned')
    expect(w.fetched).toBe(asked + 2)
  })
})
