import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Driver, Measurement, Sample } from '../../device/drivers/driver.ts'
import { senmlOf } from '../../device/reading.ts'
import { Sampler, type SamplerOptions } from '../../device/sampler.ts'
import { createLogger, silentLogger } from '../../runtime/log.ts'

beforeEach(
  () =>
    void vi.useFakeTimers({
      now: 1_760_000_000_000,
      toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date', 'performance'],
    }),
)
afterEach(() => void vi.useRealTimers())

class TestDriver implements Driver {
  value: number | boolean | Error = 1
  startError: Error | undefined
  reads = 0
  stopped = false
  hang = false
  hanging: (() => void)[] = []
  watcher: ((m: readonly Measurement[]) => void) | undefined
  async start(): Promise<void> {
    if (this.startError !== undefined) throw this.startError
  }
  async read(): Promise<readonly Measurement[]> {
    this.reads++
    if (this.hang) await new Promise<void>((resolve) => this.hanging.push(resolve))
    if (this.value instanceof Error) throw this.value
    return [{ v: this.value, quality: 'ok' }]
  }
  async stop(): Promise<void> {
    this.stopped = true
  }
  describe() {
    return { rt: 'test', if: 'core.s' }
  }
}

function sampler(driver: Driver, more: Partial<SamplerOptions> = {}) {
  const samples: Sample[][] = []
  const made = new Sampler({
    path: '/s/x',
    driver,
    periodMs: 60_000,
    onChange: false,
    clock: { nowMs: () => Date.now(), monotonicMs: () => performance.now() },
    time: { nowMs: () => Date.now() },
    log: silentLogger,
    onSamples: (s) => samples.push([...s]),
    ...more,
  })
  return {
    made,
    samples,
    qualities: () => samples.map((s) => s[0]?.quality),
    values: () => samples.map((s) => s[0]?.v),
  }
}

