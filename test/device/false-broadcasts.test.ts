import { describe, expect, test } from 'vitest'
import { FalseBroadcasts } from '../../device/false-broadcasts.ts'
import { gname } from '../../protocol/groups/gid.ts'
import { makeRig } from './device-rig.ts'

describe('false broadcasts', () => {
  test('four from one source, then one in 15 seconds; others are not held back', () => {
    let nowMs = 0
    const limit = new FalseBroadcasts(() => nowMs)
    for (let i = 0; i < 4; i++) {
      expect(limit.mayBring('a', false)).toBe(true)
      limit.wasFalse('a', false)
    }
    expect(limit.mayBring('a', false)).toBe(false)
    expect(limit.mayBring('b', false)).toBe(true)
    nowMs = 14_999
    expect(limit.mayBring('a', false)).toBe(false)
    nowMs = 15_000
    expect(limit.mayBring('a', false)).toBe(true)
    limit.wasFalse('a', false)
    expect(limit.mayBring('a', false)).toBe(false)
  })

  test('from ever new addresses: 64, then two a second; whoever was asked goes on being heard', () => {
    let nowMs = 0
    const limit = new FalseBroadcasts(() => nowMs)
    let heard = 0
    for (; nowMs < 60_000; nowMs += 10) {
      const address = `10.0.${nowMs >> 8}.${nowMs & 255}`
      if (!limit.mayBring(address, false)) continue
      heard++
      limit.wasFalse(address, false)
    }
    expect(heard).toBeGreaterThanOrEqual(64 + 119)
    expect(heard).toBeLessThanOrEqual(64 + 121)
    expect(limit.mayBring('coap://key.server', true)).toBe(true)
  })

  test('are refused by a device unread once there were several', async () => {
    const rig = await makeRig()
    rig.keyServer.publish(1, 60)
    await rig.device.start()
    const client = await rig.client()
    await expect.poll(async () => (await client.get('/s/demo')).codeText, { timeout: 15_000 }).toBe('2.05')
    rig.keyServer.silent = true
    const good = rig.keyServer.publish(1, 3600)
    const bad = good.slice()
    bad[bad.length - 1] = (bad[bad.length - 1] as number) ^ 1
    const path = `/bc/${gname(rig.keyServer.group(1).gid)}`
    const codes: string[] = []
    for (let i = 0; i < 6; i++) codes.push((await client.post(path, bad)).codeText)
    expect(codes).toEqual(['4.00', '4.00', '4.00', '4.00', '4.29', '4.29'])
  })
})
