/** A file with one JSON line that another program keeps up to date. */
import { open } from 'node:fs/promises'
import { IotchainError } from '../../protocol/errors.ts'
import type { SettingsOf } from '../resource-settings.ts'
import type { Driver, Measurement } from './driver.ts'
import { parseJsonLine } from './json-line.ts'

const MAX_OCTETS = 64 * 1024

/** @param nowMs for the age of the file, which the file system stamps with the wall clock */
export function createDriver(settings: SettingsOf<'file'>, nowMs: () => number = Date.now): Driver {
  return {
    async start() {},
    async read() {
      const { text, mtimeMs } = await readWhole(settings.file)
      const values = parseJsonLine(text, settings.unit)
      if (settings.maxAge === undefined || nowMs() - mtimeMs <= settings.maxAge) return values
      return values.map((m): Measurement => (m.quality === 'ok' ? { ...m, quality: 'stale' } : m))
    },
    async stop() {},
    describe: () => ({ rt: 'iotchain.file', if: 'core.s', unit: settings.unit, title: settings.title }),
  }
}

async function readWhole(path: string): Promise<{ text: string; mtimeMs: number }> {
  try {
    const file = await open(path, 'r')
    try {
      const { mtimeMs, size } = await file.stat()
      if (size > MAX_OCTETS) throw new IotchainError('sensor/bad-value', `${path} is larger than ${MAX_OCTETS} octets`)
      return { text: await file.readFile('utf8'), mtimeMs }
    } finally {
      await file.close()
    }
  } catch (cause) {
    if (cause instanceof IotchainError) throw cause
    const gone = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    throw new IotchainError(
      gone ? 'sensor/vanished' : 'sensor/unreadable',
      `${path} ${gone ? 'is not there' : 'cannot be read'}`,
      { cause },
    )
  }
}