describe('sampler', () => {
  test('reads at its pace, by the monotonic clock', async () => {
    const driver = new TestDriver()
    const { made, samples } = sampler(driver)
    await made.start()
    expect(samples).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(600_000)
    expect(samples).toHaveLength(11)
    await made.stop()
    expect(driver.stopped).toBe(true)
    await vi.advanceTimersByTimeAsync(600_000)
    expect(samples).toHaveLength(11)
  })

  test('a failing sensor reports error, is tried again after 1, 2, 4 … 60 s, and comes back by itself', async () => {
    const driver = new TestDriver()
    const { made, qualities } = sampler(driver)
    await made.start()
    driver.value = new Error('gone')
    await vi.advanceTimersByTimeAsync(60_000)
    expect(qualities()).toEqual(['ok', 'error'])
    const before = driver.reads
    await vi.advanceTimersByTimeAsync(1000 + 2000 + 4000)
    expect(driver.reads - before).toBe(3)
    expect(qualities()).toEqual(['ok', 'error'])
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect(driver.reads - before).toBeLessThan(70)
    driver.value = 5
    await vi.advanceTimersByTimeAsync(60_000)
    expect(qualities().at(-1)).toBe('ok')
    await made.stop()
  })

  test('a sensor that cannot be started is one that failed', async () => {
    const driver = new TestDriver()
    driver.startError = new Error('no GPIO')
    const { made, qualities } = sampler(driver)
    await made.start()
    expect(qualities()).toEqual(['error'])
    driver.startError = undefined
    await vi.advanceTimersByTimeAsync(1000)
    expect(qualities()).toEqual(['error', 'ok'])
    await made.stop()
  })

  test('a sensor that never answers does not hang the others, nor itself', async () => {
    const driver = new TestDriver()
    driver.hang = true
    const { made, qualities } = sampler(driver)
    void made.start()
    await vi.advanceTimersByTimeAsync(30_500)
    expect(qualities()).toEqual(['error'])
    driver.hang = false
    driver.hanging[0]?.()
    await vi.advanceTimersByTimeAsync(2000)
    expect(qualities()).toEqual(['error', 'ok'])
    expect(made.isAlive()).toBe(true)
    await made.stop()
  })

  test('a read that hangs is the only one, is told once, and the sensor comes back when it ends', async () => {
    const lines: string[] = []
    const log = createLogger({
      name: 'device',
      write: (line) => lines.push(line),
      monotonicMs: () => performance.now(),
    })
    const driver = new TestDriver()
    driver.hang = true
    const { made, qualities } = sampler(driver, { log })
    void made.start()
    for (let hour = 0; hour < 3; hour++) {
      await vi.advanceTimersByTimeAsync(3_600_000)
      await made.readNow()
      expect(made.isAlive()).toBe(true)
    }
    expect(driver.reads).toBe(1)
    expect(lines).toHaveLength(1)
    expect(lines[0]).toContain('does not answer')
    expect(new Set(qualities())).toEqual(new Set(['error']))
    // a sign of life each period all the same
    expect(qualities().length).toBeGreaterThan(100)
    driver.hang = false
    driver.hanging[0]?.()
    await vi.advanceTimersByTimeAsync(61_000)
    expect(qualities().at(-1)).toBe('ok')
    expect(lines.at(-1)).toContain('answers again')
    await made.stop()
  })

  test('a reading out of turn waits for the one that is on its way, and is one of its own', async () => {
    const driver = new TestDriver()
    const { made, values } = sampler(driver)
    await made.start()
    driver.hang = true
    const first = made.readNow()
    const second = made.readNow()
    await vi.advanceTimersByTimeAsync(100)
    expect(driver.reads).toBe(2)
    driver.hang = false
    driver.value = 2
    driver.hanging[0]?.()
    await Promise.all([first, second])
    expect(driver.reads).toBe(3)
    expect(values()).toEqual([1, 2, 2])
    await made.stop()
  })

  test('a sensor whose start hangs is one that does not answer', async () => {
    const driver = new TestDriver()
    let go = (): void => undefined
    driver.start = () => new Promise<void>((resolve) => (go = resolve))
    const { made, qualities } = sampler(driver)
    void made.start()
    await vi.advanceTimersByTimeAsync(600_000)
    expect(made.isAlive()).toBe(true)
    expect(qualities()[0]).toBe('error')
    go()
    await vi.advanceTimersByTimeAsync(61_000)
    expect(qualities().at(-1)).toBe('ok')
    await made.stop()
  })

  test.each([Number.NaN, Number.POSITIVE_INFINITY])('%d is no reading', async (value) => {
    const driver = new TestDriver()
    driver.value = value
    const { made, samples } = sampler(driver)
    await made.start()
    expect(samples[0]?.[0]).toMatchObject({ quality: 'error', v: undefined })
    await made.stop()
  })

  test('on change: only changes, and a sign of life each period', async () => {
    const driver = new TestDriver()
    driver.value = false
    const { made, values } = sampler(driver, { onChange: true })
    await made.start()
    await vi.advanceTimersByTimeAsync(10_000)
    expect(values()).toEqual([false])
    driver.value = true
    await vi.advanceTimersByTimeAsync(1000)
    expect(values()).toEqual([false, true])
    await vi.advanceTimersByTimeAsync(61_000)
    expect(values()).toEqual([false, true, true])
    await made.stop()
  })

  test('a driver that reports by itself is not polled', async () => {
    const driver = new TestDriver()
    driver.value = false
    const watched: Driver = Object.assign(driver, {
      watch: (listener: (m: readonly Measurement[]) => void) => {
        driver.watcher = listener
        return () => {
          driver.watcher = undefined
        }
      },
    })
    const { made, values } = sampler(watched, { onChange: true, periodMs: undefined })
    await made.start()
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect(driver.reads).toBe(1)
    driver.watcher?.([{ v: true, quality: 'ok' }])
    expect(values()).toEqual([false, true])
    await made.stop()
    expect(driver.watcher).toBeUndefined()
  })

  test('samples of a clock that is not right yet are placed later by the monotonic clock', async () => {
    const { made, samples } = sampler(new TestDriver(), { time: { nowMs: () => undefined } })
    await made.start()
    const sample = samples[0]?.[0] as Sample
    expect(sample.timeQuality).toBe('boot')
    const nowMs = 1_800_000_000_000
    const records = senmlOf([sample], { name: 'x', simulated: false, nowMs, monotonicMs: sample.monotonicMs + 90_000 })
    expect(records).toEqual([{ n: 'x', v: 1, t: 1_800_000_000 - 90 }])
    await made.stop()
  })
})

test('a reading of several values says its time once; bad values say why they are missing', () => {
  const at = { t: 1000.9, timeQuality: 'synchronised', monotonicMs: 0 } as const
  const context = { name: 'system', simulated: false, nowMs: 0, monotonicMs: 0 }
  const samples: Sample[] = [
    { name: 'load', v: 3, u: '%', quality: 'ok', ...at },
    { name: 'cpuTemperature', v: undefined, quality: 'error', ...at },
    { name: 'door', v: true, quality: 'stale', ...at },
  ]
  expect(senmlOf(samples, context)).toEqual([
    { bt: 1000, n: 'load', u: '%', v: 3 },
    { n: 'cpuTemperature.quality', vs: 'error' },
    { n: 'door', vb: true },
    { n: 'door.quality', vs: 'stale' },
  ])
})
