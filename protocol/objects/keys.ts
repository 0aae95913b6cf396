/** Keys of one (session, device, incarnation, resource): protocol.md §4.2. */
import { concat, u32 } from '../bytes.ts'
import { encodeCbor } from '../cbor.ts'
import { AEAD, type AeadAlgorithm, type CryptoSuite } from '../crypto/suite.ts'
import { IotchainError } from '../errors.ts'
import type { ResourcePath } from './aad.ts'

/** Everything that names a content key, but for K_j itself. */
export interface ObjectScope {
  readonly gid: Uint8Array
  readonly session: number
  /** 20 octets; for a command, the device that shall act. */
  readonly device: Uint8Array
  /** Sender ID of the incarnation that seals: 1 to 7 octets. */
  readonly sid: Uint8Array
  readonly path: ResourcePath
  readonly algorithm: AeadAlgorithm
}

declare const contentKeyBrand: unique symbol
/** Content encryption key: 16 or 32 octets. */
export type ContentKey = Uint8Array & { readonly [contentKeyBrand]: true }
declare const integrityKeyBrand: unique symbol
/** Integrity key MACK: 32 octets. Its holder can check mac-objects (and forge them), but open nothing. */
export type IntegrityKey = Uint8Array & { readonly [integrityKeyBrand]: true }

export interface ObjectKeys {
  readonly contentKey: ContentKey
  readonly baseIv: Uint8Array
  readonly integrityKey: IntegrityKey
}

function expander(suite: CryptoSuite, K: Uint8Array, scope: ObjectScope): (use: string, length: number) => Uint8Array {
  if (K.length !== 16) throw new IotchainError('object/bad-key', 'a group key has 16 octets')
  if (scope.device.length !== 20) throw new IotchainError('object/bad-device', 'a device address has 20 octets')
  if (scope.sid.length < 1 || scope.sid.length > 7) {
    throw new IotchainError('object/bad-sid', 'a Sender ID has 1 to 7 octets')
  }
  const prk = suite.hkdfExtract(concat(scope.gid, u32(scope.session)), K)
  const { device, sid, path, algorithm } = scope
  return (use, length) =>
    suite.hkdfExpand(prk, encodeCbor(['iotc1', use, device, sid, path, algorithm, length]), length)
}

/** @param K group key of `scope.session`, 16 octets */
export function deriveObjectKeys(suite: CryptoSuite, K: Uint8Array, scope: ObjectScope): ObjectKeys {
  const key = expander(suite, K, scope)
  const { keyLength, nonceLength } = AEAD[scope.algorithm]
  return {
    contentKey: key('key', keyLength) as ContentKey,
    baseIv: key('iv', nonceLength),
    integrityKey: key('mac', 32) as IntegrityKey,
  }
}

/** The integrity key alone, for a gateway that shall check and not read. */
export function deriveIntegrityKey(suite: CryptoSuite, K: Uint8Array, scope: ObjectScope): IntegrityKey {
  return expander(suite, K, scope)('mac', 32) as IntegrityKey
}
