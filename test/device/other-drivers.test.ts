import { mkdirSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createDriver as createExec } from '../../device/drivers/exec.ts'
import { createDriver as createFile } from '../../device/drivers/file.ts'
import { createDriver as createHost } from '../../device/drivers/host.ts'
import { parseJsonLine } from '../../device/drivers/json-line.ts'
import { createDriver as createSimulated } from '../../device/drivers/simulated.ts'
import { createDriver as createSwitch } from '../../device/drivers/simulated-out.ts'
import { resourceSettings, type SettingsOf } from '../../device/resource-settings.ts'
import { environment, temporaryFolder } from './fixtures.ts'

function settings<D extends 'exec' | 'file' | 'host' | 'simulated'>(driver: D, more: object = {}): SettingsOf<D> {
  return resourceSettings.parse({ path: '/s/x', group: 0, driver, ...more }) as SettingsOf<D>
}

describe('simulated', () => {
  test('the same seed gives the same series, within its bounds, and says that it is simulated', async () => {
    const read = async (seed: number) => {
      const driver = createSimulated(settings('simulated', { seed, min: 10, max: 12 }))
      await driver.start()
      expect(driver.describe().simulated).toBe(true)
      const values: number[] = []
      for (let i = 0; i < 200; i++) values.push((await driver.read())[0]?.v as number)
      return values
    }
    const series = await read(7)
    expect(await read(7)).toEqual(series)
    expect(await read(8)).not.toEqual(series)
    expect(Math.min(...series)).toBeGreaterThanOrEqual(10)
    expect(Math.max(...series)).toBeLessThanOrEqual(12)
    expect(new Set(series).size).toBeGreaterThan(50)
  })

  test('the simulated switch begins and ends safe', async () => {
    const driver = createSwitch(
      resourceSettings.parse({
        path: '/a/x',
        group: 0,
        driver: 'simulated-out',
        safe: 'on',
      }) as SettingsOf<'simulated-out'>,
    )
    await driver.start()
    expect((await driver.read())[0]?.v).toBe(true)
    await driver.write?.(false)
    expect((await driver.read())[0]?.v).toBe(false)
    await driver.stop()
    expect((await driver.read())[0]?.v).toBe(true)
  })
})

describe('host', () => {
  test('reads real values of this computer', async () => {
    const driver = createHost(
      settings('host', { fields: ['cpuTemperature', 'load', 'memory', 'disk', 'network', 'uptime'] }),
      environment(),
    )
    const values = await driver.read()
    const names = values.map((m) => m.name)
    expect(names).toEqual(expect.arrayContaining(['load', 'memory', 'uptime']))
    const memory = values.find((m) => m.name === 'memory')
    expect(memory?.u).toBe('%')
    expect(memory?.v).toBeGreaterThan(0)
    expect(memory?.v).toBeLessThan(100)
    for (const m of values) expect(m.quality).toBe('ok')
  })

  test('without a temperature sensor there is still a reading', async () => {
    const values = await createHost(settings('host', { fields: ['cpuTemperature'] }), environment()).read()
    expect(values).toHaveLength(1)
    expect(['cpuTemperature', 'load']).toContain(values[0]?.name)
  })
})

describe('exec', () => {
  const node = (script: string, more: object = {}) =>
    createExec(settings('exec', { command: [process.execPath, '-e', script], ...more }))

  test('takes the last line of a program', async () => {
    expect(await node('console.log("warming up"); console.log(JSON.stringify({v: 21.5, u: "Cel"}))').read()).toEqual([
      { v: 21.5, u: 'Cel', quality: 'ok' },
    ])
    expect(await node('console.log(3)', { unit: 'V' }).read()).toEqual([{ v: 3, u: 'V', quality: 'ok' }])
  })

  test.each([
    ['no JSON', 'console.log("hello")', {}, 'sensor/bad-value'],
    ['an exit code', 'process.exit(3)', {}, 'sensor/exec'],
    ['a program that hangs', 'setInterval(() => {}, 1000)', { timeout: '150ms' }, 'sensor/timeout'],
    ['a flood', 'for (;;) console.log("x".repeat(10000))', {}, 'sensor/exec'],
  ])('%s is an error', async (_, script, more, code) => {
    await expect(node(script, more).read()).rejects.toMatchObject({ code })
  })

  test('a missing program is told by its name', async () => {
    const driver = createExec(settings('exec', { command: ['/no/such/program'] }))
    await expect(driver.read()).rejects.toMatchObject({
      code: 'sensor/exec',
      message: expect.stringContaining('/no/such/program'),
    })
  })
})

describe('file', () => {
  test('an old file is stale, a missing one an error', async () => {
    const folder = temporaryFolder()
    const file = join(folder, 'value.json')
    const driver = createFile(settings('file', { file, maxAge: '60s' }), () => 1_000_000_000)
    await expect(driver.read()).rejects.toMatchObject({ code: 'sensor/vanished' })
    writeFileSync(file, '{"inside":{"v":21.5,"u":"Cel"},"outside":{"v":-3,"u":"Cel"}}\n')
    utimesSync(file, 999_990, 999_990)
    expect((await driver.read()).map((m) => [m.name, m.v, m.quality])).toEqual([
      ['inside', 21.5, 'ok'],
      ['outside', -3, 'ok'],
    ])
    utimesSync(file, 999_000, 999_000)
    expect((await driver.read()).map((m) => m.quality)).toEqual(['stale', 'stale'])
    mkdirSync(join(folder, 'dir'))
    await expect(createFile(settings('file', { file: join(folder, 'dir') })).read()).rejects.toMatchObject({
      code: 'sensor/unreadable',
    })
  })
})

test('no line makes anything but measurements or a coded error', () => {
  fc.assert(
    fc.property(fc.oneof(fc.json(), fc.string()), (text) => {
      try {
        for (const m of parseJsonLine(text, undefined)) {
          expect(['number', 'boolean', 'string', 'undefined']).toContain(typeof m.v)
          expect(m.v === undefined).toBe(m.v === undefined && m.quality === 'error')
        }
      } catch (error) {
        expect(error).toMatchObject({ code: 'sensor/bad-value' })
      }
    }),
    { numRuns: 500, seed: 1 },
  )
})
