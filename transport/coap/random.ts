/** Octets for tokens and message IDs. */
import { randomBytes } from 'node:crypto'

let pool: Buffer = Buffer.alloc(0)
let poolAt = 0

/** The system's generator, in runs: a token is 4 octets, and a call costs microseconds. */
export function pooledRandomBytes(length: number): Uint8Array {
  if (length > 64) return randomBytes(length)
  if (poolAt + length > pool.length) {
    pool = randomBytes(4096)
    poolAt = 0
  }
  const out = Uint8Array.prototype.slice.call(pool, poolAt, poolAt + length)
  pool.fill(0, poolAt, poolAt + length)
  poolAt += length
  return out
}
