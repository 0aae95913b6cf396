import { describe, expect, test } from 'vitest'
import { IotchainError } from '../../protocol/errors.ts'
import { createLogger } from '../../runtime/log.ts'
import { createMetrics, parseLoopback, serveMetrics } from '../../runtime/metrics.ts'
import { watchdogInterval } from '../../runtime/sd-notify.ts'

function capture(options: { monotonicMs?: () => number } = {}) {
  const lines: Record<string, unknown>[] = []
  const text: string[] = []
  const write = (line: string): void => {
    text.push(line)
    lines.push(JSON.parse(line))
  }
  return { lines, text, log: createLogger({ name: 'test', level: 'debug', write, ...options }) }
}

describe('log', () => {
  test('lines are JSON with level, time, name and fields', () => {
    const { lines, log } = capture()
    log.info({ gid: 'abcd', session: 4n }, 'opened')
    log.child({ part: 'x' }).warn('plain')
    expect(lines[0]).toMatchObject({ level: 'info', name: 'test', gid: 'abcd', session: '4', msg: 'opened' })
    expect(lines[1]).toMatchObject({ level: 'warn', part: 'x', msg: 'plain' })
  })

  test('neither octets nor what is named a secret reach a line', () => {
    const { text, log } = capture()
    const octets = new Uint8Array(16).fill(0xab)
    log.error(
      {
        payload: octets,
        K: octets,
        nested: { list: [octets, Buffer.from(octets)] },
        groupKey: 'abababab',
        password: 'abababab',
        token: 'abababab',
      },
      'careless',
    )
    log.error(
      {
        err: new IotchainError('device/no-session', 'none', { cause: new Error('inner') }),
        deep: { seed: 'abababab' },
      },
      'x',
    )
    expect(text.join('')).not.toMatch(/abab|171|q6ur/i)
    expect(text.join('')).toContain('(16 octets)')
    expect(text.join('')).toContain('"code":"device/no-session"')
  })

  test('what a stranger can cause is limited per key, and the rest counted', () => {
    let nowMs = 0
    const { lines, log } = capture({ monotonicMs: () => nowMs })
    for (let i = 0; i < 100; i++) log.limited('garbage', 'warn', {}, 'garbage')
    log.limited('other', 'warn', {}, 'other')
    nowMs = 11_000
    log.limited('garbage', 'warn', { from: 'x' }, 'garbage')
    expect(lines.map((l) => [l['msg'], l['leftOut']])).toEqual([
      ['garbage', undefined],
      ['other', undefined],
      ['garbage', 99],
    ])
  })

  test('the level can be changed while it runs', () => {
    const { lines, log } = capture()
    log.level = 'error'
    log.info('hidden')
    log.error('shown')
    expect(lines).toHaveLength(1)
  })
})

describe('metrics', () => {
  test('counters and gauges are served on loopback', async () => {
    const metrics = createMetrics()
    const counter = metrics.counter('iotchain_things_total', 'things')
    counter.inc()
    counter.inc({}, 2)
    metrics.counter('iotchain_kinds_total', 'kinds').inc({ kind: 'a' })
    metrics.gauge('iotchain_level', 'level', () => 42)
    const server = await serveMetrics(metrics, '127.0.0.1:0')
    const page = await (await fetch(`http://127.0.0.1:${server.port}/metrics`)).text()
    expect(page).toContain('iotchain_things_total 3')
    expect(page).toContain('iotchain_kinds_total{kind="a"} 1')
    expect(page).toContain('iotchain_level 42')
    expect(page).toContain('process_resident_memory_bytes')
    expect((await fetch(`http://127.0.0.1:${server.port}/`)).status).toBe(404)
    await expect(serveMetrics(metrics, `127.0.0.1:${server.port}`)).rejects.toMatchObject({ code: 'runtime/port-busy' })
    await server.close()
  })

  test('labels of strangers cannot grow the table without end', async () => {
    const metrics = createMetrics()
    const counter = metrics.counter('iotchain_x_total', 'x')
    for (let i = 0; i < 2000; i++) counter.inc({ peer: String(i) })
    expect((await metrics.render()).match(/iotchain_x_total\{/g)).toHaveLength(500)
  })

  test('no other host may look', () => {
    expect(() => parseLoopback('0.0.0.0:9464')).toThrow(expect.objectContaining({ code: 'config/invalid' }))
    expect(parseLoopback('[::1]:9464')).toEqual({ host: '::1', port: 9464 })
  })
})

test('the watchdog is fed at a third of its time, and only by the process it watches', () => {
  expect(watchdogInterval({ WATCHDOG_USEC: '20000000' })).toBe(6666)
  expect(watchdogInterval({ WATCHDOG_USEC: '20000000', WATCHDOG_PID: '1' }, 77)).toBeUndefined()
  expect(watchdogInterval({})).toBeUndefined()
})
