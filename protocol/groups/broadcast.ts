/**
 * The session broadcast on the wire (protocol.md §3.8): codec and the checks of a receiver, in their order. Everybody
 * can read it; only a member can use it.
 */
import { equalBytes, utf8 } from '../bytes.ts'
import { type CborValue, decodeCbor, encodeCbor } from '../cbor.ts'
import { ALG, type CoseMessage, encodeProtected, HEADER } from '../cose/headers.ts'
import { kidOf } from '../cose/key.ts'
import { decodeSign1, sign1, verifySign1 } from '../cose/sign1.ts'
import type { CryptoSuite, SigningKey, VerifyKey } from '../crypto/suite.ts'
import { Cursor } from '../cursor.ts'
import { type ErrorCode, IotchainError, isIotchainError } from '../errors.ts'
import { SUBSET_LENGTH, unpackSubset } from './cover.ts'
import type { Gid } from './gid.ts'
import { BROADCAST_LIMIT, GREATEST_DEPTH, GREATEST_WINDOW } from './policy.ts'
import { SECRET_LENGTH } from './prf.ts'
import { dyadicCount } from './time-tree.ts'
import type { Subset } from './tree.ts'

/** External additional data of the signature: keeps broadcasts, objects and credentials apart. */
export const BROADCAST_AAD = utf8('iotchain-broadcast-1')
/** A packed subset and its wrapped chain value. */
export const COVER_ENTRY = SUBSET_LENGTH + SECRET_LENGTH
const GREATEST_NUMBER = 0xffffffff

export interface CoverEntry {
  readonly subset: Subset
  /** z_k masked under the subset's label: 16 octets. */
  readonly wrap: Uint8Array
}

export interface Cohort {
  /** First session of its range; the range ends before the next cohort's, the last one with the broadcast's session. */
  readonly start: number
  readonly cover: readonly CoverEntry[]
  /** The range's time nodes, masked: 16 octets each. */
  readonly heal: Uint8Array
}

export interface Broadcast {
  readonly gid: Gid
  readonly epoch: number
  readonly session: number
  readonly nbf: number
  readonly exp: number
  readonly depth: number
  readonly cohorts: readonly Cohort[]
  readonly kcv: Uint8Array
}

/** A cohort as encoded: cover already packed. */
export interface PackedCohort {
  readonly start: number
  readonly cover: Uint8Array
  readonly heal: Uint8Array
}

/** The payload of B_r. */
export function encodeBroadcast(
  b: Omit<Broadcast, 'cohorts'> & { readonly cohorts: readonly PackedCohort[] },
): Uint8Array {
  const cohorts = b.cohorts.map((c) => [c.start, c.cover, c.heal])
  return encodeCbor([1, b.gid, b.epoch, b.session, b.nbf, b.exp, b.depth, cohorts, b.kcv])
}

export function signBroadcast(suite: CryptoSuite, payload: Uint8Array, key: SigningKey): Uint8Array {
  const header = encodeProtected(
    new Map<number, number | Uint8Array>([
      [HEADER.alg, ALG.eddsa],
      [HEADER.kid, kidOf(suite, key.publicKey)],
    ]),
  )
  return sign1(header, payload, BROADCAST_AAD, key)
}

export interface OpenBroadcastOptions {
  /** The key server's key, pinned. */
  readonly kdc: VerifyKey
  readonly acceptEd25519?: boolean | undefined
}

/** A broadcast taken apart as far as it says whether it is worth verifying. Nothing in it is believed yet. */
export interface ClaimedBroadcast {
  readonly message: CoseMessage
  readonly kid: Uint8Array
  readonly gid: Uint8Array
  readonly epoch: number
  readonly session: number
}

/**
 * The first checks of a receiver: size, COSE_Sign1, header.
 * @throws `group/too-large`, `group/malformed`, `group/bad-algorithm`
 */
export function claimBroadcast(
  bytes: Uint8Array,
  options: { readonly acceptEd25519?: boolean | undefined },
): ClaimedBroadcast {
  if (bytes.length > BROADCAST_LIMIT) throw refused('group/too-large', 'over 65 536 octets')
  const message = guarded(() => decodeSign1(bytes))
  if (message.unprotected.size > 0) throw malformed('an unprotected header')
  const alg = message.protectedHeader.get(HEADER.alg)
  const kid = message.protectedHeader.get(HEADER.kid)
  const complete = message.protectedHeader.size === 2 && alg !== undefined
  if (!complete || !(kid instanceof Uint8Array) || kid.length !== 8) throw malformed('its header')
  if (alg !== ALG.eddsa && !(alg === ALG.ed25519 && options.acceptEd25519 === true)) {
    throw refused('group/bad-algorithm', 'signed with an algorithm that is not used here')
  }
  const cursor = new Cursor(message.payload, 'group/malformed')
  cursor.expect(0x89, 1)
  const gid = cursor.bstr(8, 8)
  const epoch = cursor.uint()
  const session = cursor.uint()
  return { message, kid, gid, epoch, session }
}

