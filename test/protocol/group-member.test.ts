import { describe, expect, test } from 'vitest'
import { toHex, utf8 } from '../../protocol/bytes.ts'
import { encodeCbor, Tagged } from '../../protocol/cbor.ts'
import { encodeProtected } from '../../protocol/cose/headers.ts'
import { sign1 } from '../../protocol/cose/sign1.ts'
import { suite } from '../../protocol/crypto/node.ts'
import type { CryptoSuite } from '../../protocol/crypto/suite.ts'
import { BROADCAST_AAD, claimBroadcast, openBroadcast } from '../../protocol/groups/broadcast.ts'
import { MEMBER_LIMITS } from '../../protocol/groups/member-state.ts'
import { decodePersonalKey, encodePersonalKey } from '../../protocol/groups/personal-key.ts'
import type { GroupMember, MemberState, PersonalKey } from '../../protocol/groups/scheme.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { GroupWorld, id, START } from './group-world.ts'
import { codeOf } from './suites.ts'

/** A group with members a and b and `sessions` broadcasts. */
function world(sessions: number, policy = {}): { w: GroupWorld; broadcasts: Uint8Array[] } {
  const w = new GroupWorld(suite, policy)
  w.epoch()
  w.manager.join(id('a'), { mode: 'next' })
  w.manager.join(id('b'), { mode: 'next' })
  return { w, broadcasts: Array.from({ length: sessions }, () => w.next()) }
}

/** Runs it and expects an error with this code that leaves the member as it was. */
function refused(member: GroupMember, code: string, run: () => unknown): void {
  const before = JSON.stringify(member.state())
  expect(codeOf(run)).toBe(code)
  expect(JSON.stringify(member.state())).toBe(before)
}

