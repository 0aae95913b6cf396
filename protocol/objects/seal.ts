/**
 * Sealing: encrypt, then sign or authenticate (protocol.md §4.4). A Sealer holds the keys of one (session, resource)
 * as handles, and everything that stays the same from object to object already encoded.
 */
import { concat } from '../bytes.ts'
import { nonceOf } from '../cose/encrypt0.ts'
import { ALG, bstrHeadLength, coseStructure, encodeMessage, writeBstr } from '../cose/headers.ts'
import { kidOf } from '../cose/key.ts'
import type { CryptoSuite, HmacKey, SigningKey } from '../crypto/suite.ts'
import { IotchainError } from '../errors.ts'
import { externalAad } from './aad.ts'
import { headerTemplate, partialIv } from './header.ts'
import { deriveObjectKeys, type ObjectScope } from './keys.ts'

export interface SealInput {
  /** Never twice with the same sid: see seq.ts. */
  readonly seq: number
  /** Time of sealing, Unix seconds. */
  readonly iat: number
  /** CoAP content-format of the plaintext. */
  readonly contentFormat: number
  readonly plaintext: Uint8Array
}

export interface Sealer {
  readonly scope: ObjectScope
  /** COSE_Encrypt0: not to be sent by itself. */
  encrypt(input: SealInput): Uint8Array
  /** COSE_Sign1 over an Encrypt0 of this sealer. */
  sign(encrypt0: Uint8Array): Uint8Array
  /** COSE_Mac0 over an Encrypt0 of this sealer. */
  mac(encrypt0: Uint8Array): Uint8Array
  /** Both steps of the usual path. */
  seal(input: SealInput): { readonly signed: Uint8Array; readonly encrypt0: Uint8Array }
}

export interface SealerOptions extends ObjectScope {
  /** K_j of `session`: 16 octets. */
  readonly K: Uint8Array
  /** The sender's object-signing key; without it `sign` and `seal` throw `object/no-signing-key`. */
  readonly signingKey?: SigningKey | undefined
}

/**
 * @example
 * const sealer = createSealer(suite, { K, gid, session, device, sid, path: ['s', 'temp'], algorithm: 24, signingKey })
 * const { signed } = sealer.seal({ seq, iat, contentFormat: 112, plaintext })
 */
export function createSealer(suite: CryptoSuite, options: SealerOptions): Sealer {
  const { K, signingKey, ...scope } = options
  const keys = deriveObjectKeys(suite, K, scope)
  const contentKey = suite.aead(scope.algorithm, keys.contentKey)
  const template = headerTemplate(scope)
  const aad = externalAad(scope.device, scope.path)
  const signer = signingKey === undefined ? undefined : createSigner(suite, signingKey, aad)
  let macKey: HmacKey | undefined
  const macOuter = concat(Uint8Array.of(0xa3, 1, ALG.hmac256_64, 3, 16, 4, 0x40 | scope.sid.length), scope.sid)

  function encrypt(input: SealInput): Uint8Array {
    const iv = partialIv(input.seq)
    if (input.contentFormat > 65_535) throw new IotchainError('object/bad-number', 'a content-format is at most 65 535')
    const header = template.encode(iv, input.contentFormat, input.iat)
    const ciphertext = contentKey.seal(
      nonceOf(keys.baseIv, iv),
      coseStructure('Encrypt0', header, aad),
      input.plaintext,
    )
    return encodeMessage(16, header, ciphertext)
  }

  function sign(encrypt0: Uint8Array): Uint8Array {
    if (signer === undefined)
      throw new IotchainError('object/no-signing-key', 'this sealer was made without a signing key')
    return signer(encrypt0)
  }

  return {
    scope,
    encrypt,
    sign,
    mac(encrypt0) {
      macKey ??= suite.hmac(keys.integrityKey)
      const tag = macKey.mac(coseStructure('MAC0', macOuter, aad, encrypt0))
      return encodeMessage(17, macOuter, encrypt0, tag.subarray(0, 8))
    },
    seal(input) {
      const encrypt0 = encrypt(input)
      return { signed: sign(encrypt0), encrypt0 }
    },
  }
}

/** Signs with everything in front of the payload already in place. */
function createSigner(suite: CryptoSuite, key: SigningKey, aad: Uint8Array): (encrypt0: Uint8Array) => Uint8Array {
  const kid = kidOf(suite, key.publicKey)
  const outer = concat(Uint8Array.of(0xa3, 1, 0x27, 3, 16, 4, 0x48), kid)
  const front = coseStructure('Signature1', outer, aad)
  return (encrypt0) => {
    const toBeSigned = new Uint8Array(front.length + bstrHeadLength(encrypt0.length) + encrypt0.length)
    toBeSigned.set(front)
    writeBstr(toBeSigned, front.length, encrypt0)
    return encodeMessage(18, outer, encrypt0, key.sign(toBeSigned))
  }
}

/** One object, keys derived for it alone; a Sealer is the better choice for a second one. */
export function sealObject(
  suite: CryptoSuite,
  options: SealerOptions & SealInput,
): { readonly signed: Uint8Array; readonly encrypt0: Uint8Array } {
  const { seq, iat, contentFormat, plaintext, ...rest } = options
  return createSealer(suite, rest).seal({ seq, iat, contentFormat, plaintext })
}

/** One object under the integrity key. */
export function macObject(suite: CryptoSuite, options: Omit<SealerOptions, 'signingKey'> & SealInput): Uint8Array {
  const { seq, iat, contentFormat, plaintext, ...rest } = options
  const sealer = createSealer(suite, rest)
  return sealer.mac(sealer.encrypt({ seq, iat, contentFormat, plaintext }))
}
