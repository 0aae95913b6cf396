/** Token buckets by name, in bounded memory: a full bucket needs no entry. */
import type { Clock } from '../protocol/clock.ts'
import { IotchainError } from '../protocol/errors.ts'

export interface RateLimitOptions {
  readonly clock: Clock
  readonly perSecond: number
  readonly burst: number
  readonly what: string
}

const MAX_BUCKETS = 100_000

export class RateLimit<K> {
  readonly #options: RateLimitOptions
  readonly #buckets = new Map<K, { level: number; atMs: number }>()

  constructor(options: RateLimitOptions) {
    this.#options = options
  }

  /** @throws `proxy/rate` with the seconds until there is room again */
  take(key: K): void {
    const { clock, perSecond, burst, what } = this.#options
    const nowMs = clock.monotonicMs()
    const bucket = this.#buckets.get(key)
    const level =
      bucket === undefined ? burst : Math.min(burst, bucket.level + ((nowMs - bucket.atMs) / 1000) * perSecond)
    if (level < 1) {
      throw new IotchainError('proxy/rate', `${what} come faster than this proxy takes them`, {
        retryAfterSeconds: Math.max(1, Math.ceil((1 - level) / perSecond)),
      })
    }
    this.#buckets.delete(key)
    this.#buckets.set(key, { level: level - 1, atMs: nowMs })
    if (this.#buckets.size > MAX_BUCKETS) this.#buckets.delete(this.#buckets.keys().next().value as K)
  }
}
