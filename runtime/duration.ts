/** Durations as people write them in a configuration: `500ms`, `60s`, `15m`, `24h`, `7d`. */
import { IotchainError } from '../protocol/errors.ts'
import * as z from './zod.ts'

const UNIT_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/**
 * Milliseconds of a text such as `60s` or `1h30m`.
 * @throws `config/bad-duration`
 */
export function parseDuration(text: string): number {
  const compact = text.trim().replaceAll(' ', '')
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(compact)) {
    throw new IotchainError('config/bad-duration', `"${text}" is no duration`, {
      hint: 'write a number and a unit, for example 500ms, 60s, 15m, 24h or 7d',
    })
  }
  let totalMs = 0
  for (const [, amount, unit] of compact.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    totalMs += Number(amount) * (UNIT_MS[unit as string] as number)
  }
  if (totalMs > Number.MAX_SAFE_INTEGER) {
    throw new IotchainError('config/bad-duration', `"${text}" is too long a duration`)
  }
  return Math.round(totalMs)
}

/** The shortest text that `parseDuration` reads as `ms`. */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0s'
  for (const unit of ['d', 'h', 'm', 's', 'ms']) {
    const size = UNIT_MS[unit] as number
    if (ms % size === 0) return `${ms / size}${unit}`
  }
  return `${ms}ms`
}

/** Schema of a setting: a duration text in the file, milliseconds in the program. */
export function durationMs(bounds: { readonly min?: string; readonly max?: string } = {}) {
  const min = bounds.min === undefined ? 0 : parseDuration(bounds.min)
  const max = bounds.max === undefined ? Number.MAX_SAFE_INTEGER : parseDuration(bounds.max)
  return z
    .string()
    .transform((text, context) => {
      let ms: number
      try {
        ms = parseDuration(text)
      } catch {
        context.addIssue({
          code: 'custom',
          message: `"${text}" is no duration: write for example 500ms, 60s, 15m, 24h`,
        })
        return z.NEVER
      }
      if (ms < min) context.addIssue({ code: 'custom', message: `must be at least ${bounds.min}` })
      if (ms > max) context.addIssue({ code: 'custom', message: `must be at most ${bounds.max}` })
      return ms
    })
    .meta({ format: 'duration' })
}
