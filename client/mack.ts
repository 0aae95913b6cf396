/**
 * Integrity keys for a home gateway that shall check and not read (protocol.md §4.2): derived by a member from a
 * session's key, for one resource and one incarnation of its device. Whoever holds one can also forge mac-objects.
 */
import { suite } from '#crypto'
import { fromHex, toHex } from '../protocol/bytes.ts'
import type { AeadAlgorithm } from '../protocol/crypto/suite.ts'
import { isAeadAlgorithm } from '../protocol/crypto/suite.ts'
import { IotchainError } from '../protocol/errors.ts'
import { gname, parseGname, toGid } from '../protocol/groups/gid.ts'
import { type Address, addressBytes, parseAddress } from '../protocol/messages/address.ts'
import type { ObjectHeader } from '../protocol/objects/header.ts'
import { deriveIntegrityKey } from '../protocol/objects/keys.ts'
import { noAccess } from '../protocol/objects/open.ts'
import { parseMac } from '../protocol/objects/parse.ts'
import { verifyMacObject } from '../protocol/objects/verify.ts'
import type { GroupView } from './group.ts'

/** What a gateway needs to check the mac-objects of one session of one resource. Secret. */
export interface IntegrityKeyRecord {
  readonly group: string
  readonly session: number
  readonly device: Address
  readonly path: readonly string[]
  readonly sid: string
  readonly algorithm: AeadAlgorithm
  /** 32 octets in hex */
  readonly integrityKey: string
}

/** @param header of any object of that session and incarnation @throws `object/no-access` */
export function integrityKeyOf(group: GroupView, path: readonly string[], header: ObjectHeader): IntegrityKeyRecord {
  const K = group.key(header.session)
  if (K === undefined) throw noAccess(header.session)
  const key = deriveIntegrityKey(suite, K, { ...header, device: addressBytes(group.device), path })
  return {
    group: gname(toGid(header.gid)),
    session: header.session,
    device: group.device,
    path: [...path],
    sid: toHex(header.sid),
    algorithm: header.algorithm,
    integrityKey: toHex(key),
  }
}

/** Reads one record, as a gateway gets it. @throws `client/bad-mack` */
export function parseIntegrityKey(text: string): IntegrityKeyRecord {
  let value: Partial<Record<keyof IntegrityKeyRecord, unknown>>
  try {
    value = JSON.parse(text) as typeof value
  } catch (cause) {
    throw badMack(cause)
  }
  const { group, session, device, path, sid, algorithm, integrityKey } = value
  const good =
    typeof group === 'string' &&
    typeof session === 'number' &&
    typeof device === 'string' &&
    Array.isArray(path) &&
    path.every((s) => typeof s === 'string') &&
    typeof sid === 'string' &&
    /^([0-9a-f]{2}){1,7}$/.test(sid) &&
    isAeadAlgorithm(algorithm) &&
    typeof integrityKey === 'string' &&
    /^[0-9a-f]{64}$/.test(integrityKey)
  if (!good) throw badMack()
  parseGname(group)
  return { group, session, device: parseAddress(device), path: path as string[], sid, algorithm, integrityKey }
}

/**
 * A gateway's whole work: is this mac-object from the group, unchanged, and of a session that there is a key for?
 * @returns its header; the reading stays closed
 * @throws `object/malformed`, `object/bad-mac`, `client/no-mack`
 */
export function checkMacObject(bytes: Uint8Array, keys: readonly IntegrityKeyRecord[]): ObjectHeader {
  const { header } = parseMac(bytes)
  const record = keys.find(
    (k) =>
      k.group === gname(header.gid) &&
      k.session === header.session &&
      k.sid === toHex(header.sid) &&
      k.algorithm === header.algorithm,
  )
  if (record === undefined) {
    throw new IotchainError('client/no-mack', `there is no integrity key for session ${header.session} of this group`, {
      hint: 'have a member run `iotchain mack` again',
    })
  }
  const integrityKey = suite.hmac(fromHex(record.integrityKey))
  return verifyMacObject(bytes, { device: addressBytes(record.device), path: record.path, integrityKey }).header
}

function badMack(cause?: unknown): IotchainError {
  return new IotchainError('client/bad-mack', 'this is no integrity key record', {
    hint: 'pass lines that `iotchain mack key` printed, unchanged',
    cause,
  })
}
