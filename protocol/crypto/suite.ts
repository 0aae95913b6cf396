/**
 * The primitives that the protocol is made of (protocol.md §2), behind one interface with two independent
 * implementations: `node.ts` over OpenSSL and `noble.ts` in plain JavaScript. Keys are opaque handles: make one
 * per secret and keep it, because making the handle is what costs.
 */

/** COSE algorithm numbers: 24 ChaCha20/Poly1305, 10 AES-CCM-16-64-128, 1 A128GCM (RFC 9053 §4). */
export type AeadAlgorithm = 24 | 10 | 1

export interface AeadParameters {
  readonly keyLength: number
  readonly nonceLength: number
  readonly tagLength: number
}

/** Lengths in octets of each content encryption algorithm (RFC 9053 §4.1–4.3). */
export const AEAD: Readonly<Record<AeadAlgorithm, AeadParameters>> = {
  24: { keyLength: 32, nonceLength: 12, tagLength: 16 },
  10: { keyLength: 16, nonceLength: 13, tagLength: 8 },
  1: { keyLength: 16, nonceLength: 12, tagLength: 16 },
}

export function isAeadAlgorithm(value: unknown): value is AeadAlgorithm {
  return value === 24 || value === 10 || value === 1
}

/** A key of HMAC-SHA-256. */
export interface HmacKey {
  /** @returns 32 octets */
  mac(message: Uint8Array): Uint8Array
}

/** A content encryption key. */
export interface AeadKey {
  readonly algorithm: AeadAlgorithm
  /** @returns ciphertext followed by the tag */
  seal(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array
  /** @throws `crypto/bad-tag` when the ciphertext, the nonce or the additional data is not what was sealed */
  open(nonce: Uint8Array, aad: Uint8Array, ciphertext: Uint8Array): Uint8Array
}

/** An Ed25519 private key (RFC 8032). */
export interface SigningKey {
  /** 32 octets. */
  readonly publicKey: Uint8Array
  /** @returns 64 octets */
  sign(message: Uint8Array): Uint8Array
}

/** An Ed25519 public key (RFC 8032). */
export interface VerifyKey {
  /** 32 octets. */
  readonly publicKey: Uint8Array
  /** False for any signature that does not check, whatever its length. */
  verify(message: Uint8Array, signature: Uint8Array): boolean
}

export interface Ed25519 {
  /** A fresh seed: 32 octets, to be kept secret. */
  generate(): Uint8Array
  /** @param seed 32 octets @throws `crypto/bad-key` */
  signing(seed: Uint8Array): SigningKey
  /** @param publicKey 32 octets @throws `crypto/bad-key` for a wrong length */
  verifying(publicKey: Uint8Array): VerifyKey
}

export interface CryptoSuite {
  readonly name: 'node' | 'noble'
  /** Octets from the system's random source. */
  randomBytes(length: number): Uint8Array
  /** @returns 32 octets */
  sha256(message: Uint8Array): Uint8Array
  /** @param key 16 to 64 octets @throws `crypto/bad-key` */
  hmac(key: Uint8Array): HmacKey
  /** HMAC-SHA-256 with a key that is used once (the key trees): no handle is made. @returns 32 octets */
  hmacOnce(key: Uint8Array, message: Uint8Array): Uint8Array
  /** HKDF-Extract with SHA-256 (RFC 5869 §2.2). @returns 32 octets */
  hkdfExtract(salt: Uint8Array, inputKey: Uint8Array): Uint8Array
  /** HKDF-Expand with SHA-256 (RFC 5869 §2.3). @param length at most 8160 octets */
  hkdfExpand(prk: Uint8Array, info: Uint8Array, length: number): Uint8Array
  /** @throws `crypto/bad-key` when the key has not the algorithm's length */
  aead(algorithm: AeadAlgorithm, key: Uint8Array): AeadKey
  readonly ed25519: Ed25519
}
