import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type AdmissionRecord,
  bitsOf,
  decide,
  decideDevice,
  decisionTime,
  isDeep,
  membershipsOf,
} from '../../chain/rule.ts'
import { type DeviceEntry, type Head, NO_TOKEN, type Token } from '../../chain/types.ts'

const T0 = 1_763_800_000
const head = (number: number, rest: Partial<Head> = {}): Head => ({
  number,
  hash: `0x${number.toString(16).padStart(64, '0')}`,
  parentHash: `0x${(number - 1).toString(16).padStart(64, '0')}`,
  timestamp: T0 + number,
  safe: undefined,
  finalized: undefined,
  ...rest,
})
const token = (grantBlock: number, claims = 1, expiresAt = T0 + 10_000, serial = 1): Token => ({
  issuedAt: T0,
  expiresAt,
  claims,
  grantBlock,
  serial,
})
const at = (previous: AdmissionRecord | undefined, t: Token, number: number, n: number | 'safe' | 'finalized' = 3) =>
  decide(previous, t, head(number), n, T0 + number)

describe('one token', () => {
  test('n − 1 blocks are refused, n admit', () => {
    expect(at(undefined, token(10), 10)).toEqual({ status: 'waiting', record: undefined, missing: 3 })
    expect(at(undefined, token(10), 12)).toEqual({ status: 'waiting', record: undefined, missing: 1 })
    expect(at(undefined, token(10), 13)).toEqual({
      status: 'good',
      record: { serial: 1, expiresAt: T0 + 10_000, claims: 1 },
      missing: 0,
    })
    expect(at(undefined, token(10), 10, 0).status).toBe('good')
  })

  test('safe and finalized', () => {
    const h = head(20, { safe: 9, finalized: 5 })
    expect(decide(undefined, token(9), h, 'safe', T0).status).toBe('good')
    expect(decide(undefined, token(10), h, 'safe', T0)).toMatchObject({ status: 'waiting', missing: undefined })
    expect(decide(undefined, token(5), h, 'finalized', T0).status).toBe('good')
    expect(decide(undefined, token(6), h, 'finalized', T0).status).toBe('waiting')
    expect(isDeep(1, head(20), 'finalized')).toBe(false)
  })

  test('an end is held against the later of the block and the own clock less a minute', () => {
    expect(decisionTime(head(100), T0)).toBe(T0 + 100)
    expect(decisionTime(head(100), T0 + 1000)).toBe(T0 + 940)
    const t = token(1, 1, T0 + 500)
    expect(decide(undefined, t, head(100), 3, T0 + 559).status).toBe('good')
    expect(decide(undefined, t, head(100), 3, T0 + 560).status).toBe('expired')
    // at its very second it is over
    expect(decide(undefined, t, head(499), 3, T0).status).toBe('good')
    expect(decide(undefined, t, head(500), 3, T0).status).toBe('expired')
  })

  test('absent and deleted tokens are out at once, whatever was admitted', () => {
    const record = { serial: 1, expiresAt: T0 + 10_000, claims: 1 }
    expect(at(record, NO_TOKEN, 20)).toMatchObject({ status: 'absent', record: undefined })
    expect(at(record, { ...NO_TOKEN, grantBlock: 19, serial: 2 }, 20)).toMatchObject({
      status: 'absent',
      record: undefined,
    })
  })
})

