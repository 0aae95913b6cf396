/**
 * The crypto suite in plain JavaScript: @noble for everything, AES-CCM over its AES block function. For browsers, as
 * a fallback, and as the second, independent implementation that every test holds against node.ts.
 */
import { gcm } from '@noble/ciphers/aes.js'
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { ed25519 } from '@noble/curves/ed25519.js'
import { expand, extract } from '@noble/hashes/hkdf.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { randomBytes } from '@noble/hashes/utils.js'
import { copyOf } from '../bytes.ts'
import { IotchainError } from '../errors.ts'
import { aesCcm } from './aes-ccm.ts'
import { AEAD, type AeadAlgorithm, type AeadKey, type CryptoSuite, type SigningKey, type VerifyKey } from './suite.ts'

function aead(algorithm: AeadAlgorithm, keyOctets: Uint8Array): AeadKey {
  const { keyLength, nonceLength, tagLength } = AEAD[algorithm]
  if (keyOctets.length !== keyLength) {
    throw new IotchainError('crypto/bad-key', `a key of algorithm ${algorithm} has ${keyLength} octets`)
  }
  const key = copyOf(keyOctets)
  const ccm = algorithm === 10 ? aesCcm(key, tagLength) : undefined
  const check = (nonce: Uint8Array): void => {
    if (nonce.length !== nonceLength) {
      throw new IotchainError('crypto/bad-nonce', `a nonce of algorithm ${algorithm} has ${nonceLength} octets`)
    }
  }
  const cipherOf = (nonce: Uint8Array, aad: Uint8Array) =>
    algorithm === 24 ? chacha20poly1305(key, nonce, aad) : gcm(key, nonce, aad)
  return {
    algorithm,
    seal(nonce, aad, plaintext) {
      check(nonce)
      return ccm?.seal(nonce, aad, plaintext) ?? cipherOf(nonce, aad).encrypt(plaintext)
    },
    open(nonce, aad, ciphertext) {
      check(nonce)
      try {
        return ccm?.open(nonce, aad, ciphertext) ?? cipherOf(nonce, aad).decrypt(ciphertext)
      } catch (cause) {
        throw new IotchainError('crypto/bad-tag', 'the ciphertext does not check', { cause })
      }
    },
  }
}

function signing(seed: Uint8Array): SigningKey {
  if (seed.length !== 32) throw new IotchainError('crypto/bad-key', 'an Ed25519 seed has 32 octets')
  const secret = copyOf(seed)
  return { publicKey: ed25519.getPublicKey(secret), sign: (message) => ed25519.sign(message, secret) }
}

function verifying(publicKeyOctets: Uint8Array): VerifyKey {
  if (publicKeyOctets.length !== 32) throw new IotchainError('crypto/bad-key', 'an Ed25519 public key has 32 octets')
  const publicKey = copyOf(publicKeyOctets)
  return {
    publicKey,
    verify(message, signature) {
      // zip215 off: the same signatures as RFC 8032 and OpenSSL take
      return signature.length === 64 && ed25519.verify(signature, message, publicKey, { zip215: false })
    },
  }
}

export const suite: CryptoSuite = {
  name: 'noble',
  randomBytes,
  sha256: (message) => sha256(message),
  hmac(key) {
    if (key.length < 16 || key.length > 64)
      throw new IotchainError('crypto/bad-key', 'a key of HMAC has 16 to 64 octets')
    const keyed = hmac.create(sha256, key)
    return { mac: (message) => keyed.clone().update(message).digest() }
  },
  hmacOnce: (key, message) => hmac(sha256, key, message),
  hkdfExtract: (salt, inputKey) => extract(sha256, inputKey, salt),
  hkdfExpand(prk, info, length) {
    if (length > 255 * 32) throw new IotchainError('crypto/too-long', 'HKDF gives at most 8160 octets')
    return expand(sha256, prk, info, length)
  },
  aead,
  ed25519: { generate: () => randomBytes(32), signing, verifying },
}
