/** Opening sealed objects with a group key (protocol.md §4.4). The proof of origin is verified first, elsewhere. */

import { copyOf, equalBytes } from '../bytes.ts'
import { nonceOf } from '../cose/encrypt0.ts'
import { coseStructure } from '../cose/headers.ts'
import type { AeadKey, CryptoSuite } from '../crypto/suite.ts'
import { IotchainError, isIotchainError } from '../errors.ts'
import { externalAad, type ResourcePath } from './aad.ts'
import { type ObjectHeader, partialIv } from './header.ts'
import { deriveObjectKeys, type ObjectScope } from './keys.ts'
import { type ParsedEncrypt0, parseEncrypt0, parseObject } from './parse.ts'

/** Opens the objects of one (session, sender, resource). */
export interface Opener {
  readonly scope: ObjectScope
  /** @throws `object/bad-ciphertext`, `object/wrong-key` for an object of another scope */
  open(object: ParsedEncrypt0): Uint8Array
}

/** @param K group key of `scope.session`, 16 octets */
export function createOpener(suite: CryptoSuite, K: Uint8Array, scope: ObjectScope): Opener {
  const keys = deriveObjectKeys(suite, K, scope)
  const contentKey: AeadKey = suite.aead(scope.algorithm, keys.contentKey)
  const aad = externalAad(scope.device, scope.path)
  return {
    scope,
    open(object) {
      const { header } = object
      if (header.session !== scope.session || header.algorithm !== scope.algorithm) {
        throw new IotchainError('object/wrong-key', 'the object is of another session or algorithm than the key')
      }
      const nonce = nonceOf(keys.baseIv, partialIv(header.seq))
      try {
        return contentKey.open(nonce, coseStructure('Encrypt0', object.protectedBytes, aad), object.ciphertext)
      } catch (cause) {
        if (!isIotchainError(cause)) throw cause
        throw new IotchainError('object/bad-ciphertext', 'the object does not open with the key of its session', {
          cause,
        })
      }
    },
  }
}

/**
 * Opens objects of any resource and keeps the keys of the last ones used.
 * @example
 * const opener = new ObjectOpener(suite, (gid, session) => member.key(session))
 * const plaintext = opener.open(verified.parsed, device, path)
 */
export class ObjectOpener {
  private readonly suite: CryptoSuite
  private readonly keyOf: (header: ObjectHeader) => Uint8Array | undefined
  private readonly capacity: number
  /** Last used first. */
  private readonly openers: Opener[] = []

  /** @param keyOf K_j of the header's group and session, if it is held */
  constructor(suite: CryptoSuite, keyOf: (header: ObjectHeader) => Uint8Array | undefined, capacity = 64) {
    this.suite = suite
    this.keyOf = keyOf
    this.capacity = capacity
  }

  /**
   * @param device the device asked for, 20 octets
   * @param path the path asked for
   * @throws `object/no-access` when the session's key is not held, `object/bad-ciphertext`
   */
  open(object: ParsedEncrypt0, device: Uint8Array, path: ResourcePath): Uint8Array {
    const { openers } = this
    const at = openers.findIndex(({ scope }) => isOf(scope, object.header, device, path))
    let opener = openers[at]
    if (opener === undefined) {
      const { gid, session, sid, algorithm } = object.header
      const K = this.keyOf(object.header)
      if (K === undefined) throw noAccess(session)
      opener = createOpener(this.suite, K, { gid, session, device: copyOf(device), sid, path: [...path], algorithm })
    }
    if (at !== 0) {
      if (at > 0) openers.splice(at, 1)
      openers.unshift(opener)
      if (openers.length > this.capacity) openers.pop()
    }
    return opener.open(object)
  }
}

function isOf(scope: ObjectScope, header: ObjectHeader, device: Uint8Array, path: ResourcePath): boolean {
  return (
    scope.session === header.session &&
    scope.algorithm === header.algorithm &&
    scope.path.length === path.length &&
    scope.path.every((segment, i) => segment === path[i]) &&
    equalBytes(scope.sid, header.sid) &&
    equalBytes(scope.device, device) &&
    equalBytes(scope.gid, header.gid)
  )
}

/** The distinct error of a client that holds no key for a session. */
export function noAccess(session: number): IotchainError {
  return new IotchainError('object/no-access', `no access to session ${session}`, {
    hint: 'the token may have ended before, or begun after, the object was sealed',
  })
}

/**
 * Opens one object in any of its forms, without verifying where it comes from.
 * @param options.K group key of the object's session, 16 octets
 * @throws `object/malformed`, `object/bad-ciphertext`
 */
export function openObject(
  suite: CryptoSuite,
  bytes: Uint8Array,
  options: { readonly K: Uint8Array; readonly device: Uint8Array; readonly path: ResourcePath },
): { readonly header: ObjectHeader; readonly plaintext: Uint8Array } {
  const parsed = bytes[0] === 0xd0 ? parseEncrypt0(bytes) : parseObject(bytes, { acceptEd25519: true })
  const { header } = parsed
  const opener = createOpener(suite, options.K, { ...header, device: options.device, path: options.path })
  return { header, plaintext: opener.open(parsed) }
}
