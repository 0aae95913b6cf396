/**
 * Enrolment codes: one file each, written by `iotchain-keyserver code` beside the running daemon and read when
 * somebody shows its identity. A file holds the PSK, not the code.
 */
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fromHex, toHex } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { type Address, parseAddress } from '../protocol/messages/address.ts'
import {
  ENROLMENT_CODE_OCTETS,
  encodeEnrolmentCode,
  enrolmentIdentity,
  enrolmentPsk,
  isEnrolmentIdentity,
} from '../protocol/messages/enrolment-code.ts'
import { readFileIfExists, writeFileAtomic } from '../runtime/atomic-file.ts'

export interface EnrolmentCode {
  /** PSK identity */
  readonly identity: string
  readonly psk: Uint8Array
  /** whose device it will be */
  readonly owner: Address
  /** the only device that may use it */
  readonly device: Address | undefined
  /** unix seconds */
  readonly expiresAt: number
}

/** Tries of one identity that did not end in a request, before it has to wait. */
const FREE_TRIES = 5
const MAX_WAIT_MS = 60_000
const TRACKED = 1000
/** Look-ups of identities that are not there, in a second. */
const UNKNOWN_PER_SECOND = 50
/** Files are looked at for their end this often. */
const SWEEP_MS = 60_000

interface Tries {
  count: number
  nextMs: number
}

export class EnrolmentCodes {
  readonly #folder: string
  readonly #clock: Clock
  readonly #tries = new Map<string, Tries>()
  #unknown = { second: 0, count: 0 }
  #sweptMs = Number.NEGATIVE_INFINITY

  /** @param folder made, mode 0700, when the first code is */
  constructor(folder: string, clock: Clock) {
    this.#folder = folder
    this.#clock = clock
  }

  /** Makes a code. @returns the text for the person who sets up the device; it is stored nowhere */
  create(options: {
    readonly randomBytes: (length: number) => Uint8Array
    readonly owner: Address
    readonly device?: Address | undefined
    readonly expiresAt: number
  }): { readonly text: string; readonly identity: string } {
    const code = options.randomBytes(ENROLMENT_CODE_OCTETS)
    const identity = enrolmentIdentity(code)
    const { owner, device, expiresAt } = options
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
    const record = { identity, psk: toHex(enrolmentPsk(code)), owner, device, expiresAt }
    writeFileAtomic(this.#file(identity), `${JSON.stringify(record)}\n`, { mode: 0o600 })
    return { text: encodeEnrolmentCode(code), identity }
  }

  /** The code of an identity, while it lasts. */
  find(identity: string): EnrolmentCode | undefined {
    if (!isEnrolmentIdentity(identity)) return undefined
    const octets = readFileIfExists(this.#file(identity))
    const code = octets === undefined ? undefined : parseCode(identity, octets.toString('utf8'))
    return code !== undefined && code.expiresAt > this.#clock.nowMs() / 1000 ? code : undefined
  }

  /**
   * The PSK for a handshake: called by the DTLS layer before anybody has proved anything, so that it is slow for who
   * guesses: unknown identities are rationed, a known one that never gets through has to wait longer and longer.
   */
  lookup(identity: string): Uint8Array | undefined {
    this.#sweep()
    if (!isEnrolmentIdentity(identity)) return undefined
    const nowMs = this.#clock.monotonicMs()
    const tries = this.#tries.get(identity)
    if (this.waitSeconds(identity) > 0) return undefined
    const second = Math.floor(nowMs / 1000)
    if (this.#unknown.second !== second) this.#unknown = { second, count: 0 }
    if (this.#unknown.count >= UNKNOWN_PER_SECOND) return undefined
    const code = this.find(identity)
    if (code === undefined) {
      this.#unknown.count++
      return undefined
    }
    this.#count(identity, tries, nowMs)
    return code.psk
  }

  /** How long an identity that was wrong too often has to wait. */
  waitSeconds(identity: string): number {
    const tries = this.#tries.get(identity)
    return tries === undefined ? 0 : Math.max(0, Math.ceil((tries.nextMs - this.#clock.monotonicMs()) / 1000))
  }

  /** The identity got through: its earlier tries are forgotten. */
  proved(identity: string): void {
    this.#tries.delete(identity)
  }

  /** A request of somebody who holds the code, but was wrong otherwise. */
  failed(identity: string): void {
    this.#count(identity, this.#tries.get(identity), this.#clock.monotonicMs())
  }

  #count(identity: string, before: Tries | undefined, nowMs: number): void {
    const count = (before?.count ?? 0) + 1
    const waitMs = count < FREE_TRIES ? 0 : Math.min(MAX_WAIT_MS, 1000 * 2 ** (count - FREE_TRIES))
    if (this.#tries.size >= TRACKED) this.#tries.delete(this.#tries.keys().next().value as string)
    this.#tries.delete(identity)
    this.#tries.set(identity, { count, nextMs: nowMs + waitMs })
  }

  /** Removes codes whose time is over, and files that are none; those being written have other names. */
  #sweep(): void {
    const nowMs = this.#clock.monotonicMs()
    if (nowMs - this.#sweptMs < SWEEP_MS) return
    this.#sweptMs = nowMs
    let files: string[]
    try {
      files = readdirSync(this.#folder)
    } catch {
      return
    }
    for (const file of files) {
      const identity = `enrol:${file.slice(0, 16)}`
      if (!isEnrolmentIdentity(identity) || this.find(identity) !== undefined) continue
      rmSync(join(this.#folder, file), { force: true })
    }
  }

  #file(identity: string): string {
    return join(this.#folder, `${identity.slice('enrol:'.length)}.json`)
  }
}

function parseCode(identity: string, text: string): EnrolmentCode | undefined {
  try {
    const o = JSON.parse(text) as Record<string, unknown>
    const psk = fromHex(String(o['psk']))
    const expiresAt = o['expiresAt']
    if (o['identity'] !== identity || psk.length !== 32 || typeof expiresAt !== 'number') return undefined
    const device = o['device'] === undefined ? undefined : parseAddress(String(o['device']))
    return { identity, psk, owner: parseAddress(String(o['owner'])), device, expiresAt }
  } catch {
    return undefined
  }
}
