/** The version of this package, from the package.json above the program, built or not. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

export function version(): string {
  for (let folder = import.meta.dirname; dirname(folder) !== folder; folder = dirname(folder)) {
    const file = join(folder, 'package.json')
    if (!existsSync(file)) continue
    const parsed = JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string }
    if (parsed.name === 'iotchain' && parsed.version !== undefined) return parsed.version
  }
  return 'unknown'
}
