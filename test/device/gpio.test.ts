import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { findLine } from '../../device/drivers/gpio-chip.ts'
import { createDriver as createDigital } from '../../device/drivers/gpio-digital.ts'
import type { GpioLine, LineFactory } from '../../device/drivers/gpio-line.ts'
import { onoffLine } from '../../device/drivers/gpio-line.ts'
import { createDriver as createOut } from '../../device/drivers/gpio-out.ts'
import { createDriver as createPulse } from '../../device/drivers/gpio-pulse.ts'
import { resourceSettings, type SettingsOf } from '../../device/resource-settings.ts'
import { deviceSettings } from '../../device/settings.ts'
import { parseConfig } from '../../runtime/config.ts'
import { environment, HandClock, sysfs, temporaryFolder } from './fixtures.ts'

function settings<D extends 'gpio-digital' | 'gpio-pulse' | 'gpio-out'>(driver: D, more: object = {}): SettingsOf<D> {
  const path = driver === 'gpio-out' ? '/a/x' : '/s/x'
  return resourceSettings.parse({ path, group: 0, driver, bcm: 17, ...more }) as SettingsOf<D>
}

/** A line whose level the test sets. */
class TestLine implements GpioLine {
  high = false
  open_ = false
  interrupts = true
  listener: ((high: boolean) => void) | undefined
  readonly factory: LineFactory = (options) => {
    if (options.direction === 'out') this.high = options.initialHigh === true
    return this
  }
  async open(): Promise<void> {
    this.open_ = true
  }
  read(): boolean {
    return this.high
  }
  write(high: boolean): void {
    if (!this.open_) throw new Error('closed')
    this.high = high
  }
  watch(onEdge: (high: boolean) => void): (() => void) | undefined {
    if (!this.interrupts) return undefined
    this.listener = onEdge
    return () => {
      this.listener = undefined
    }
  }
  close(): void {
    this.open_ = false
  }
  set(high: boolean): void {
    this.high = high
    this.listener?.(high)
  }
}

describe('the controller is found by its label', () => {
  const chip = (name: string, label: string, base: number, lines: number) => ({
    [`class/gpio/${name}/label`]: label,
    [`class/gpio/${name}/base`]: String(base),
    [`class/gpio/${name}/ngpio`]: String(lines),
  })
  const auto = { chip: 'auto', allowInternal: false }

  test.each([
    [
      'Pi 4, new kernel',
      { ...chip('gpiochip504', 'raspberrypi-exp-gpio', 504, 8), ...chip('gpiochip512', 'pinctrl-bcm2711', 512, 58) },
      529,
    ],
    ['Pi 3, old kernel', chip('gpiochip0', 'pinctrl-bcm2835', 0, 54), 17],
    [
      'Pi 5',
      { ...chip('gpiochip512', 'gpio-brcmstb@107d508500', 512, 32), ...chip('gpiochip569', 'pinctrl-rp1', 569, 54) },
      586,
    ],
  ])('%s', async (_, files, number) => {
    expect((await findLine(17, { sysfsRoot: sysfs(files).root, gpio: auto })).number).toBe(number)
  })

  test('what is wrong is told in words', async () => {
    const none = sysfs({}).root
    await expect(findLine(17, { sysfsRoot: none, gpio: auto })).rejects.toMatchObject({
      code: 'sensor/no-gpio',
      message: 'no GPIO controller on this host',
      hint: expect.stringContaining('simulated'),
    })
    const withoutLines = sysfs({ 'bus/gpio/devices/gpiochip0/uevent': '' }).root
    await expect(findLine(17, { sysfsRoot: withoutLines, gpio: auto })).rejects.toMatchObject({
      code: 'sensor/no-gpio',
      message: 'this kernel has GPIO controllers, but shows no lines in /sys/class/gpio',
      hint: expect.stringContaining('CONFIG_GPIO_SYSFS'),
    })
    const { root } = sysfs(chip('gpiochip0', 'pinctrl-bcm2835', 0, 54))
    await expect(findLine(60, { sysfsRoot: root, gpio: auto })).rejects.toMatchObject({ code: 'sensor/no-such-line' })
    await expect(findLine(40, { sysfsRoot: root, gpio: auto })).rejects.toMatchObject({ code: 'sensor/no-such-line' })
    expect((await findLine(40, { sysfsRoot: root, gpio: { ...auto, allowInternal: true } })).number).toBe(40)
    await expect(findLine(1, { sysfsRoot: root, gpio: { ...auto, chip: 'gpio-sim.0' } })).rejects.toMatchObject({
      message: expect.stringContaining('pinctrl-bcm2835'),
    })
  })

  test('on this host, without a Raspberry Pi’s GPIO, a driver says so when it starts', async () => {
    const line = onoffLine({ bcm: 17, direction: 'in' }, environment({ sysfsRoot: sysfs({}).root }))
    await expect(line.open()).rejects.toMatchObject({ code: 'sensor/no-gpio' })
  })
})