describe('receiving', () => {
  test('one broadcast heals the window; older ones are not needed and not taken', () => {
    const { w, broadcasts } = world(20)
    const a = w.member('a')
    expect(a.session).toBe(0)
    expect(a.current(START)).toBeUndefined()
    expect(a.receive(broadcasts[19] as Uint8Array)).toEqual({
      session: 20,
      epoch: 1,
      nbf: START + 20 * 900,
      exp: START + 21 * 900,
      from: 1,
    })
    for (let j = 1; j <= 20; j++) expect(a.key(j)).toHaveLength(16)
    expect(new Set(Array.from({ length: 20 }, (_, j) => toHex(a.key(j + 1) as Uint8Array))).size).toBe(20)
    expect(a.key(0)).toBeUndefined()
    expect(a.key(21)).toBeUndefined()
    expect(a.receive(broadcasts[19] as Uint8Array)).toBe('old')
    expect(a.receive(broadcasts[4] as Uint8Array)).toBe('old')
    expect(a.times(5)).toBeUndefined()
    expect(a.receive(broadcasts[4] as Uint8Array, { asked: true })).toMatchObject({ session: 5 })
    expect(a.times(5)).toEqual({ session: 5, nbf: START + 5 * 900, exp: START + 6 * 900 })
    expect(a.supersededAt(5)).toBe(START + 20 * 900)
    expect(a.supersededAt(20)).toBeUndefined()
    expect(a.session).toBe(20)
  })

  test('a broadcast that is not this group’s, not the key server’s, or changed is refused, the state unchanged', () => {
    const { w, broadcasts } = world(3)
    const a = w.member('a')
    a.receive(broadcasts[0] as Uint8Array)
    const good = broadcasts[1] as Uint8Array
    const other = new GroupWorld(suite)
    const changed = good.slice()
    changed[60] = (changed[60] as number) ^ 1
    refused(a, 'group/too-large', () => a.receive(new Uint8Array(65_537)))
    refused(a, 'group/malformed', () => a.receive(new Uint8Array(0)))
    refused(a, 'group/bad-signature', () => a.receive(changed))
    const { payload } = claimBroadcast(good, {}).message
    const forged = (header: Map<number, unknown>, key = w.signingKey, aad = BROADCAST_AAD): Uint8Array =>
      sign1(encodeProtected(header), payload, aad, key)
    const { kid } = claimBroadcast(good, {})
    const header = new Map<number, unknown>([
      [1, -8],
      [4, kid],
    ])
    expect(a.receive(forged(header))).toMatchObject({ session: 2 })
    refused(a, 'group/bad-signature', () =>
      a.receive(forged(header, w.signingKey, utf8('iotchain-cred-1')), { asked: true }),
    )
    refused(a, 'group/bad-signature', () =>
      a.receive(forged(header, suite.ed25519.signing(new Uint8Array(32))), { asked: true }),
    )
    refused(a, 'group/unknown-key', () =>
      a.receive(forged(new Map<number, unknown>([...header, [4, new Uint8Array(8)]])), { asked: true }),
    )
    refused(a, 'group/bad-algorithm', () =>
      a.receive(forged(new Map<number, unknown>([...header, [1, -7]])), { asked: true }),
    )
    refused(a, 'group/bad-algorithm', () =>
      a.receive(forged(new Map<number, unknown>([...header, [1, -19]])), { asked: true }),
    )
    const unnamed = new Map<number, unknown>([...header, [3, 0]])
    unnamed.delete(1)
    refused(a, 'group/malformed', () => a.receive(forged(unnamed), { asked: true }))
    refused(a, 'group/malformed', () =>
      a.receive(forged(new Map<number, unknown>([...header, [3, 0]])), { asked: true }),
    )
    refused(a, 'group/malformed', () =>
      a.receive(
        forged(
          new Map<number, unknown>([
            [1, -8],
            [4, new Uint8Array(7)],
          ]),
        ),
        { asked: true },
      ),
    )
    const unprotected = encodeCbor(
      new Tagged(18, [encodeProtected(header), new Map([[5, 1]]), payload, new Uint8Array(64)]),
    )
    refused(a, 'group/malformed', () => a.receive(unprotected))
    const foreign = sdsh(suite).member({ gid: utf8('group-02'), kdc: w.kdc })
    refused(foreign, 'group/wrong-group', () => foreign.receive(good))
    const pinnedOther = sdsh(suite).member({ gid: w.gid, kdc: suite.ed25519.verifying(new Uint8Array(32).fill(1)) })
    refused(pinnedOther, 'group/unknown-key', () => pinnedOther.receive(good))
    expect(other.gid).toEqual(w.gid)
    // the number of RFC 9864, where the configuration allows it
    const lenient = sdsh(suite).member({ gid: w.gid, kdc: w.kdc, acceptEd25519: true })
    lenient.addPersonal(w.manager.personal(id('a')))
    expect(lenient.receive(forged(new Map<number, unknown>([...header, [1, -19]])))).toMatchObject({ session: 2 })
  })

  test('a key check that does not match drops the broadcast', () => {
    const { w, broadcasts } = world(2)
    const a = w.member('a')
    const { message } = claimBroadcast(broadcasts[1] as Uint8Array, {})
    const payload = message.payload.slice()
    payload[payload.length - 1] = (payload.at(-1) as number) ^ 1
    const wrong = sign1(message.protectedBytes, payload, BROADCAST_AAD, w.signingKey)
    refused(a, 'group/kcv-mismatch', () => a.receive(wrong))
    expect(a.key(2)).toBeUndefined()
    expect(a.receive(broadcasts[1] as Uint8Array)).toMatchObject({ session: 2 })
  })

  test('personal keys of another group, epoch or tree', () => {
    const { w, broadcasts } = world(2)
    const personal = w.manager.personal(id('a'))
    const a = w.member()
    expect(a.receive(broadcasts[1] as Uint8Array)).toBe('unknown-epoch')
    const wrongs: Partial<PersonalKey>[] = [
      { gid: utf8('group-02') as PersonalKey['gid'] },
      { version: 2 as 1 },
      { epoch: 0 },
      { depth: 19 },
      { leaf: 256 },
      { start: 0 },
      { labels: new Uint8Array(16) },
      { nbf: -1 },
      { exp: 1, nbf: 2 },
    ]
    for (const wrong of wrongs) refused(a, 'group/bad-personal-key', () => a.addPersonal({ ...personal, ...wrong }))
    const deeper = new GroupWorld(suite, { dMin: 9 })
    deeper.epoch()
    deeper.manager.join(id('a'), { mode: 'next' })
    a.addPersonal(deeper.manager.personal(id('a')))
    refused(a, 'group/wrong-depth', () => a.receive(broadcasts[1] as Uint8Array))
    // the right leaf of the wrong tree
    const sameDepth = new GroupWorld(suite)
    sameDepth.manager.allocateEpoch({ nbf: 0 })
    sameDepth.epoch()
    sameDepth.manager.join(id('a'), { mode: 'next' })
    const confused = w.member()
    confused.addPersonal({ ...sameDepth.manager.personal(id('a')), epoch: 1 })
    refused(confused, 'group/kcv-mismatch', () => confused.receive(broadcasts[1] as Uint8Array))
  })

  test('personal keys on the wire', () => {
    const { w } = world(1)
    const personal = w.manager.personal(id('b'))
    const bytes = encodePersonalKey(personal)
    expect(bytes.length).toBe(620)
    expect(decodePersonalKey(bytes)).toEqual({ ...personal, labels: Uint8Array.from(personal.labels) })
    expect(codeOf(() => decodePersonalKey(bytes.subarray(1)))).toBe('group/bad-personal-key')
    expect(codeOf(() => decodePersonalKey(encodeCbor([1, 2])))).toBe('group/bad-personal-key')
    expect(codeOf(() => decodePersonalKey(encodeCbor([1, 1, 1, 1, 1, 1, 1, 1, 1])))).toBe('group/bad-personal-key')
    expect(codeOf(() => encodePersonalKey({ ...personal, leaf: -1 }))).toBe('group/bad-personal-key')
  })

  test('personal keys of past epochs never push out the present ones', () => {
    const w = new GroupWorld(suite)
    w.epoch()
    w.manager.join(id('a'), { mode: 'next' })
    const keys: PersonalKey[] = []
    for (let e = 1; e <= 7; e++) {
      keys.push(w.manager.personal(id('a')))
      w.next()
      w.epoch()
    }
    const a = w.member()
    for (const epoch of [7, 6, 1, 2, 3, 4, 3, 5, 7]) a.addPersonal(keys[epoch - 1] as PersonalKey)
    expect([...a.epochs].sort()).toEqual([3, 5, 6, 7])
  })

  test('keys handed over at the join', () => {
    const { w } = world(2)
    const c = w.manager.join(id('c'), { mode: 'current' })
    const member = w.member('c')
    for (const key of c.keys) member.addKey(key)
    expect(member.key(2)).toEqual(c.keys[0]?.K)
    expect(member.session).toBe(0)
    refused(member, 'group/bad-key', () => member.addKey({ session: 0, K: new Uint8Array(16) }))
    refused(member, 'group/bad-key', () => member.addKey({ session: 1, K: new Uint8Array(15) }))
    for (let j = 1; j <= 100; j++) member.addKey({ session: 1000 + j, K: new Uint8Array(16) })
    expect(member.state().keys).toHaveLength(MEMBER_LIMITS.given)
  })
})

