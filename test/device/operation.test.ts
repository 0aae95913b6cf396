import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { adviceFor } from '../../device/advice.ts'
import { createDevice } from '../../device/daemon.ts'
import { examine, exitCodeOf, type Finding } from '../../device/doctor.ts'
import { forgetOrders, orderForget } from '../../device/forget.ts'
import { deviceSettings } from '../../device/settings.ts'
import { decodeBatch, encodeBatchReply } from '../../protocol/messages/batch.ts'
import { parseSigned } from '../../protocol/objects/parse.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { decodeLinks } from '../../transport/coap/link-format.ts'
import { Router } from '../../transport/coap/server.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { context, makeRig, SIMULATED } from './device-rig.ts'
import { sysfs, temporaryFolder } from './fixtures.ts'

const OTHER = { path: '/s/other', driver: 'simulated', group: 1, every: '100ms', seed: 9 }

function settingsFor(port: number, more: Record<string, unknown> = {}) {
  return deviceSettings.parse({
    device: { listen: `coap://127.0.0.1:${port}` },
    keyserver: 'coaps://127.0.0.1:1',
    chain: { id: 20180415, registry: `0x${'11'.repeat(20)}` },
    resources: [SIMULATED],
    time: { trust: 'always' },
    ...more,
  })
}

describe('reload', () => {
  test('resources come and go; the others miss no reading', async () => {
    const rig = await makeRig()
    rig.keyServer.publish(1)
    await rig.device.start()
    const client = await rig.client()
    const code = async (path: string): Promise<string> => (await client.get(path)).codeText
    await expect.poll(() => code('/s/demo'), { timeout: 15_000 }).toBe('2.05')
    const seqs: number[] = []
    client.observe('/s/demo', { onNotification: (r) => seqs.push(parseSigned(r.payload).header.seq) })
    await expect.poll(() => seqs.length, { timeout: 5000 }).toBeGreaterThan(2)
    const port = rig.device.address?.port as number
    await rig.device.reload?.(settingsFor(port, { resources: [SIMULATED, OTHER] }))
    await expect.poll(() => code('/s/other'), { timeout: 5000 }).toBe('2.05')
    await rig.device.reload?.(settingsFor(port, { resources: [SIMULATED] }))
    expect(await code('/s/other')).toBe('4.04')
    const before = seqs.length
    await expect.poll(() => seqs.length, { timeout: 5000 }).toBeGreaterThan(before + 2)
    expect(rig.lines.filter((l) => l['msg'] === 'joined')).toHaveLength(1)
  })

  test('one during the start counts, and of two at once the later', async () => {
    const rig = await makeRig()
    const starting = rig.device.start()
    const early = rig.device.reload?.(settingsFor(0, { resources: [SIMULATED, OTHER] }))
    await starting
    await early
    const client = await rig.client()
    const code = async (path: string): Promise<string> => (await client.get(path)).codeText
    expect(await code('/s/other')).not.toBe('4.04')
    const third = { ...OTHER, path: '/s/third' }
    await Promise.all([
      rig.device.reload?.(settingsFor(0, { resources: [SIMULATED, third] })),
      rig.device.reload?.(settingsFor(0, { resources: [SIMULATED] })),
    ])
    expect(await code('/s/third')).toBe('4.04')
    expect(await code('/s/demo')).not.toBe('4.04')
  })
})

describe('check', () => {
  test('tells what config.txt needs, and that the device is not enrolled', async () => {
    const folder = temporaryFolder()
    const resources = [
      { path: '/s/energy', driver: 'gpio-pulse', bcm: 27, group: 0 },
      { path: '/s/cellar', driver: 'w1', group: 0 },
      { path: '/s/air', driver: 'iio', name: 'bme280', channel: 'temp', group: 0 },
    ]
    const settings = settingsFor(0, { resources })
    expect(adviceFor(settings)).toEqual([
      'config.txt: gpio=27=pu   # /s/energy',
      'config.txt: dtoverlay=w1-gpio,gpiopin=4   # /s/cellar',
      'config.txt: dtparam=i2c_arm=on   # /s/air',
      'config.txt: dtoverlay=i2c-sensor,bme280   # /s/air',
    ])
    const device = await createDevice(settings, { ...context(folder), checkOnly: true })
    expect(await device.advice?.()).toContainEqual(expect.stringContaining('not enrolled yet'))
    await device.stop()
  })
})

