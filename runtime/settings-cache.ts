/**
 * A daemon's settings for `run`. YAML and schema libraries are a third of a small device's start and a tenth of its
 * memory, and a configuration seldom changes: what was read and checked once is kept in the service's cache folder
 * ($CACHE_DIRECTORY, from CacheDirectory= of its unit) under a digest of the program and of the file's octets, and
 * taken again as long as both are the same. Without such a folder the file is read and checked each time.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type * as z from 'zod'
import { writeFileAtomic } from './atomic-file.ts'

/** Set by the bundler: only there does the program's first file, which names all others by their digest, stand for all. */
declare const IOTCHAIN_BUNDLED: boolean | undefined

export interface SettingsSource<S extends z.ZodType> {
  schema(): Promise<S>
}

export interface SettingsCache {
  readonly folder: string
  /** Changes whenever the program does. */
  readonly program: string
}

/** @throws as `loadConfig`: a refused file is never kept */
export async function loadSettings<S extends z.ZodType>(
  source: SettingsSource<S>,
  file: string,
  cache: SettingsCache | undefined = serviceCache(),
): Promise<z.output<S>> {
  const place = cache === undefined ? undefined : join(cache.folder, 'settings.json')
  const digest = cache === undefined ? undefined : digestOf(cache.program, file)
  if (place !== undefined && digest !== undefined) {
    const kept = readKept(place, digest)
    if (kept !== undefined) return kept.settings as z.output<S>
  }
  const { loadConfig } = await import('./config.ts')
  const settings = loadConfig(await source.schema(), file)
  if (place !== undefined && digest !== undefined && digest === digestOf((cache as SettingsCache).program, file)) {
    await keep(place, digest, settings)
  }
  return settings
}

function serviceCache(): SettingsCache | undefined {
  const folder = process.env['CACHE_DIRECTORY']
  if (folder === undefined || typeof IOTCHAIN_BUNDLED === 'undefined') return undefined
  try {
    return { folder, program: readFileSync(process.argv[1] as string, 'utf8') }
  } catch {
    return undefined
  }
}

/** Undefined when the file cannot be read: `loadConfig` says why. */
function digestOf(program: string, file: string): string | undefined {
  try {
    return createHash('sha256').update(`${program.length} ${program}`).update(readFileSync(file)).digest('hex')
  } catch {
    return undefined
  }
}

function readKept(place: string, digest: string): { readonly settings: unknown } | undefined {
  try {
    const [line, sum, rest] = readFileSync(place, 'utf8').split('\n')
    if (line === undefined || rest !== '' || sum !== checksum(digest, line)) return undefined
    return { settings: JSON.parse(line) }
  } catch {
    return undefined
  }
}

/** Settings that JSON cannot carry unchanged are not kept. A full disk costs the next start some time, nothing else. */
async function keep(place: string, digest: string, settings: unknown): Promise<void> {
  const { isDeepStrictEqual } = await import('node:util')
  const line = JSON.stringify(settings)
  if (!isDeepStrictEqual(JSON.parse(line), settings)) return
  try {
    writeFileAtomic(place, `${line}\n${checksum(digest, line)}\n`)
  } catch {
    // The file of before, if any, has another digest.
  }
}

function checksum(digest: string, line: string): string {
  return createHash('sha256').update(`${digest} ${line}`).digest('hex')
}
