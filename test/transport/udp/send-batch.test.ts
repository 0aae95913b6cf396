import { constants } from 'node:os'
import { expect, test } from 'vitest'
import { HEADER, LENGTH_AT, OWN_AT, SendBatch } from '../../../transport/udp/send-batch.ts'

const { EAGAIN, EINVAL, ENETUNREACH, ENODEV } = constants.errno

/** A socket that takes what `answers` says, call by call, and everything afterwards; keeps what was taken. */
function setup(answers: number[] = []) {
  const taken: number[] = []
  const failed: number[] = []
  const calls: number[] = []
  const owned: boolean[] = []
  let awaited = 0
  const heard: ((errno: number) => void)[] = []
  const batch = new SendBatch({
    send: (octets, from, count) => {
      calls.push(count)
      owned.push(octets[from + OWN_AT] !== 0)
      const answer = answers.shift() ?? count
      let at = from
      for (let i = 0; i < answer; i++) {
        taken.push(octets[at + HEADER] as number)
        at += HEADER + (((octets[at + LENGTH_AT] as number) << 8) | (octets[at + LENGTH_AT + 1] as number))
      }
      return answer
    },
    awaitRoom: () => void awaited++,
    socketAddress: (address) => (address === 'odd' || address.endsWith('%gone') ? undefined : Buffer.alloc(16)),
    onfailure: (errno) => {
      failed.push(errno)
      for (const hear of heard) hear(errno)
    },
  })
  return { batch, taken, failed, calls, owned, awaited: () => awaited, heard }
}

const to = { address: 'a', port: 1 }
const one = (n: number, octets = 1): Uint8Array => new Uint8Array(octets).fill(n)

test('the rest goes on after one that is refused, and who hears of it may send again', () => {
  const { batch, taken, failed, calls, heard } = setup([2, -ENETUNREACH])
  heard.push(() => batch.add(one(99), to))
  for (let n = 0; n < 7; n++) batch.add(one(n), to)
  batch.flush()
  expect(taken).toEqual([0, 1, 3, 4, 5, 6])
  expect(failed).toEqual([-ENETUNREACH])
  expect(calls).toEqual([7, 5, 4])
  batch.flush()
  expect(taken.at(-1)).toBe(99)
})

test('what a full socket does not take waits, and leaves in order', () => {
  const { batch, taken, awaited, failed } = setup([2, -EAGAIN, 1, -EAGAIN, -ENETUNREACH])
  for (let n = 0; n < 5; n++) batch.add(one(n, 1 + n), to)
  batch.flush()
  batch.add(one(5), to)
  batch.flush() // joins those that wait: the socket is not tried
  expect([taken, awaited()]).toEqual([[0, 1], 1])
  batch.add(one(6), to)
  batch.resume()
  expect([taken, awaited()]).toEqual([[0, 1, 2], 2])
  batch.resume()
  expect([taken, awaited()]).toEqual([[0, 1, 2, 4, 5, 6], 2])
  expect(failed).toEqual([-ENETUNREACH])
  batch.add(one(7), to)
  batch.flush()
  expect(taken.at(-1)).toBe(7)
})

test('what cannot leave from the address that was asked leaves from one that the system chooses', () => {
  const { batch, taken, failed, owned } = setup([1, -EINVAL, 1, -EINVAL, -ENETUNREACH])
  const asked = { ...to, own: new Uint8Array(12) }
  for (let n = 0; n < 4; n++) batch.add(one(n), asked)
  batch.flush()
  expect(taken).toEqual([0, 1, 3])
  expect(owned).toEqual([true, true, false, true, false, true])
  expect(failed).toEqual([-ENETUNREACH])
})

test('no more waits than a bound allows', () => {
  const full = setup(new Array(3000).fill(-EAGAIN))
  for (let n = 0; n < 2000; n++) full.batch.add(one(n & 255, 1000), to)
  full.batch.flush()
  expect(full.awaited()).toBe(1)
  const many = setup([-EAGAIN])
  for (let n = 0; n < 5000; n++) many.batch.add(one(n & 255), to)
  many.batch.flush()
  for (const [{ batch, taken }, most] of [
    [many, 4096],
    [{ ...full, taken: full.taken }, Math.floor(2 ** 20 / (1000 + HEADER))],
  ] as const) {
    while (taken.length === 0) batch.resume()
    expect(taken.length).toBe(most)
  }
})

test('an address or a length that no datagram can have is said at once', () => {
  const { batch, taken } = setup()
  expect(() => batch.add(one(1), { address: 'odd', port: 1 })).toThrow(expect.objectContaining({ code: 'EINVAL' }))
  for (const port of [-1, 65_536, Number.NaN]) {
    expect(() => batch.add(one(1), { address: 'a', port })).toThrow(expect.objectContaining({ code: 'EINVAL' }))
  }
  expect(() => batch.add(one(1, 65_536), to)).toThrow(expect.objectContaining({ code: 'EMSGSIZE' }))
  batch.add(one(2, 65_535), to)
  batch.add(one(3, 65_535), to)
  batch.flush()
  expect(taken).toEqual([2, 3])
})

test('an interface that is gone loses a datagram, and is no fault of the address', () => {
  const { batch, taken, failed } = setup()
  batch.add(one(1), { address: 'fe80::1%gone', port: 1 })
  batch.add(one(2), to)
  batch.flush()
  expect(taken).toEqual([2])
  expect(failed).toEqual([-ENODEV])
  expect(() => batch.add(one(3), { address: 'odd%gone', port: 1 })).toThrow(expect.objectContaining({ code: 'EINVAL' }))
})

test('while datagrams are gathered, nothing leaves by itself', async () => {
  const { batch, taken } = setup()
  batch.gathering = true
  batch.add(one(1), to)
  await new Promise((done) => setImmediate(done))
  expect(taken).toEqual([])
  batch.gathering = false
  batch.flush()
  batch.add(one(2), to)
  await new Promise((done) => setImmediate(done))
  expect(taken).toEqual([1, 2])
})