describe('doctor', () => {
  const about = (findings: Finding[], name: string) => findings.find((f) => f.about === name)

  test('finds what is broken from outside, and says it in words', async () => {
    const folder = temporaryFolder()
    const { root } = sysfs({
      'class/hwmon/hwmon0/name': 'rpi_volt',
      'class/hwmon/hwmon0/in0_lcrit_alarm': '1',
      'class/gpio/gpiochip512/label': 'pinctrl-bcm2711',
      'class/gpio/gpiochip512/base': '512',
      'class/gpio/gpiochip512/ngpio': '20',
    })
    const resources = [
      { path: '/s/door', driver: 'gpio-digital', bcm: 17, group: 0 },
      { path: '/s/far', driver: 'gpio-digital', bcm: 27, group: 0 },
      { path: '/s/air', driver: 'iio', name: 'bme280', channel: 'temp', group: 0 },
    ]
    const findings = await examine(settingsFor(1, { sysfsRoot: root, resources }), context(folder))
    expect(about(findings, 'certificate')).toMatchObject({
      level: 'fail',
      text: expect.stringContaining('not enrolled'),
    })
    expect(about(findings, 'supply')).toMatchObject({ level: 'warn', text: expect.stringContaining('under-voltage') })
    expect(about(findings, 'sensor /s/door')).toMatchObject({
      level: 'ok',
      text: 'BCM 17 = sysfs 529 on pinctrl-bcm2711',
    })
    expect(about(findings, 'sensor /s/far')).toMatchObject({
      level: 'fail',
      text: expect.stringContaining('BCM 27 does not exist'),
    })
    expect(about(findings, 'sensor /s/air')).toMatchObject({
      level: 'fail',
      text: expect.stringContaining('i2c-sensor,bme280'),
    })
    expect(about(findings, 'daemon')).toMatchObject({ level: 'fail', text: expect.stringContaining('does not answer') })
    expect(about(findings, 'disk')?.level).toBe('ok')
    expect(exitCodeOf(findings)).toBe(2)
    expect(exitCodeOf([{ about: 'x', level: 'warn', text: '' }])).toBe(1)
    expect(exitCodeOf([{ about: 'x', level: 'ok', text: '' }])).toBe(0)
  })

  test('sees the age of the readings of a running device', async () => {
    const rig = await makeRig()
    rig.keyServer.publish(1)
    await rig.device.start()
    const client = await rig.client()
    await expect.poll(async () => (await client.get('/s/demo')).codeText, { timeout: 15_000 }).toBe('2.05')
    const findings = await examine(settingsFor(rig.device.address?.port as number), context(rig.folder, [], rig.clock))
    expect(about(findings, 'reading /s/demo')).toMatchObject({
      level: 'ok',
      text: expect.stringMatching(/^sealed \d+ s ago$/),
    })
    expect(about(findings, 'certificate')).toMatchObject({ level: 'ok', text: expect.stringContaining(rig.address) })
    expect(about(findings, 'key server')?.level).toBe('fail')
    expect(about(findings, 'proxy')).toMatchObject({ level: 'ok', text: 'none configured' })
    expect(about(findings, 'daemon')).toMatchObject({ level: 'ok', text: expect.stringMatching(/^serves on coap:/) })
  })
})

describe('forget', () => {
  test('a tombstone goes to the proxy, the device forgets, and the order is done', async () => {
    const paths: string[] = []
    const router = new Router()
      .add({
        pattern: '/d/:device/@batch',
        post: (request) => {
          const items = decodeBatch(request.payload)
          paths.push(...items.map((i) => i.path.join('/')))
          return {
            code: Code.changed,
            payload: encodeBatchReply(items.map(() => Code.changed)),
            contentFormat: ContentFormat.cbor,
          }
        },
      })
      .add({ pattern: '/d/:device/*path', put: () => ({ code: Code.created }) })
    const transport = await bindUdp({ host: '127.0.0.1' })
    const endpoint = new CoapEndpoint(transport, { router })
    onTestFinished(() => endpoint.close())
    const proxy = `coap://127.0.0.1:${transport.address.port}`
    const rig = await makeRig({ device: { listen: 'coap://127.0.0.1:0', proxy } })
    rig.keyServer.publish(1)
    await rig.device.start()
    const client = await rig.client()
    await expect.poll(async () => (await client.get('/s/demo')).codeText, { timeout: 15_000 }).toBe('2.05')
    rig.keyServer.publish(1)
    const history = async () => decodeLinks((await client.get('/s/demo?from=0')).text)
    await expect.poll(async () => (await history()).length, { timeout: 10_000 }).toBeGreaterThan(0)
    const state = join(rig.folder, 'state')
    orderForget(state, '/s/demo')
    orderForget(state, '/s/unknown')
    expect(forgetOrders(state).sort()).toEqual(['/s/demo', '/s/unknown'])
    await rig.device.reload?.(settingsFor(rig.device.address?.port as number))
    await expect.poll(() => forgetOrders(state), { timeout: 10_000 }).toEqual([])
    expect(await history()).toEqual([])
    await expect.poll(() => paths, { timeout: 10_000 }).toContain('s/demo/@gone')
  })

  test('rubbish in the folder of orders does no harm', () => {
    const state = temporaryFolder()
    mkdirSync(join(state, 'forget'))
    writeFileSync(join(state, 'forget/.tmp'), '')
    expect(forgetOrders(state)).toEqual([])
    expect(forgetOrders('/nonexistent')).toEqual([])
  })
})
