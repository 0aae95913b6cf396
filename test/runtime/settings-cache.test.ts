import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { deviceSettings } from '../../device/settings.ts'
import { proxySchema } from '../../proxy/config.ts'
import { parseConfig } from '../../runtime/config.ts'
import { printConfig } from '../../runtime/config-print.ts'
import { loadSettings } from '../../runtime/settings-cache.ts'
import * as z from '../../runtime/zod.ts'

const schema = z.strictObject({ name: z.string(), every: z.number().default(60) })

describe('settings kept from the last start', () => {
  let folder: string
  let file: string
  let asked: number
  const source = {
    async schema() {
      asked++
      return schema
    },
  }

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'settings-'))
    file = join(folder, 'd.yaml')
    asked = 0
    writeFileSync(file, 'name: a\n')
  })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  const load = (program = 'p1') => loadSettings(source, file, { folder, program })

  test('an unchanged file is checked once', async () => {
    expect(await load()).toEqual({ name: 'a', every: 60 })
    expect(await load()).toEqual({ name: 'a', every: 60 })
    expect(asked).toBe(1)
  })

  test('a changed file and a changed program are checked again', async () => {
    await load()
    writeFileSync(file, 'name: b\n')
    expect(await load()).toEqual({ name: 'b', every: 60 })
    await load('p2')
    expect(asked).toBe(3)
  })

  test('a refused file is refused each time, with its line', async () => {
    await load()
    writeFileSync(file, 'name: a\nevry: 3\n')
    for (let i = 0; i < 2; i++) await expect(load()).rejects.toThrow(/d\.yaml:2: there is no setting "evry" here/)
    await expect(loadSettings(source, join(folder, 'none.yaml'), { folder, program: 'p' })).rejects.toThrow(
      /is not there/,
    )
  })

  test('a damaged or foreign cache is not believed', async () => {
    await load()
    const place = join(folder, 'settings.json')
    writeFileSync(place, readFileSync(place, 'utf8').replace('"a"', '"x"'))
    expect(await load()).toEqual({ name: 'a', every: 60 })
    writeFileSync(place, 'no json')
    expect(await load()).toEqual({ name: 'a', every: 60 })
    expect(asked).toBe(3)
  })

  test('settings that JSON cannot carry are not kept', async () => {
    const odd = z.strictObject({ name: z.string().transform((text) => new Map([[text, 1]])) })
    for (let i = 0; i < 2; i++) {
      const settings = await loadSettings({ schema: async () => odd }, file, { folder, program: 'p' })
      expect(settings.name.get('a')).toBe(1)
    }
  })

  test('without a cache folder nothing is kept', async () => {
    await loadSettings(source, file, undefined)
    await loadSettings(source, file, undefined)
    expect(asked).toBe(2)
  })

  test('a cache folder that cannot be written is no fault', async () => {
    const settings = await loadSettings(source, file, { folder: join(folder, 'none'), program: 'p' })
    expect(settings.name).toBe('a')
  })

  // What the daemons really have comes back as it was.
  test.each([
    ['device', deviceSettings, printConfig(deviceSettings, 'x')],
    ['proxy', proxySchema, printConfig(proxySchema, 'x')],
  ])('the settings of the %s can be kept', async (_, real: z.ZodType, text) => {
    writeFileSync(file, text)
    let times = 0
    const realSource = {
      async schema() {
        times++
        return real
      },
    }
    const wanted = parseConfig(real, text)
    for (let i = 0; i < 2; i++) {
      const settings = await loadSettings(realSource, file, { folder, program: 'p' })
      expect(settings).toEqual(wanted)
    }
    expect(times).toBe(1)
  })
})