describe('the session to seal under', () => {
  test('the newest one begun and not ended, never below one used before', () => {
    const { w, broadcasts } = world(3)
    const a = w.member('a')
    const nbf = (j: number): number => START + j * 900
    a.receive(broadcasts[0] as Uint8Array)
    a.receive(broadcasts[1] as Uint8Array)
    expect(a.current(nbf(1) - 1)).toBeUndefined()
    expect(a.current(nbf(2) - 1)?.session).toBe(1)
    expect(a.current(nbf(2))?.session).toBe(2)
    // the clock goes back: not below what was used
    expect(a.current(nbf(2) - 1)).toBeUndefined()
    expect(a.current(nbf(3))).toBeUndefined()
    const again = sdsh(suite).member({ gid: w.gid, kdc: w.kdc, state: structuredClone(a.state()) })
    expect(again.current(nbf(2) - 1)).toBeUndefined()
    expect(again.current(nbf(2) + 1)?.session).toBe(2)
  })

  test('an early rekey takes over at its nbf', () => {
    const { w, broadcasts } = world(1)
    const a = w.member('a')
    a.receive(broadcasts[0] as Uint8Array)
    const early = w.next(w.nbf + 100)
    a.receive(early)
    expect(a.current(START + 999)?.session).toBe(1)
    expect(a.current(START + 1000)?.session).toBe(2)
  })
})

