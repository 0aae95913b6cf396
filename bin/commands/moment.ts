/** Moments as people write them: `now`, unix seconds, an ISO date, or a duration that means "so long ago". */
import { IotchainError } from '../../protocol/errors.ts'
import { parseDuration } from '../../runtime/duration.ts'

/** @param now unix seconds @returns unix seconds @throws `client/bad-time` */
export function parseMoment(text: string, now: number): number {
  if (text === 'now') return Math.ceil(now)
  if (/^\d{9,11}$/.test(text)) return Number(text)
  if (/^\d+(\.\d+)?(ms|s|m|h|d)/.test(text)) return Math.floor(now - parseDuration(text) / 1000)
  const ms = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(ms)) {
    throw new IotchainError('client/bad-time', `"${text}" is no time`, {
      hint: 'write 2026-01-31T12:00Z, unix seconds, now, or 24h for 24 hours ago',
    })
  }
  return Math.floor(ms / 1000)
}
