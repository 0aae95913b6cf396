import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { EpochRefresh } from '../../client/epoch-refresh.ts'
import { Membership } from '../../client/group.ts'
import { refreshMoment } from '../../protocol/groups/schedule.ts'
import { addressOfNumber, TestClock, TestDevice, type TestGroup, TestKeyServer } from './sealed-world.ts'

const EPOCH = 86_400
const CLIENT = addressOfNumber(1)

describe('the personal key of the next epoch', () => {
  let clock: TestClock
  let group: TestGroup
  let membership: Membership
  let ends: number
  let asked: number[]

  beforeEach(() => {
    vi.useFakeTimers()
    clock = new TestClock()
    const keyServer = new TestKeyServer(clock)
    const device = new TestDevice(7)
    group = keyServer.group(device)
    membership = Membership.fromJoin(
      { gid: group.gid, device: device.address, bit: 0, client: CLIENT, clock, sources: [] },
      group.join(CLIENT),
    )
    ends = membership.epochEnds as number
    asked = []
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  /** Time for timers and for the clock. */
  async function live(seconds: number): Promise<void> {
    for (let left = seconds; left > 0; left -= 30) {
      clock.seconds += Math.min(30, left)
      await vi.advanceTimersByTimeAsync(Math.min(30, left) * 1000)
    }
  }
  const refresh = (random: number, fetch: () => void = () => undefined): EpochRefresh =>
    new EpochRefresh({
      clock,
      random: () => random,
      fetch: async () => {
        asked.push(ends - clock.seconds)
        fetch()
      },
    })
  function handOut(): void {
    group.manager.allocateEpoch({ nbf: membership.epochEnds as number })
    membership.addPersonal(group.join(CLIENT, { upcoming: true }).personalKey)
  }

  test('is asked for once, at a moment within the last hour that differs from member to member', async () => {
    expect(membership.epochEnds).toBe(clock.seconds + EPOCH)
    expect(refreshMoment(ends, EPOCH, 0)).toBe(ends - 720)
    expect(refreshMoment(ends, EPOCH, 0.999)).toBeGreaterThan(ends - 3600)
    expect(refreshMoment(ends, 60, 0.5)).toBe(ends - 7.5)
    const epochs = refresh(0.5, handOut)
    epochs.follow(membership)
    await live(EPOCH - 1801)
    expect(asked).toEqual([])
    await live(1801)
    expect(asked).toHaveLength(1)
    expect(asked[0]).toBeLessThanOrEqual(1800)
    expect(asked[0]).toBeGreaterThan(1740)
    expect(membership.epochEnds).toBe(ends + EPOCH)
    // and that of the one after it in its time
    await live(EPOCH)
    expect(asked).toHaveLength(2)
    epochs.close()
  })

  test('is asked for again while there is none, until the epoch is over', async () => {
    const epochs = refresh(0, () => {
      throw new Error('the key server is away')
    })
    epochs.follow(membership)
    await live(EPOCH + 3600)
    expect(asked.length).toBeGreaterThanOrEqual(8)
    expect(asked.length).toBeLessThanOrEqual(12)
    expect(Math.min(...asked)).toBeGreaterThan(0)
    // the key came with the first broadcast of the new epoch: the next one is asked for ahead again
    handOut()
    asked = []
    ends = membership.epochEnds as number
    await live(EPOCH - 3600 - 800)
    expect(asked).toEqual([])
    await live(200)
    expect(asked.length).toBeGreaterThan(0)
    epochs.close()
  })

  test('is asked for ahead also by who took up a membership whose epoch was over', async () => {
    clock.seconds += EPOCH + 3600
    const epochs = refresh(0.5)
    epochs.follow(membership)
    await live(3600)
    expect(asked).toEqual([])
    group.manager.allocateEpoch({ nbf: clock.seconds })
    membership.addPersonal(group.join(CLIENT, { upcoming: true }).personalKey)
    ends = membership.epochEnds as number
    expect(ends).toBe(clock.seconds + EPOCH)
    await live(EPOCH - 1700)
    expect(asked.length).toBeGreaterThan(0)
    epochs.close()
  })

  test('is not asked for by who has closed, or left', async () => {
    const epochs = refresh(0.5)
    epochs.follow(membership)
    epochs.close()
    await live(EPOCH)
    expect(asked).toEqual([])
  })
})
