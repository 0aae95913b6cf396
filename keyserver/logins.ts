/**
 * What an association has shown about the client behind it: challenges that are out, key requests that were accepted.
 * Both end with the association; each association has room for a few only.
 */

import { toHex } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Address } from '../protocol/messages/address.ts'

/** Seconds for which a challenge holds. */
export const CHALLENGE_SECONDS = 60
const CHALLENGES = 8
const LOGINS = 64

export interface Login {
  readonly client: Address
  readonly device: Address
  /** uint32: the bits that were asked for and signed */
  readonly claims: number
  /** encoded COSE_Key whose thumbprint was signed, of a client that commands */
  readonly commandKey: Uint8Array | undefined
  /** digest that was signed: the same request again is the same login */
  readonly digest: string
}

interface Association {
  /** nonce in hex → monotonic ms of its end */
  readonly challenges: Map<string, number>
  /** client/device/claims → login, newest last */
  readonly logins: Map<string, Login>
}

export class Logins {
  readonly #associations = new Map<string, Association>()
  readonly #clock: Clock
  readonly #randomBytes: (length: number) => Uint8Array

  constructor(clock: Clock, randomBytes: (length: number) => Uint8Array) {
    this.#clock = clock
    this.#randomBytes = randomBytes
  }

  /** N_S, 32 octets, for one attempt on this association. */
  challenge(association: string, seconds = CHALLENGE_SECONDS): Uint8Array {
    const { challenges } = this.#of(association)
    const nonce = this.#randomBytes(32)
    if (challenges.size >= CHALLENGES) challenges.delete(challenges.keys().next().value as string)
    challenges.set(toHex(nonce), this.#clock.monotonicMs() + seconds * 1000)
    return nonce
  }

  /** True once for each challenge that is still good. */
  spend(association: string, nonce: Uint8Array): boolean {
    const challenges = this.#associations.get(association)?.challenges
    const end = challenges?.get(toHex(nonce))
    challenges?.delete(toHex(nonce))
    return end !== undefined && this.#clock.monotonicMs() < end
  }

  add(association: string, login: Login): void {
    const { logins } = this.#of(association)
    const key = `${login.client}/${login.device}/${login.claims}`
    logins.delete(key)
    if (logins.size >= LOGINS) logins.delete(logins.keys().next().value as string)
    logins.set(key, login)
  }

  /** The newest login on the association that `fits`. */
  find(association: string, fits: (login: Login) => boolean): Login | undefined {
    return [...(this.#associations.get(association)?.logins.values() ?? [])].reverse().find(fits)
  }

  forget(association: string): void {
    this.#associations.delete(association)
  }

  /** Associations remembered; for the metrics. */
  get size(): number {
    return this.#associations.size
  }

  #of(association: string): Association {
    let entry = this.#associations.get(association)
    if (entry === undefined) {
      entry = { challenges: new Map(), logins: new Map() }
      this.#associations.set(association, entry)
    }
    return entry
  }
}
