import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import { deviceSettings } from '../device/settings.ts'
import { keyServerSchema } from '../keyserver/config.ts'
import { proxySchema } from '../proxy/config.ts'
import { loadConfig, parseConfig } from '../runtime/config.ts'
import { printConfig } from '../runtime/config-print.ts'
import { configurationPage } from '../tools/docs-configuration.ts'

const ROOT = resolve(import.meta.dirname, '..')
const DAEMONS = [
  ['device', deviceSettings],
  ['keyserver', keyServerSchema],
  ['proxy', proxySchema],
] as const

test('docs/configuration.md is what the schemas say', () => {
  expect(readFileSync(join(ROOT, 'docs/configuration.md'), 'utf8')).toBe(configurationPage())
})

describe.each(DAEMONS)('%s', (name, schema) => {
  test('its example passes its schema', () => {
    expect(loadConfig(schema, join(ROOT, `deploy/examples/${name}.yaml`))).toBeDefined()
  })

  test('--print-config prints a file in which at most values are to be filled in', () => {
    const printed = printConfig(schema, name)
    try {
      parseConfig(schema, printed, 'f')
    } catch (error) {
      const lines = printed.split('\n')
      for (const fault of (error as Error).message.split('\n').filter((l) => l.startsWith('f:'))) {
        expect(lines[Number(fault.split(':')[1]) - 1]).toContain('required')
      }
    }
  })

  test('every setting has a meaning', () => {
    const rows = configurationPage()
      .split('\n')
      .filter((line) => /^\| `/.test(line))
    expect(rows.filter((line) => /\|\s+\|$/.test(line))).toEqual([])
  })
})