describe('renewal', () => {
  const record = { serial: 1, expiresAt: T0 + 1000, claims: 0b0011 }

  test('the same serial is kept while it lasts, also if a reorg mined it later', () => {
    expect(at(record, token(20, 0b0011, T0 + 1000, 1), 20)).toMatchObject({ status: 'kept', record })
  })

  test('a longer one keeps the member until it is deep, then prolongs', () => {
    const renewed = token(20, 0b0011, T0 + 9000, 2)
    expect(at(record, renewed, 21)).toMatchObject({ status: 'kept', record: { expiresAt: T0 + 1000 }, missing: 2 })
    expect(at(record, renewed, 23)).toMatchObject({ status: 'good', record: { serial: 2, expiresAt: T0 + 9000 } })
  })

  test('a shorter one shortens at once', () => {
    expect(at(record, token(20, 0b0011, T0 + 500, 2), 21)).toMatchObject({ record: { expiresAt: T0 + 500 } })
  })

  test('removed bits act at once, added ones wait', () => {
    const changed = token(20, 0b0110, T0 + 9000, 2)
    expect(at(record, changed, 21)).toMatchObject({ status: 'kept', record: { claims: 0b0010 } })
    expect(at(record, changed, 23)).toMatchObject({ status: 'good', record: { claims: 0b0110 } })
    expect(at(record, token(20, 0b0100, T0 + 9000, 2), 21)).toMatchObject({ status: 'waiting', record: undefined })
  })

  test('a bit that was removed and added again waits like any added one', () => {
    const narrowed = at(record, token(20, 0b0010, T0 + 1000, 2), 20).record
    expect(narrowed?.claims).toBe(0b0010)
    expect(at(narrowed, token(21, 0b0011, T0 + 1000, 3), 21)).toMatchObject({ record: { claims: 0b0010 } })
    expect(at(narrowed, token(21, 0b0011, T0 + 1000, 3), 24)).toMatchObject({
      status: 'good',
      record: { claims: 0b0011 },
    })
  })

  test('an admitted one that has ended does not carry a new one that waits', () => {
    expect(at({ ...record, expiresAt: T0 + 20 }, token(20, 1, T0 + 9000, 2), 21)).toMatchObject({ status: 'waiting' })
  })
})

describe('properties', () => {
  /** What an owner may do to one slot between two heads. */
  const step = fc.record({
    blocks: fc.integer({ min: 1, max: 6 }),
    write: fc.option(
      fc.record({
        claims: fc.integer({ min: 0, max: 15 }),
        ttl: fc.integer({ min: 1, max: 60 }),
        delete: fc.boolean(),
      }),
      { nil: undefined },
    ),
  })

  test('over any history: never more than the token grants, never an interruption, never an early addition', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 0, max: 8 }), (steps, n) => {
        let number = 100
        let current = NO_TOKEN
        let record: AdmissionRecord | undefined
        /** tokens by the block from which they stood */
        const history: { from: number; token: Token }[] = [{ from: 0, token: NO_TOKEN }]
        for (const s of steps) {
          number += s.blocks
          if (s.write !== undefined) {
            const serial = current.serial + 1
            current =
              s.write.delete || s.write.claims === 0
                ? { ...NO_TOKEN, grantBlock: number, serial }
                : token(number, s.write.claims, T0 + number + s.write.ttl, serial)
            history.push({ from: number, token: current })
          }
          const h = head(number)
          const before = record
          const result = decide(before, current, h, n, h.timestamp)
          record = result.record
          // never more, never longer than the token that stands
          if (record !== undefined) {
            expect(record.claims & ~current.claims).toBe(0)
            expect(record.expiresAt).toBeLessThanOrEqual(current.expiresAt)
            expect(record.expiresAt).toBeGreaterThan(h.timestamp)
            expect(record.claims).not.toBe(0)
          }
          // never an interruption of a bit that was admitted and still is granted
          for (const bit of bitsOf(before?.claims ?? 0)) {
            const granted = ((current.claims >>> bit) & 1) === 1 && current.expiresAt > h.timestamp
            if (granted && (before?.expiresAt ?? 0) > h.timestamp) expect(bitsOf(record?.claims ?? 0)).toContain(bit)
          }
          // never a bit that no token has granted for n blocks on end
          for (const bit of bitsOf(record?.claims ?? 0)) {
            expect(stoodForN(history, bit, number, n)).toBe(true)
          }
          // deep is admitted
          if (current.expiresAt > h.timestamp && number - current.grantBlock >= n) expect(result.status).toBe('good')
        }
      }),
      { numRuns: 500, seed: 6 },
    )
  })

  /** Some token that granted the bit had stood unchanged for n blocks by now, and the bit was granted ever since. */
  function stoodForN(history: readonly { from: number; token: Token }[], bit: number, now: number, n: number): boolean {
    for (let i = history.length - 1; i >= 0; i--) {
      const { from, token: t } = history[i] as { from: number; token: Token }
      if (((t.claims >>> bit) & 1) === 0) return false
      const until = history[i + 1]?.from ?? now + 1
      if (until - 1 - from >= n) return true
    }
    return false
  }

  test('memberships: per bit the largest end over the contracts', () => {
    const record = fc.option(
      fc.record({
        serial: fc.nat(),
        expiresAt: fc.integer({ min: 1, max: 1e9 }),
        claims: fc.integer({ min: 0, max: 0xffffffff }),
      }),
      { nil: undefined },
    )
    fc.assert(
      fc.property(fc.array(record, { maxLength: 8 }), (records) => {
        const found = membershipsOf(records)
        for (let bit = 0; bit < 32; bit++) {
          const ends = records
            .filter((r) => r !== undefined && (r.claims >>> bit) & 1)
            .map((r) => (r as AdmissionRecord).expiresAt)
          expect(found.get(bit)).toBe(ends.length === 0 ? undefined : Math.max(...ends))
        }
      }),
      { seed: 7 },
    )
    expect(bitsOf(0x80000001)).toEqual([0, 31])
  })
})