describe('the state', () => {
  test('brings everything back', () => {
    const { w, broadcasts } = world(12, { window: 4 })
    const a = w.member('a')
    for (const bytes of broadcasts) a.receive(bytes)
    const stored: MemberState = structuredClone(a.state())
    const again = sdsh(suite).member({ gid: w.gid, kdc: w.kdc, state: stored })
    expect(again.session).toBe(12)
    expect(again.epochs).toEqual([1])
    for (let j = 1; j <= 12; j++) expect(again.key(j)).toEqual(a.key(j))
    expect(again.times(7)).toEqual(a.times(7))
    expect(again.receive(broadcasts[11] as Uint8Array)).toBe('old')
    expect(again.receive(w.next())).toMatchObject({ session: 13 })
    expect(JSON.stringify(a.state())).toBe(JSON.stringify(stored))
  })

  test('of another group, of another version, or damaged is refused', () => {
    const { w, broadcasts } = world(2)
    const a = w.member('a')
    a.receive(broadcasts[1] as Uint8Array)
    const state = a.state()
    const [stretch] = state.stretches as [MemberState['stretches'][0]]
    const bad: unknown[] = [
      null,
      { ...state, version: 2 },
      { ...state, gid: utf8('group-02') },
      { ...state, session: -1 },
      { ...state, times: [{ session: 1 }] },
      { ...state, stretches: [{ ...stretch, z: new Uint8Array(8) }] },
      { ...state, stretches: [{ ...stretch, ranges: [] }] },
      { ...state, stretches: [{ ...stretch, ranges: [{ lo: 1, hi: 2, heal: new Uint8Array(5) }] }] },
    ]
    for (const broken of bad) {
      const make = () => sdsh(suite).member({ gid: w.gid, kdc: w.kdc, state: broken as MemberState })
      expect(codeOf(make)).toBe('group/bad-state')
    }
    const wrongKey = { ...state, personals: [{ ...state.personals[0], depth: 30 }] } as MemberState
    expect(codeOf(() => sdsh(suite).member({ gid: w.gid, kdc: w.kdc, state: wrongKey }))).toBe('group/bad-personal-key')
  })

  test('stays small, and forgets nothing that it could open, over a thousand sessions', () => {
    const w = new GroupWorld(suite, { window: 16 })
    w.epoch()
    w.manager.join(id('a'), { mode: 'next' })
    const a = w.member('a')
    const first: string[] = []
    for (let j = 1; j <= 1000; j++) {
      if (j % 40 === 0) {
        w.epoch()
        a.addPersonal(w.manager.personal(id('a')))
      }
      const bytes = w.next()
      // some are lost, never more than the window
      if (j % 7 < 3 && j !== 1000) continue
      a.receive(bytes)
      if (first.length < 5) first.push(toHex(a.key(j) as Uint8Array))
    }
    const { stretches, personals, times } = a.state()
    expect(personals).toHaveLength(MEMBER_LIMITS.personals)
    expect(stretches.length).toBeLessThanOrEqual(MEMBER_LIMITS.stretches)
    expect(times.length).toBeLessThanOrEqual(MEMBER_LIMITS.times)
    const octets = stretches.reduce((n, s) => n + s.ranges.reduce((m, r) => m + r.heal.length, 16), 0)
    expect(octets).toBeLessThan(12_000)
    const oldest = stretches[0]?.ranges[0]?.lo as number
    expect(oldest).toBeLessThan(500)
    const strangers = new Set<string>()
    for (let j = oldest; j <= 1000; j++) strangers.add(toHex(a.key(j) as Uint8Array))
    expect(strangers.size).toBe(1001 - oldest)
  })
})

/** The suite, counting. */
function counting(): { suite: CryptoSuite; prf: () => number; verifications: () => number } {
  let prf = 0
  let verifications = 0
  return {
    prf: () => prf,
    verifications: () => verifications,
    suite: {
      ...suite,
      hmacOnce(key, message) {
        prf++
        return suite.hmacOnce(key, message)
      },
      ed25519: {
        ...suite.ed25519,
        verifying(publicKey) {
          const key = suite.ed25519.verifying(publicKey)
          return {
            publicKey: key.publicKey,
            verify(message, signature) {
              verifications++
              return key.verify(message, signature)
            },
          }
        },
      },
    },
  }
}

describe('the work of a member', () => {
  test('K_r takes one verification and at most d + ⌊log2(w + 1)⌋ + 4 HMACs, one more per later cohort', () => {
    for (const [depth, revoked] of [
      [8, 0],
      [8, 1],
      [8, 20],
      [10, 5],
    ] as const) {
      const w = new GroupWorld(suite, { dMin: depth, window: 96 })
      w.epoch()
      for (let i = 0; i < 60; i++) w.manager.join(id(`m${i}`), { mode: 'next' })
      for (let j = 0; j < 100; j++) w.next()
      w.manager.join(id('late'), { mode: 'next' })
      for (let i = 0; i < revoked; i++) w.manager.leave(id(`m${(i * 7) % 60}`))
      const bytes = w.next()
      const cohorts = openBroadcast(suite, bytes, { kdc: w.kdc }).cohorts.length
      expect(cohorts).toBe(2)
      for (const m of [...w.manager.members()].filter((_, n) => n % 3 === 0 || n > 55)) {
        const count = counting()
        const member = sdsh(count.suite).member({ gid: w.gid, kdc: count.suite.ed25519.verifying(w.kdc.publicKey) })
        member.addPersonal(w.manager.personal(m.id))
        member.receive(bytes)
        expect(member.key(101)).toBeDefined()
        expect(count.verifications()).toBe(1)
        expect(count.prf()).toBeLessThanOrEqual(depth + Math.floor(Math.log2(97)) + 4 + (cohorts - 1))
      }
    }
  })

  test('nothing is derived twice for a key that is asked for again', () => {
    const { w, broadcasts } = world(10)
    const count = counting()
    const member = sdsh(count.suite).member({ gid: w.gid, kdc: w.kdc })
    member.addPersonal(w.manager.personal(id('a')))
    member.receive(broadcasts[9] as Uint8Array)
    member.key(3)
    const before = count.prf()
    for (let i = 0; i < 10; i++) member.key(3)
    expect(count.prf()).toBe(before)
  })
})
