/** One line of JSON from a program or a file, as measurements: the way in for everything that has no driver. */
import { IotchainError } from '../../protocol/errors.ts'
import type { Measurement } from './driver.ts'

const NAME = /^[A-Za-z0-9._:/-]{1,32}$/
const MAX_NAMES = 32

type Scalar = number | boolean | string

function isScalar(value: unknown): value is Scalar {
  return Number.isFinite(value) || typeof value === 'boolean' || (typeof value === 'string' && value.length <= 256)
}

/** `{"v":…,"u":…,"quality":…}`, or undefined when it is not that. Checked by hand: it runs with each reading. */
function one(value: unknown): Measurement | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
  const { v, u, quality = 'ok', ...others } = value as Record<string, unknown>
  if (Object.keys(others).length > 0 || (v !== undefined && !isScalar(v))) return undefined
  if (u !== undefined && (typeof u !== 'string' || u.length > 16)) return undefined
  if (quality !== 'ok' && quality !== 'stale' && quality !== 'error') return undefined
  return { v, u, quality }
}

function measurementsOf(value: unknown): Measurement[] | undefined {
  if (isScalar(value)) return [{ v: value, quality: 'ok' }]
  const single = one(value)
  if (single !== undefined && (single.v !== undefined || single.quality === 'error')) return [single]
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
  const entries = Object.entries(value)
  if (entries.length === 0 || entries.length > MAX_NAMES) return undefined
  const found: Measurement[] = []
  for (const [name, of] of entries) {
    const measurement = isScalar(of) ? { v: of, u: undefined, quality: 'ok' as const } : one(of)
    if (measurement === undefined || !NAME.test(name)) return undefined
    found.push({ name, ...measurement })
  }
  return found
}

/** @throws `sensor/bad-value` */
export function parseJsonLine(text: string, unit: string | undefined): Measurement[] {
  const last = text.trimEnd().split('\n').at(-1) ?? ''
  let value: unknown
  try {
    value = JSON.parse(last)
  } catch (cause) {
    throw new IotchainError('sensor/bad-value', `"${printable(last)}" is no JSON`, {
      cause,
      hint: 'print one line: a number, {"v":21.5,"u":"Cel"} or {"inside":{"v":21.5,"u":"Cel"},…}',
    })
  }
  const measurements = measurementsOf(value)
  if (measurements === undefined) {
    throw new IotchainError('sensor/bad-value', `"${printable(last)}" is not what a sensor program may print`, {
      hint: 'print a number, {"v":21.5,"u":"Cel"} or {"inside":{"v":21.5,"u":"Cel"},…}',
    })
  }
  return measurements.map((m) => (m.u === undefined && unit !== undefined ? { ...m, u: unit } : m))
}

function printable(text: string): string {
  return [...text.slice(0, 60)].map((c) => (c >= ' ' && c <= '~' ? c : '?')).join('')
}
