/** Ethereum's hash and the address behind a signature. */
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { keccak_256 } from '@noble/hashes/sha3.js'
import { fromHex, toHex } from '../protocol/bytes.ts'
import { type Address, addressHex } from '../protocol/messages/address.ts'
import type { Hex } from './types.ts'

export function keccak256(data: Uint8Array | Hex): Hex {
  return `0x${toHex(keccak_256(typeof data === 'string' ? fromHex(data) : data))}`
}

/**
 * The ordinary account that signed `digest`, or undefined if the 65 octets r ‖ s ‖ v (v 0, 1, 27 or 28) are no
 * signature. The upper half of s is refused, as every contract refuses it.
 */
export function recoverAddress(digest: Uint8Array, signature: Uint8Array): Address | undefined {
  const v = signature[64]
  if (signature.length !== 65 || v === undefined || ![0, 1, 27, 28].includes(v)) return undefined
  try {
    const point = secp256k1.Signature.fromBytes(signature.subarray(0, 64), 'compact')
    if (point.hasHighS()) return undefined
    const key = point
      .addRecoveryBit(v % 27)
      .recoverPublicKey(digest)
      .toBytes(false)
    return addressHex(keccak_256(key.subarray(1)).subarray(12))
  } catch {
    return undefined
  }
}
