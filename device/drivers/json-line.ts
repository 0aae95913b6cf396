/** One line of JSON from a program or a file, as measurements: the way in for everything that has no driver. */
import * as z from 'zod'
import { IotchainError } from '../../protocol/errors.ts'
import type { Measurement } from './driver.ts'

const scalar = z.union([z.number(), z.boolean(), z.string().max(256)])
const one = z.strictObject({
  v: scalar.optional(),
  u: z.string().max(16).optional(),
  quality: z.enum(['ok', 'stale', 'error']).default('ok'),
})
const line = z.union([
  scalar.transform((v): Measurement[] => [{ v, quality: 'ok' }]),
  one
    .refine((o) => o.v !== undefined || o.quality === 'error')
    .transform((o): Measurement[] => [{ v: o.v, u: o.u, quality: o.quality }]),
  z
    .record(
      z.string().regex(/^[A-Za-z0-9._:/-]{1,32}$/),
      z.union([scalar.transform((v) => ({ v, u: undefined, quality: 'ok' as const })), one]),
    )
    .refine((r) => Object.keys(r).length >= 1 && Object.keys(r).length <= 32)
    .transform((r): Measurement[] =>
      Object.entries(r).map(([name, o]) => ({ name, v: o.v, u: o.u, quality: o.quality })),
    ),
])

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
  const parsed = line.safeParse(value)
  if (!parsed.success) {
    throw new IotchainError('sensor/bad-value', `"${printable(last)}" is not what a sensor program may print`, {
      hint: 'print a number, {"v":21.5,"u":"Cel"} or {"inside":{"v":21.5,"u":"Cel"},…}',
    })
  }
  return parsed.data.map((m) => (m.u === undefined && unit !== undefined ? { ...m, u: unit } : m))
}

function printable(text: string): string {
  return [...text.slice(0, 60)].map((c) => (c >= ' ' && c <= '~' ? c : '?')).join('')
}
