import { describe, expect, test } from 'vitest'
import { checkRation, neededSenderIds, type SenderIdsByGroup, withSenderId } from '../../keyserver/sender-id-records.ts'

const DAY = 86_400
const NOW = 1_800_000_000
const sid = (n: number, from: number) => ({ sid: Uint8Array.of(n >> 8, n & 255), from })
const list = (count: number, from: (i: number) => number) => Array.from({ length: count }, (_, i) => sid(i, from(i)))
const G = '0011223344556677'

describe('Sender IDs of a subject', () => {
  test('the last sixteen are kept however old they are', () => {
    const old = list(40, (i) => NOW - 100 * DAY + i)
    expect(neededSenderIds(old, NOW, DAY)).toEqual(old.slice(-16))
    expect(neededSenderIds(old.slice(0, 3), NOW, DAY)).toEqual(old.slice(0, 3))
    expect(withSenderId({ [G]: old }, G, sid(40, NOW), DAY)[G]).toEqual([...old.slice(-15), sid(40, NOW)])
  })

  test('one that was followed inside retention is kept, the one before it is not', () => {
    const all = list(30, (i) => NOW - (30 - i) * 3600)
    // number 5 was issued 25 hours ago and could seal for an hour more
    expect(neededSenderIds(all, NOW, DAY)[0]).toEqual(all[5])
    expect(neededSenderIds(all, NOW + 1, DAY)[0]).toEqual(all[6])
  })

  test('those of other groups stay as they are', () => {
    const known = { [G]: list(3, () => NOW), other: list(50, () => 0) }
    expect(withSenderId(known, G, sid(3, NOW), DAY)['other']).toBe(known.other)
  })

  test('all groups of a subject together fit into one credential', () => {
    const known: SenderIdsByGroup = { a: list(400, () => NOW - DAY), b: list(400, () => NOW - DAY) }
    expect(() => checkRation(known, 'c', NOW, 3 * DAY)).toThrow(expect.objectContaining({ code: 'group/quota' }))
    // what is out of retention does not count, also where a record still holds it
    expect(() => checkRation(known, 'c', NOW + 5 * DAY, 3 * DAY)).not.toThrow()
  })

  test('a clock that was ahead once does not use up the ration for ever', () => {
    expect(() => checkRation({ [G]: list(16, () => NOW + DAY) }, G, NOW, DAY)).not.toThrow()
    expect(() => checkRation({ [G]: list(16, () => NOW - 600) }, G, NOW, DAY)).toThrow(
      expect.objectContaining({ retryAfterSeconds: 3000 }),
    )
  })
})