describe('a device', () => {
  const A = `0x${'aa'.repeat(20)}` as const
  const B = `0x${'bb'.repeat(20)}` as const
  const entry = (change: Partial<DeviceEntry> = {}): DeviceEntry => ({
    device: `0x${'dd'.repeat(20)}`,
    owner: A,
    signingKey: new Uint8Array(32).fill(1),
    keyServer: new Uint8Array(32).fill(2),
    contracts: [A, B],
    uri: '',
    active: true,
    changedBlock: 10,
    nonce: 1,
    ...change,
  })

  test('counts once it is deep', () => {
    expect(decideDevice(undefined, entry(), head(12), 3)).toMatchObject({
      status: 'waiting',
      contracts: [],
      signingKey: undefined,
      missing: 1,
    })
    expect(decideDevice(undefined, entry(), head(13), 3)).toMatchObject({ status: 'good', contracts: [A, B] })
    expect(decideDevice(undefined, undefined, head(13), 3).status).toBe('unregistered')
  })

  test('of a fresh change only what both entries say counts', () => {
    const C = `0x${'cc'.repeat(20)}` as const
    const changed = entry({ contracts: [B, C], changedBlock: 20 })
    const now = decideDevice(entry(), changed, head(21), 3)
    expect(now).toMatchObject({ status: 'waiting', contracts: [B], missing: 2 })
    // a removed contract that comes back waits
    expect(decideDevice(now.record, entry({ changedBlock: 22 }), head(22), 3).contracts).toEqual([B])
    expect(decideDevice(now.record, changed, head(23), 3).contracts).toEqual([B, C])
  })

  test('another signing key gets no credential until it is deep', () => {
    const changed = entry({ signingKey: new Uint8Array(32).fill(9), changedBlock: 20 })
    expect(decideDevice(entry(), changed, head(21), 3).signingKey).toBeUndefined()
    expect(decideDevice(entry(), changed, head(23), 3).signingKey).toEqual(changed.signingKey)
    const same = entry({ uri: 'x', changedBlock: 20 })
    expect(decideDevice(entry(), same, head(21), 3).signingKey).toEqual(same.signingKey)
  })

  test.each([
    ['other-owner', { owner: B }],
    ['other-key-server', { keyServer: new Uint8Array(32).fill(9) }],
    ['inactive', { active: false }],
  ] as const)('%s acts at once', (status, change) => {
    expect(decideDevice(entry(), entry({ ...change, changedBlock: 20 }), head(20), 3)).toMatchObject({
      status,
      record: undefined,
      contracts: [],
      signingKey: undefined,
    })
  })
})
