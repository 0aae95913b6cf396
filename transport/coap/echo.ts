/**
 * Echo (RFC 9175 §2): a value that only someone who receives at the claimed address can return, and that tells its
 * age. Nothing is stored: 3 octets of time, 8 octets of HMAC-SHA256 over peer and time under a key of this process.
 */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import type { Timers } from './timers.ts'
import type { Peer } from './transport.ts'

export const ECHO_LENGTH = 11
const TIME_LENGTH = 3
const TIME_MODULUS = 2 ** 24
/** A value older than this verifies nothing. */
const MAX_AGE_SECONDS = 600

export class EchoIssuer {
  readonly #key: KeyObject
  readonly #timers: Timers

  constructor(timers: Timers, randomBytes: (length: number) => Uint8Array) {
    this.#timers = timers
    this.#key = createSecretKey(randomBytes(32))
  }

  issue(peer: Peer): Uint8Array {
    return this.#value(peer, this.#seconds())
  }

  /** The age in seconds of a value that this endpoint issued to this peer; undefined for any other. */
  ageSeconds(value: Uint8Array, peer: Peer): number | undefined {
    if (value.length !== ECHO_LENGTH) return undefined
    const issued = ((value[0] as number) << 16) | ((value[1] as number) << 8) | (value[2] as number)
    const age = (this.#seconds() - issued + TIME_MODULUS) % TIME_MODULUS
    if (age > MAX_AGE_SECONDS) return undefined
    return timingSafeEqual(value, this.#value(peer, issued)) ? age : undefined
  }

  #seconds(): number {
    return Math.floor(this.#timers.monotonicMs() / 1000) % TIME_MODULUS
  }

  #value(peer: Peer, seconds: number): Uint8Array {
    const out = new Uint8Array(ECHO_LENGTH)
    out[0] = seconds >> 16
    out[1] = (seconds >> 8) & 255
    out[2] = seconds & 255
    const mac = createHmac('sha256', this.#key).update(out.subarray(0, TIME_LENGTH)).update(peer.key).digest()
    out.set(mac.subarray(0, ECHO_LENGTH - TIME_LENGTH), TIME_LENGTH)
    return out
  }
}
