/** COSE_Sign1 with Ed25519 (RFC 9052 §4.2, RFC 9053 §2.2). */
import type { Tagged } from '../cbor.ts'
import type { SigningKey, VerifyKey } from '../crypto/suite.ts'
import { COSE_TAG, type CoseMessage, coseStructure, decodeMessage, encodeMessage } from './headers.ts'

/**
 * Signs.
 * @param protectedBytes the encoded protected header (headers.ts, encodeProtected)
 * @returns the tagged message
 */
export function sign1(
  protectedBytes: Uint8Array,
  payload: Uint8Array,
  externalAad: Uint8Array,
  key: SigningKey,
): Uint8Array {
  const signature = key.sign(coseStructure('Signature1', protectedBytes, externalAad, payload))
  return encodeMessage(COSE_TAG.sign1, protectedBytes, payload, signature)
}

/** @throws `cose/malformed`, `cbor/…`; nothing is verified yet */
export function decodeSign1(bytes: Uint8Array | Tagged): CoseMessage {
  return decodeMessage(bytes, COSE_TAG.sign1, 4)
}

/** True if the signature is the key's over this header, payload and external data. The caller checks `alg`. */
export function verifySign1(message: CoseMessage, externalAad: Uint8Array, key: VerifyKey): boolean {
  const { protectedBytes, payload, proof } = message
  return proof.length === 64 && key.verify(coseStructure('Signature1', protectedBytes, externalAad, payload), proof)
}
