/** COSE_Mac0 with HMAC-SHA-256 (RFC 9052 §6.2, RFC 9053 §3.1): 8 octets of tag for alg 4, 32 for alg 5. */
import { equalBytes } from '../bytes.ts'
import type { HmacKey } from '../crypto/suite.ts'
import { COSE_TAG, type CoseMessage, coseStructure, decodeMessage, encodeMessage } from './headers.ts'

/** @returns the tagged message */
export function mac0(
  protectedBytes: Uint8Array,
  payload: Uint8Array,
  externalAad: Uint8Array,
  key: HmacKey,
  tagLength: 8 | 32,
): Uint8Array {
  const tag = key.mac(coseStructure('MAC0', protectedBytes, externalAad, payload)).subarray(0, tagLength)
  return encodeMessage(COSE_TAG.mac0, protectedBytes, payload, tag)
}

/** @throws `cose/malformed`, `cbor/…`; nothing is verified yet */
export function decodeMac0(bytes: Uint8Array): CoseMessage {
  return decodeMessage(bytes, COSE_TAG.mac0, 4)
}

/** Compares in constant time. The caller checks `alg` and so knows the tag's length. */
export function verifyMac0(message: CoseMessage, externalAad: Uint8Array, key: HmacKey, tagLength: 8 | 32): boolean {
  const { protectedBytes, payload, proof } = message
  const tag = key.mac(coseStructure('MAC0', protectedBytes, externalAad, payload))
  return equalBytes(tag.subarray(0, tagLength), proof)
}
