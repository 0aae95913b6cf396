/** Personal keys S_i(e): making, encoding, checking (protocol.md §3.4, §3.8). */
import { type CborValue, decodeCbor, encodeCbor } from '../cbor.ts'
import type { CryptoSuite } from '../crypto/suite.ts'
import { IotchainError } from '../errors.ts'
import { toGid } from './gid.ts'
import { GREATEST_DEPTH } from './policy.ts'
import type { PersonalKey } from './scheme.ts'
import { labelsLength, labelsOf } from './tree.ts'

/** @param epochSecret EM(e) */
export function makePersonalKey(
  suite: CryptoSuite,
  epochSecret: Uint8Array,
  fields: Omit<PersonalKey, 'version' | 'labels'>,
): PersonalKey {
  return { version: 1, ...fields, labels: labelsOf(suite, epochSecret, fields.depth, fields.leaf) }
}

/** The content of `mgt_key_material`. @throws `group/bad-personal-key` */
export function encodePersonalKey(key: PersonalKey): Uint8Array {
  checkPersonalKey(key)
  const { gid, epoch, depth, leaf, start, labels, nbf, exp } = key
  return encodeCbor([1, gid, epoch, depth, leaf, start, labels, nbf, exp])
}

/** @throws `group/bad-personal-key` */
export function decodePersonalKey(bytes: Uint8Array): PersonalKey {
  let value: CborValue
  try {
    value = decodeCbor(bytes)
  } catch (cause) {
    throw bad('it cannot be decoded', cause)
  }
  if (!Array.isArray(value) || value.length !== 9) throw bad('not an array of 9')
  const [version, gid, epoch, depth, leaf, start, labels, nbf, exp] = value
  if (!(gid instanceof Uint8Array) || gid.length !== 8) throw bad('its group identifier')
  const key = { version, gid: toGid(gid), epoch, depth, leaf, start, labels, nbf, exp } as PersonalKey
  checkPersonalKey(key)
  return key
}

/** @throws `group/bad-personal-key` */
export function checkPersonalKey(key: PersonalKey): void {
  const whole = (value: unknown, least: number, most: number): boolean =>
    typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most
  if (key.version !== 1) throw bad('another version')
  if (key.gid.length !== 8) throw bad('its group identifier')
  if (!whole(key.epoch, 1, 0xffffffff)) throw bad('its epoch')
  if (!whole(key.depth, 1, GREATEST_DEPTH)) throw bad('its depth')
  if (!whole(key.leaf, 0, 2 ** key.depth - 1)) throw bad('its leaf')
  if (!whole(key.start, 1, 0xffffffff)) throw bad('its first session')
  if (!(key.labels instanceof Uint8Array) || key.labels.length !== labelsLength(key.depth)) throw bad('its labels')
  if (!whole(key.nbf, 0, Number.MAX_SAFE_INTEGER) || !whole(key.exp, key.nbf, Number.MAX_SAFE_INTEGER)) {
    throw bad('its times')
  }
}

function bad(what: string, cause?: unknown): IotchainError {
  return new IotchainError('group/bad-personal-key', `not a personal key of this group: ${what}`, { cause })
}
