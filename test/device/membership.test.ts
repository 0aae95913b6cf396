import { expect, test } from 'vitest'
import { Membership, type MembershipOptions } from '../../device/membership.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { silentLogger } from '../../runtime/log.ts'

type Parts = Partial<Record<keyof MembershipOptions, unknown>>

/** A membership of a device that has joined, with a right clock and nothing due; a test says what differs. */
function membershipWith({ group, ...parts }: Parts): Membership {
  return new Membership({
    group: { gname: '0011223344556677', joined: true, epochEnds: undefined, ...(group as object) },
    sequence: { group: () => undefined },
    credentials: { renewAt: undefined },
    log: silentLogger,
    nowSeconds: () => 1_760_000_000,
    hostClockIsRight: async () => true,
    needsTime: () => false,
    retry: { initial: 10, max: 100 },
    onJoined: () => {},
    ...parts,
  } as unknown as MembershipOptions)
}

test('a host clock that jumped has the key server asked for the time, once', async () => {
  let off = true
  let asked = 0
  const keys = {}
  const taken: unknown[] = []
  const membership = membershipWith({
    group: { addPersonalKeys: async (given: unknown) => void taken.push(given) },
    keyServer: {
      nodeKeys: async () => {
        asked++
        off = false
        return keys
      },
    },
    needsTime: () => off,
  })
  membership.start()
  await expect.poll(() => taken).toEqual([keys])
  membership.gap('unknown-epoch')
  await expect.poll(() => asked).toBe(2)
  await membership.stop()
  expect(membership.lastError).toBeUndefined()
})

test('a clock that shows what has passed already has the key server asked for the time', async () => {
  let now: number | undefined
  const taken: unknown[] = []
  const keys = {}
  const membership = membershipWith({
    group: { addPersonalKeys: async (given: unknown) => void taken.push(given) },
    keyServer: {
      nodeKeys: async () => {
        now = 1_760_000_000
        return keys
      },
    },
    nowSeconds: () => now,
  })
  membership.start()
  await expect.poll(() => taken).toEqual([keys])
  await membership.stop()
  expect(membership.lastError).toBeUndefined()
})

test('the Sender ID of a new membership is used, also when the disk was full at the join', async () => {
  let joins = 0
  let sid: Uint8Array = Uint8Array.of(1)
  const membership = membershipWith({
    group: { bit: 1, adopt: async () => {} },
    keyServer: {
      nodeKeys: async () => {
        throw new IotchainError('device/not-joined', 'gone')
      },
      join: async () => ({ response: { senderId: Uint8Array.of(2), creds: [], num: 1 }, created: joins++ === 0 }),
    },
    sequence: {
      group: () => ({ sid, session: 0 }),
      setSid: (_: string, given: Uint8Array) => {
        if (joins === 1) throw new IotchainError('runtime/disk-full', 'full')
        sid = given
      },
    },
    credentials: { renewAt: 2_000_000_000, add: async () => {}, covers: () => true },
  })
  membership.start()
  membership.gap('unknown-epoch')
  await expect.poll(() => sid, { timeout: 5000 }).toEqual(Uint8Array.of(2))
  await membership.stop()
  expect(joins).toBe(2)
})

test('after a lost answer to a join, one whose Sender ID the key server does not know gets another', async () => {
  let sid: Uint8Array = Uint8Array.of(1)
  let joins = 0
  let asked = 0
  const membership = membershipWith({
    group: { bit: 1, adopt: async () => {}, kdcCred: sid },
    keyServer: {
      creds: async () => ({ creds: [] }),
      join: async () => {
        joins++
        return { response: { senderId: Uint8Array.of(2), creds: [], num: 1 }, created: false }
      },
      newSenderId: async () => {
        asked++
        return Uint8Array.of(3)
      },
    },
    sequence: {
      group: () => ({ sid, session: 0 }),
      setSid: (_: string, given: Uint8Array) => {
        sid = given
      },
    },
    credentials: { renewAt: 2_000_000_000, add: async () => {}, covers: () => sid[0] === 3 },
    retry: { initial: 5, max: 20 },
  })
  membership.start()
  await expect.poll(() => membership.lastError === undefined && sid[0] === 3, { timeout: 5000 }).toBe(true)
  await membership.stop()
  expect([joins, asked]).toEqual([1, 1])
})
