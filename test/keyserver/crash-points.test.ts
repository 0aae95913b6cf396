import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { toHex } from '../../protocol/bytes.ts'
import { decodePersonalKey } from '../../protocol/groups/personal-key.ts'
import { openMemoryStore } from '../../store/memory.ts'
import type { Store } from '../../store/store.ts'
import { addressOf, certify, createWorld, live, TestClient, TestDevice, type World } from './harness.ts'
import { TestClock } from './test-clock.ts'

/** The process ends exactly before or after its k-th write, for every k; then another one takes up the store. */
const folder = mkdtempSync(join(tmpdir(), 'iotchain-crash-points-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const clockOfCertificate = new TestClock()

interface Left {
  /** session → body */
  readonly bodies: Map<number, string>
  /** epoch/leaf → member */
  readonly leaves: Map<string, string>
  readonly sids: Set<string>
  readonly members: Set<string>
}

class Death extends Error {}

function mortal(store: Store, fatal: number, when: 'before' | 'after') {
  const state = { writes: 0, dead: false }
  const wrapped: Store = {
    get: (key) => store.get(key),
    range: (range) => store.range(range),
    close: async () => {},
    async batch(operations, options) {
      if (state.dead) throw new Death()
      const mine = ++state.writes
      if (mine === fatal && when === 'after') await store.batch(operations, options)
      if (mine === fatal) {
        state.dead = true
        throw new Death()
      }
      await store.batch(operations, options)
    },
  }
  return { state, wrapped }
}

async function life(world: World, device: TestDevice, left: Left): Promise<void> {
  const joined = (id: string, personalKey: Uint8Array): void => {
    const { epoch, leaf } = decodePersonalKey(personalKey)
    const key = `${epoch}/${leaf}`
    expect(left.leaves.get(key) ?? id).toBe(id)
    left.leaves.set(key, id)
    left.members.add(id)
  }
  const a = new TestClient(world, 7)
  const b = new TestClient(world, 8)
  a.grant(device, [0], 86_400)
  b.grant(device, [0], 86_400)
  const first = await device.join()
  joined('device', first.response.personalKey)
  left.sids.add(toHex(first.response.senderId as Uint8Array))
  joined('a', (await a.join(device)).response.personalKey)
  await live(world, 61)
  joined('b', (await b.join(device)).response.personalKey)
  await live(world, 61)
  a.revoke(device)
  left.members.delete('a')
  await live(world, 61)
}

async function run(fatal: number, when: 'before' | 'after', pem: string): Promise<boolean> {
  const store = openMemoryStore()
  const place = mkdtempSync(join(folder, 'k-'))
  const left: Left = { bodies: new Map(), leaves: new Map(), sids: new Set(), members: new Set() }
  const watch: NonNullable<Parameters<typeof createWorld>[0]>['onbroadcast'] = (_, { session, bytes }) => {
    expect(left.bodies.get(session) ?? toHex(bytes)).toBe(toHex(bytes))
    left.bodies.set(session, toHex(bytes))
  }
  const { state, wrapped } = mortal(store, fatal, when)
  const world = await createWorld({ store: wrapped, folder: place, onbroadcast: watch })
  const device = await TestDevice.create(world, 1, { certificate: pem })
  try {
    await life(world, device, left)
  } catch (error) {
    if (!state.dead) throw error
  }
  const { chain, clock } = world
  const next = await createWorld({ store, folder: place, onbroadcast: watch, clock, chain: () => chain })
  const group = next.server.roster.groups.get(device.name(0))
  const kept = [...(group?.manager.members() ?? [])]
  for (const [session, body] of left.bodies) {
    const stored = await next.server.storage.broadcast(device.name(0), session)
    expect(toHex(stored ?? new Uint8Array(0))).toBe(body)
  }
  expect(kept.length).toBeGreaterThanOrEqual(left.members.size)
  clock.pass(70)
  await life(next, Object.assign(await TestDevice.create(next, 1, { certificate: pem }), {}), left)
  expect([...next.server.roster.groups.values()][0]?.newest?.session).toBeGreaterThan(3)
  await next.close()
  return state.dead
}

describe('a process that ends at its k-th write', () => {
  test.each(['before', 'after'] as const)('%s it', async (when) => {
    const pem = await certify(addressOf(new Uint8Array(32).fill(1)), clockOfCertificate, 365)
    let fatal = 1
    while (await run(fatal, when, pem)) fatal++
    expect(fatal).toBeGreaterThan(8)
  })
})
