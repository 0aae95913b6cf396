import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { DeviceTime } from '../../device/device-time.ts'
import { hostClockIsRight } from '../../device/host-clock.ts'
import { machineId } from '../../device/machine-id.ts'
import { silentLogger } from '../../runtime/log.ts'
import { HandClock, temporaryFolder } from './fixtures.ts'

function time(clock: HandClock, options: { right?: boolean; latest?: number } = {}): DeviceTime {
  return new DeviceTime({
    clock,
    log: silentLogger,
    latest: options.latest ?? 0,
    hostClockIsRight: async () => options.right ?? true,
  })
}

describe('the device’s time', () => {
  test('is unknown until the host’s clock is right or the key server has told it', async () => {
    const clock = new HandClock(0)
    const unknown = time(clock, { right: false })
    expect(await unknown.hostIsRight()).toBe(false)
    expect(unknown.nowSeconds()).toBeUndefined()
    unknown.anchor(1_760_000_000)
    expect(unknown.nowSeconds()).toBe(1_760_000_000)
    clock.monoMs += 10_000
    expect(unknown.nowSeconds()).toBe(1_760_000_010)
    expect(unknown.source).toBe('server')
  })

  test('once anchored, jumps of the host’s clock change nothing, and the server is asked again', async () => {
    const clock = new HandClock()
    const anchored = time(clock)
    await anchored.hostIsRight()
    anchored.anchor(Math.floor(clock.nowMs() / 1000))
    const before = anchored.nowSeconds() as number
    clock.wallMs += 86_400_000
    expect(anchored.nowSeconds()).toBe(before)
    expect(anchored.needsAnchor()).toBe(true)
    clock.wallMs -= 2 * 86_400_000
    clock.monoMs += 1000
    expect(anchored.nowSeconds()).toBe(before + 1)
  })

  test('never goes back: a small setback stands still, a large one is no time at all', async () => {
    const clock = new HandClock()
    const host = time(clock)
    await host.hostIsRight()
    const before = host.nowMs()
    clock.wallMs -= 3000
    expect(host.nowMs()).toBe(before)
    clock.wallMs -= 60_000
    expect(host.nowMs()).toBeUndefined()
    clock.advance(70_000)
    expect(host.nowMs()).toBeGreaterThan(before as number)
  })

  test.each([
    ['ahead', 86_400_000],
    ['behind', -86_400_000],
  ])('before the first contact a jump a day %s is not followed, and the server is asked', async (_, jumpMs) => {
    const clock = new HandClock()
    const host = time(clock)
    await host.hostIsRight()
    const before = host.nowMs() as number
    clock.wallMs += jumpMs
    clock.advance(1000)
    expect(host.nowMs()).toBe(before + 1000)
    expect(host.needsAnchor()).toBe(true)
    expect(host.source).toBe('host')
    host.anchor(Math.floor((before + 2000) / 1000))
    clock.advance(1000)
    expect(Math.abs((host.nowMs() as number) - (before + 3000))).toBeLessThan(1000)
    // the server has spoken; asked again only when the host's clock moves again
    expect(host.needsAnchor()).toBe(false)
    clock.wallMs -= jumpMs
    expect(host.needsAnchor()).toBe(true)
  })

  test('before the first contact a clock that is slewed is followed', async () => {
    const clock = new HandClock()
    const host = time(clock)
    await host.hostIsRight()
    for (let i = 0; i < 10; i++) {
      clock.advance(1000)
      clock.wallMs += 20_000
      expect(host.nowMs()).toBe(clock.nowMs())
    }
    expect(host.needsAnchor()).toBe(false)
  })

  test('never before the latest time of the last run', async () => {
    const clock = new HandClock()
    const restarted = time(clock, { latest: clock.nowMs() / 1000 + 3600 })
    await restarted.hostIsRight()
    expect(restarted.nowSeconds()).toBeUndefined()
    clock.advance(3_600_000)
    expect(restarted.nowSeconds()).toBe(Math.floor(clock.nowMs() / 1000))
  })
})

describe('the host’s clock', () => {
  const NOW = 1_760_000_000
  function paths(files: { synchronized?: boolean; rtc?: string; systemd?: boolean }) {
    const root = temporaryFolder()
    if (files.synchronized) writeFileSync(join(root, 'synchronized'), '')
    if (files.systemd) mkdirSync(join(root, 'systemd'))
    if (files.rtc !== undefined) {
      mkdirSync(join(root, 'rtc/rtc0'), { recursive: true })
      writeFileSync(join(root, 'rtc/rtc0/hctosys'), `${files.rtc}\n`)
    }
    return { synchronized: join(root, 'synchronized'), rtc: join(root, 'rtc'), systemd: join(root, 'systemd') }
  }

  test.each([
    ['1970', 5, { synchronized: true }, true, false],
    ['set from the network', NOW, { synchronized: true, systemd: true }, false, true],
    ['set from a clock chip', NOW, { rtc: '1', systemd: true }, false, true],
    ['a chip that was not used', NOW, { rtc: '0', systemd: true }, false, false],
    ['set by chrony', NOW, { systemd: true }, true, true],
    ['a Pi that waits for its time server', NOW, { systemd: true }, false, false],
    ['a container, whose clock is its host’s', NOW, {}, false, true],
  ])('%s', async (_, now, files, timedate, right) => {
    expect(await hostClockIsRight(now, paths(files), async () => timedate)).toBe(right)
  })
})

test('the machine is told by its board, not by what a card carries along', () => {
  const root = temporaryFolder()
  const serial = join(root, 'serial')
  const card = join(root, 'machine-id')
  writeFileSync(card, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n')
  const withoutBoard = machineId([serial, card])
  writeFileSync(serial, '10000000abcdef01\0')
  const first = machineId([serial, card])
  writeFileSync(serial, '10000000abcdef02\0')
  const second = machineId([serial, card])
  expect(new Set([withoutBoard, first, second]).size).toBe(3)
  expect(first).toMatch(/^[0-9a-f]{32}$/)
  expect(machineId([join(root, 'none')])).toBe('none')
})