/**
 * Verifies the signature under the pinned key, then every rule of the format.
 * @throws `group/unknown-key`, `group/bad-signature`, `group/malformed`
 */
export function verifyBroadcast(suite: CryptoSuite, claimed: ClaimedBroadcast, kdc: VerifyKey): Broadcast {
  if (!equalBytes(claimed.kid, kidOf(suite, kdc.publicKey))) {
    throw refused('group/unknown-key', 'signed by another key than the pinned one')
  }
  if (!verifySign1(claimed.message, BROADCAST_AAD, kdc)) {
    throw refused('group/bad-signature', 'its signature does not check')
  }
  return decodeBroadcast(claimed.message.payload)
}

/** Both steps at once. */
export function openBroadcast(suite: CryptoSuite, bytes: Uint8Array, options: OpenBroadcastOptions): Broadcast {
  return verifyBroadcast(suite, claimBroadcast(bytes, options), options.kdc)
}

/**
 * Decodes the payload of a broadcast, with every check but the signature.
 * @throws `group/malformed`
 */
export function decodeBroadcast(payload: Uint8Array): Broadcast {
  const value = guarded(() => decodeCbor(payload))
  if (!Array.isArray(value) || value.length !== 9) throw malformed('not an array of 9')
  const [version, gid, epoch, session, nbf, exp, depth, cohorts, kcv] = value
  if (version !== 1) throw malformed('another version')
  if (!(gid instanceof Uint8Array) || gid.length !== 8) throw malformed('its group identifier')
  if (!isNumber(epoch)) throw malformed('its epoch')
  if (!isNumber(session)) throw malformed('its session')
  if (!isTime(nbf) || !isTime(exp)) throw malformed('its times')
  if (!isNumber(depth) || depth > GREATEST_DEPTH) throw malformed('its depth')
  if (!Array.isArray(cohorts) || cohorts.length < 1 || cohorts.length > 65_536) throw malformed('its cohorts')
  if (!(kcv instanceof Uint8Array) || kcv.length !== 8) throw malformed('its key check')
  if (nbf >= exp) throw malformed('it ends before it begins')
  const packed = cohorts.map(packedCohort)
  checkStarts(packed, session)
  return {
    gid: gid as Gid,
    epoch,
    session,
    nbf,
    exp,
    depth,
    cohorts: packed.map((cohort, k) => {
      const end = (packed[k + 1]?.start ?? session + 1) - 1
      if (cohort.heal.length !== SECRET_LENGTH * dyadicCount(cohort.start, end)) throw malformed('a healing part')
      return { start: cohort.start, heal: cohort.heal, cover: decodeCover(cohort.cover, depth) }
    }),
    kcv,
  }
}

function packedCohort(value: CborValue): PackedCohort {
  const [start, cover, heal] = Array.isArray(value) && value.length === 3 ? value : []
  if (!isNumber(start)) throw malformed('the start of a cohort')
  if (!(cover instanceof Uint8Array) || cover.length % COVER_ENTRY !== 0) throw malformed('a cover')
  if (!(heal instanceof Uint8Array)) throw malformed('a healing part')
  return { start, cover, heal }
}

function checkStarts(cohorts: readonly PackedCohort[], session: number): void {
  let previous = Math.max(1, session - GREATEST_WINDOW) - 1
  for (const { start } of cohorts) {
    if (start <= previous || start > session) throw malformed('the starts of its cohorts')
    previous = start
  }
}

function decodeCover(bytes: Uint8Array, depth: number): CoverEntry[] {
  const entries: CoverEntry[] = []
  let previous = -1
  for (let at = 0; at < bytes.length; at += COVER_ENTRY) {
    const subset = unpackSubset(depth, bytes[at] as number, bytes[at + 1] as number, bytes[at + 2] as number)
    if (subset === undefined) throw malformed('a subset')
    if (subset.j === 0 && bytes.length > COVER_ENTRY) throw malformed('the whole tree and more')
    if (subset.j <= previous) throw malformed('the order of its subsets')
    previous = subset.j
    entries.push({ subset, wrap: bytes.subarray(at + SUBSET_LENGTH, at + COVER_ENTRY) })
  }
  return entries
}

function isNumber(value: CborValue | undefined): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= GREATEST_NUMBER
}

function isTime(value: CborValue | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function guarded<T>(decoding: () => T): T {
  try {
    return decoding()
  } catch (cause) {
    if (!isIotchainError(cause)) throw cause
    throw malformed('it cannot be decoded', cause)
  }
}

function malformed(what: string, cause?: unknown): IotchainError {
  return new IotchainError('group/malformed', `not a broadcast: ${what}`, { cause })
}

function refused(code: ErrorCode, what: string): IotchainError {
  return new IotchainError(code, `broadcast refused: ${what}`)
}
