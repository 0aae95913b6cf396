/** COSE_Encrypt0 (RFC 9052 §5.2) with the AEADs of suite.ts. */
import { copyOf } from '../bytes.ts'
import type { AeadKey } from '../crypto/suite.ts'
import { COSE_TAG, type CoseMessage, coseStructure, decodeMessage, encodeMessage } from './headers.ts'

/** @returns the tagged message */
export function encrypt0(
  protectedBytes: Uint8Array,
  plaintext: Uint8Array,
  externalAad: Uint8Array,
  key: AeadKey,
  nonce: Uint8Array,
): Uint8Array {
  const ciphertext = key.seal(nonce, coseStructure('Encrypt0', protectedBytes, externalAad), plaintext)
  return encodeMessage(COSE_TAG.encrypt0, protectedBytes, ciphertext)
}

/** @throws `cose/malformed`, `cbor/…`; nothing is decrypted yet */
export function decodeEncrypt0(bytes: Uint8Array): CoseMessage {
  return decodeMessage(bytes, COSE_TAG.encrypt0, 3)
}

/** @throws `crypto/bad-tag` */
export function decrypt0(message: CoseMessage, externalAad: Uint8Array, key: AeadKey, nonce: Uint8Array): Uint8Array {
  return key.open(nonce, coseStructure('Encrypt0', message.protectedBytes, externalAad), message.payload)
}

/** Nonce from the base IV and the Partial IV: the latter padded on the left and added bitwise (RFC 9052 §3.1). */
export function nonceOf(baseIv: Uint8Array, partialIv: Uint8Array): Uint8Array {
  const nonce = copyOf(baseIv)
  const shift = nonce.length - partialIv.length
  for (let i = 0; i < partialIv.length; i++) nonce[shift + i] = (nonce[shift + i] as number) ^ (partialIv[i] as number)
  return nonce
}
