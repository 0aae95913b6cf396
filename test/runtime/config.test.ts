import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { loadConfig, parseConfig } from '../../runtime/config.ts'
import { resolvePath } from '../../runtime/config-path.ts'
import { printConfig } from '../../runtime/config-print.ts'
import { durationMs, formatDuration, parseDuration } from '../../runtime/duration.ts'

const schema = z.strictObject({
  name: z
    .string()
    .describe('What it is called.')
    .meta({ examples: ['meter-7'] }),
  every: durationMs({ min: '1s' }).prefault('60s').describe('How often.'),
  limits: z.strictObject({ count: z.number().int().min(1).max(9).default(3).describe('How many.') }).prefault({}),
  note: z.string().optional().describe('Free text.'),
  parts: z
    .array(
      z.discriminatedUnion('driver', [
        z.strictObject({ driver: z.literal('host'), fields: z.array(z.string()) }),
        z.strictObject({ driver: z.literal('w1'), id: z.string().optional() }),
      ]),
    )
    .default([])
    .meta({ examples: [[{ driver: 'w1' }]] }),
})

function messageOf(text: string): string {
  try {
    parseConfig(schema, text, 'f.yaml')
  } catch (error) {
    return (error as Error).message
  }
  throw new Error('was accepted')
}

describe('configuration', () => {
  test('defaults are filled in and durations become milliseconds', () => {
    expect(parseConfig(schema, 'name: a\n')).toEqual({ name: 'a', every: 60_000, limits: { count: 3 }, parts: [] })
  })

  test.each([
    ['an unknown setting', 'name: a\nlimits:\n  cuont: 3\n', 'f.yaml:3: limits: there is no setting "cuont" here'],
    ['a missing one', 'every: 5s\n', 'f.yaml:1: name: is missing'],
    ['a wrong type', 'name: a\n\nevery: 5\n', 'f.yaml:3: every: expected string, received number'],
    [
      'a bad duration',
      'name: a\nevery: soon\n',
      'f.yaml:2: every: "soon" is no duration: write for example 500ms, 60s, 15m, 24h',
    ],
    ['a duration out of bounds', 'name: a\nevery: 10ms\n', 'f.yaml:2: every: must be at least 1s'],
    [
      'an unknown driver',
      'name: a\nparts:\n  - { driver: hots }\n',
      'f.yaml:3: parts[0].driver: must be one of host, w1',
    ],
    [
      'a setting of another driver',
      'name: a\nparts:\n  - driver: w1\n    fields: [x]\n',
      'f.yaml:4: parts[0]: there is no setting "fields" here',
    ],
    ['no YAML', 'name: "a\n', 'f.yaml:'],
    ['a key twice', 'name: a\nname: b\n', 'f.yaml:2: Map keys must be unique'],
  ])('%s is told with its line', (_, text, message) => {
    expect(messageOf(text)).toContain(message)
  })

  test('every fault is told, each on a line', () => {
    expect(messageOf('every: 1\nx: 1\ny: 2\n').split('\n')).toHaveLength(4)
  })

  test('an address without quotes stays a text', () => {
    const only = z.strictObject({ address: z.string() })
    expect(parseConfig(only, 'address: 0x00112233445566778899aabbccddeeff01020304').address).toBe(
      '0x00112233445566778899aabbccddeeff01020304',
    )
  })

  test('no text makes anything but a configuration or a coded error', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'ab:- \n[]{}"#&*!|>%@0x') }), (text) => {
        try {
          parseConfig(schema, text)
        } catch (error) {
          expect(error).toMatchObject({ name: 'IotchainError', code: expect.stringMatching(/^config\//) })
        }
      }),
      { numRuns: 300, seed: 1 },
    )
  })

  test('a missing file is one sentence with a hint', () => {
    expect(() => loadConfig(schema, '/nowhere/x.yaml')).toThrow(
      expect.objectContaining({ code: 'config/cannot-read', hint: expect.stringContaining('--print-config') }),
    )
  })

  test('what --print-config prints is a valid configuration with the defaults', () => {
    const printed = printConfig(schema, 'demo: a daemon')
    expect(parseConfig(schema, printed)).toEqual(parseConfig(schema, 'name: meter-7\n'))
    expect(printed).toContain('# How often.\nevery: 60s')
    expect(printed).toContain('# note: ')
  })
})

describe('paths of a configuration', () => {
  test('are relative to the file, or systemd credentials', () => {
    expect(resolvePath('/etc/iotchain/d.yaml', 'x.key')).toBe('/etc/iotchain/x.key')
    expect(resolvePath('/etc/iotchain/d.yaml', '/a/b')).toBe('/a/b')
    process.env['CREDENTIALS_DIRECTORY'] = '/run/credentials/u'
    expect(resolvePath('/etc/d.yaml', 'credential:device.key')).toBe('/run/credentials/u/device.key')
    delete process.env['CREDENTIALS_DIRECTORY']
    expect(() => resolvePath('/etc/d.yaml', 'credential:device.key')).toThrow(
      expect.objectContaining({ code: 'config/no-credentials' }),
    )
  })

  test('without credentials, those of the packages’ folder beside the configuration', () => {
    const folder = mkdtempSync(join(tmpdir(), 'iotchain-config-'))
    const file = join(folder, 'device.yaml')
    expect(() => resolvePath(file, 'credential:device.key')).toThrow(
      expect.objectContaining({ code: 'config/no-credentials' }),
    )
    mkdirSync(join(folder, 'device'))
    expect(resolvePath(file, 'credential:device.key')).toBe(join(folder, 'device/device.key'))
    rmSync(folder, { recursive: true })
  })

  test('a file is found from another folder', () => {
    const folder = mkdtempSync(join(tmpdir(), 'iotchain-config-'))
    writeFileSync(join(folder, 'c.yaml'), 'name: here\n')
    expect(loadConfig(schema, join(folder, 'c.yaml')).name).toBe('here')
    rmSync(folder, { recursive: true })
  })
})

describe('durations', () => {
  test.each([
    ['500ms', 500],
    ['60s', 60_000],
    ['1h30m', 5_400_000],
    ['7d', 604_800_000],
    ['1.5s', 1500],
  ])('%s is %i ms', (text, ms) => {
    expect(parseDuration(text)).toBe(ms)
  })

  test('what is written is read back', () => {
    fc.assert(
      fc.property(fc.nat(), (ms) => {
        expect(parseDuration(formatDuration(ms))).toBe(ms)
      }),
      { seed: 1 },
    )
  })

  test.each(['', '5', 's', '-5s', '5 parsecs', '99999999999999999d'])('"%s" is refused', (text) => {
    expect(() => parseDuration(text)).toThrow(expect.objectContaining({ code: 'config/bad-duration' }))
  })
})
