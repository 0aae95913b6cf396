/**
 * The crypto suite over node:crypto (OpenSSL): the one in use wherever Node runs. Every key is a bare, cached
 * KeyObject: on Node 24 a Buffer as key costs HMAC a factor of 7 and ciphers one of 4, and `{key: keyObject}` halves
 * the speed of signing; `npm run bench -- objects` guards this.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  hash,
  type KeyObject,
  randomBytes,
  sign,
  verify,
} from 'node:crypto'
import { concat, copyOf } from '../bytes.ts'
import { IotchainError } from '../errors.ts'
import { AEAD, type AeadAlgorithm, type AeadKey, type CryptoSuite, type SigningKey, type VerifyKey } from './suite.ts'

/** Everything in front of the 32 octets of an Ed25519 key in PKCS #8 and SPKI (RFC 8410 §7, §4). */
const PKCS8 = Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20)
const SPKI = Uint8Array.of(0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0)

/**
 * HMAC (RFC 2104) by two one-shot hashes. A tree secret keys one or two messages only, and for those making a
 * KeyObject costs more than the hashing: 3.5 against 2.2 µs, and twice the garbage.
 */
function hmacOnce(key: Uint8Array, message: Uint8Array): Uint8Array {
  if (key.length > 64) return hmac(createSecretKey(key), message)
  const inner = new Uint8Array(64 + message.length)
  const outer = new Uint8Array(96)
  for (let i = 0; i < 64; i++) {
    const octet = i < key.length ? (key[i] as number) : 0
    inner[i] = octet ^ 0x36
    outer[i] = octet ^ 0x5c
  }
  inner.set(message, 64)
  outer.set(hash('sha256', inner, 'buffer'), 64)
  return plain(hash('sha256', outer, 'buffer'))
}

function hmac(key: KeyObject, message: Uint8Array): Uint8Array {
  return plain(createHmac('sha256', key).update(message).digest())
}

/** The same octets as a plain Uint8Array: a Buffer's `slice` is a view, which surprises whoever means to copy. */
function plain(bytes: Buffer): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
}

function badTag(cause?: unknown): IotchainError {
  return new IotchainError('crypto/bad-tag', 'the ciphertext does not check', { cause })
}

function aead(algorithm: AeadAlgorithm, key: Uint8Array): AeadKey {
  const { keyLength, nonceLength, tagLength } = AEAD[algorithm]
  if (key.length !== keyLength)
    throw new IotchainError('crypto/bad-key', `a key of algorithm ${algorithm} has ${keyLength} octets`)
  const keyObject = createSecretKey(key)
  const options = { authTagLength: tagLength }
  const check = (nonce: Uint8Array): void => {
    if (nonce.length !== nonceLength) {
      throw new IotchainError('crypto/bad-nonce', `a nonce of algorithm ${algorithm} has ${nonceLength} octets`)
    }
  }
  const cipherOf = (nonce: Uint8Array) => {
    if (algorithm === 24) return createCipheriv('chacha20-poly1305', keyObject, nonce, options)
    return algorithm === 10
      ? createCipheriv('aes-128-ccm', keyObject, nonce, options)
      : createCipheriv('aes-128-gcm', keyObject, nonce, options)
  }
  const decipherOf = (nonce: Uint8Array) => {
    if (algorithm === 24) return createDecipheriv('chacha20-poly1305', keyObject, nonce, options)
    return algorithm === 10
      ? createDecipheriv('aes-128-ccm', keyObject, nonce, options)
      : createDecipheriv('aes-128-gcm', keyObject, nonce, options)
  }
  return {
    algorithm,
    seal(nonce, aad, plaintext) {
      check(nonce)
      const cipher = cipherOf(nonce)
      cipher.setAAD(aad, { plaintextLength: plaintext.length })
      const text = cipher.update(plaintext)
      cipher.final()
      return concat(text, cipher.getAuthTag())
    },
    open(nonce, aad, ciphertext) {
      check(nonce)
      const length = ciphertext.length - tagLength
      if (length < 0) throw badTag()
      try {
        const decipher = decipherOf(nonce)
        decipher.setAuthTag(ciphertext.subarray(length))
        decipher.setAAD(aad, { plaintextLength: length })
        // both calls, always: CCM checks the tag of an empty text in update, and tells in final
        const text = decipher.update(ciphertext.subarray(0, length))
        decipher.final()
        return plain(text)
      } catch (cause) {
        throw badTag(cause)
      }
    },
  }
}

function signing(seed: Uint8Array): SigningKey {
  if (seed.length !== 32) throw new IotchainError('crypto/bad-key', 'an Ed25519 seed has 32 octets')
  const key = createPrivateKey({ key: Buffer.from(concat(PKCS8, seed)), format: 'der', type: 'pkcs8' })
  const publicKey = Uint8Array.from(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(SPKI.length))
  return { publicKey, sign: (message) => plain(sign(null, message, key)) }
}

function verifying(publicKey: Uint8Array): VerifyKey {
  if (publicKey.length !== 32) throw new IotchainError('crypto/bad-key', 'an Ed25519 public key has 32 octets')
  const key = createPublicKey({ key: Buffer.from(concat(SPKI, publicKey)), format: 'der', type: 'spki' })
  return {
    publicKey: copyOf(publicKey),
    verify: (message, signature) => signature.length === 64 && verify(null, message, key, signature),
  }
}

export const suite: CryptoSuite = {
  name: 'node',
  randomBytes: (length) => plain(randomBytes(length)),
  sha256: (message) => plain(hash('sha256', message, 'buffer')),
  hmac(key) {
    if (key.length < 16 || key.length > 64)
      throw new IotchainError('crypto/bad-key', 'a key of HMAC has 16 to 64 octets')
    const keyObject = createSecretKey(key)
    return { mac: (message) => hmac(keyObject, message) }
  },
  hmacOnce,
  hkdfExtract: (salt, inputKey) => hmac(createSecretKey(salt), inputKey),
  hkdfExpand(prk, info, length) {
    if (length > 255 * 32) throw new IotchainError('crypto/too-long', 'HKDF gives at most 8160 octets')
    const key = createSecretKey(prk)
    const out = new Uint8Array(length)
    let block: Uint8Array = new Uint8Array(0)
    for (let at = 0, i = 1; at < length; at += 32, i++) {
      block = hmac(key, concat(block, info, Uint8Array.of(i)))
      out.set(block.subarray(0, Math.min(32, length - at)), at)
    }
    return out
  },
  aead,
  ed25519: { generate: () => plain(randomBytes(32)), signing, verifying },
}