describe('gpio-digital', () => {
  test('reports each change of level, turned round for activeLow', async () => {
    const line = new TestLine()
    line.high = true
    const driver = createDigital(settings('gpio-digital', { activeLow: true }), environment(), line.factory)
    await driver.start()
    expect(await driver.read()).toEqual([{ v: false, quality: 'ok' }])
    const seen: unknown[] = []
    const end = driver.watch?.((m) => seen.push(m[0]?.v))
    line.set(false)
    line.set(false)
    line.set(true)
    expect(seen).toEqual([true, false])
    end?.()
    line.set(false)
    expect(seen).toHaveLength(2)
    await driver.stop()
    expect(line.open_).toBe(false)
  })

  test('a bouncing contact is one change', async () => {
    vi.useFakeTimers()
    try {
      const line = new TestLine()
      const driver = createDigital(settings('gpio-digital', { debounceMs: 30 }), environment(), line.factory)
      await driver.start()
      await driver.read()
      const seen: unknown[] = []
      driver.watch?.((m) => seen.push(m[0]?.v))
      for (const high of [true, false, true, false, true]) {
        line.set(high)
        vi.advanceTimersByTime(5)
      }
      expect(await driver.read()).toEqual([{ v: false, quality: 'ok' }])
      vi.advanceTimersByTime(30)
      line.set(false)
      vi.advanceTimersByTime(10)
      line.set(true)
      vi.advanceTimersByTime(100)
      expect(seen).toEqual([true])
      await driver.stop()
    } finally {
      vi.useRealTimers()
    }
  })
})

describe('gpio-pulse', () => {
  function meter(more: object = {}) {
    const line = new TestLine()
    const clock = new HandClock()
    const env = environment({ monotonicMs: () => clock.monotonicMs() })
    const make = () =>
      createPulse(settings('gpio-pulse', { pulsesPerUnit: 1000, unit: 'kWh', ...more }), env, line.factory)
    const pulse = (ms = 100): void => {
      line.set(true)
      clock.advance(ms)
      line.set(false)
      clock.advance(ms)
    }
    return { line, clock, env, make, pulse, file: join(env.stateDirectory, 's_x.count') }
  }

  test('counts each pulse and tells the rate', async () => {
    const { make, pulse, clock } = meter()
    const driver = make()
    await driver.start()
    for (let i = 0; i < 100; i++) pulse()
    clock.advance(3_600_000 - 20_000)
    expect(await driver.read()).toEqual([
      { v: 0.1, u: 'kWh', quality: 'ok' },
      { name: 'rate', v: 0.1, u: 'kW', quality: 'ok' },
    ])
    await driver.stop()
  })

  test('a pulse that was over before we looked counts; noise does not', async () => {
    const { make, line, clock, pulse } = meter({ minPulseMs: 20 })
    const driver = make()
    await driver.start()
    clock.advance(1000)
    line.listener?.(false)
    pulse()
    pulse(1)
    expect((await driver.read())[0]?.v).toBe(0.002)
    await driver.stop()
  })

  test('never goes back: the count is on the disk before it is told', async () => {
    const { make, pulse, file } = meter()
    const first = make()
    await first.start()
    for (let i = 0; i < 7; i++) pulse()
    expect((await first.read())[0]?.v).toBe(0.007)
    // No stop: the power is cut.
    const second = make()
    await second.start()
    expect((await second.read())[0]?.v).toBe(0.007)
    pulse()
    await second.stop()
    expect(readFileSync(file, 'utf8')).toBe('8\n')
  })

  test('a damaged count, and a disk that takes none, are errors and no false reading', async () => {
    const { make, file, env, pulse } = meter()
    mkdirSync(env.stateDirectory, { recursive: true })
    writeFileSync(file, 'xx')
    await expect(make().start()).rejects.toMatchObject({ code: 'sensor/counter-damaged' })
    const nowhere = { ...env, stateDirectory: join(temporaryFolder(), 'file') }
    writeFileSync(nowhere.stateDirectory, '')
    const line = new TestLine()
    const driver = createPulse(settings('gpio-pulse'), nowhere, line.factory)
    await expect(driver.start()).rejects.toMatchObject({ code: expect.stringMatching(/^runtime\//) })
    pulse()
  })

  test('a line without interrupts cannot count', async () => {
    const { make, line } = meter()
    line.interrupts = false
    await expect(make().start()).rejects.toMatchObject({ code: 'sensor/no-interrupt' })
    expect(line.open_).toBe(false)
  })
})

describe('gpio-out', () => {
  test('safe at start and stop, and turned round for activeLow', async () => {
    const line = new TestLine()
    const driver = createOut(settings('gpio-out', { activeLow: true, safe: 'off' }), environment(), line.factory)
    await driver.start()
    expect(line.high).toBe(true)
    await driver.write?.(true)
    expect(line.high).toBe(false)
    expect(await driver.read()).toEqual([{ v: true, quality: 'ok' }])
    await driver.stop()
    expect(line.high).toBe(true)
    expect(line.open_).toBe(false)
    await driver.stop()
  })
})

describe('lines in the configuration', () => {
  const config = (lines: readonly number[], gpio = '') =>
    parseConfig(
      deviceSettings,
      `keyserver: "coaps://k.example"
chain: { id: 1, registry: "0x1111111111111111111111111111111111111111" }
${gpio}
resources:
${lines.map((bcm, i) => `  - { path: /s/r${i}, driver: gpio-digital, bcm: ${bcm}, group: 0 }`).join('\n')}
`,
      'd.yaml',
    )

  test('check refuses a line that is not on the header, unless it is allowed', () => {
    expect(() => config([17, 40])).toThrow(/^d\.yaml:6: resources\[1\]\.bcm: BCM 40 is not on the header/)
    expect(config([17, 40], 'gpio: { allowInternal: true }').resources).toHaveLength(2)
  })

  test('check refuses two resources on one line', () => {
    expect(() => config([17, 22, 17])).toThrow(/^d\.yaml:7: resources\[2\]\.bcm: BCM 17 is the line of \/s\/r0 already/)
  })
})
