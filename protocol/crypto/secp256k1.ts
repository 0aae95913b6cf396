/**
 * Ethereum's signatures: secp256k1 with recovery and Keccak-256, on @noble alone (device and proxy may not import
 * ethers). For transactions, challenges, enrolment and registration; objects are never signed with it.
 */
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { keccak_256 } from '@noble/hashes/sha3.js'
import { IotchainError } from '../errors.ts'
import { type Address, addressHex } from '../messages/address.ts'

/** @returns 32 octets */
export function keccak256(message: Uint8Array): Uint8Array {
  return keccak_256(message)
}

/** A fresh private key: 32 octets. */
export function generatePrivateKey(): Uint8Array {
  return secp256k1.utils.randomSecretKey()
}

/** The Ethereum address of a private key of 32 octets. @throws `crypto/bad-key` */
export function addressOf(privateKey: Uint8Array): Address {
  return addressOfPublicKey(checked(() => secp256k1.getPublicKey(privateKey, false)))
}

/** The Ethereum address of an uncompressed public key of 65 octets. */
export function addressOfPublicKey(publicKey: Uint8Array): Address {
  return addressHex(keccak_256(publicKey.subarray(1)).slice(12))
}

/**
 * Signs a digest (EIP-712, EIP-191).
 * @param digest 32 octets
 * @returns r ‖ s ‖ v, 65 octets, s in the lower half, v 27 or 28
 * @throws `crypto/bad-key`
 */
export function signDigest(privateKey: Uint8Array, digest: Uint8Array): Uint8Array {
  const recovered = checked(() => secp256k1.sign(digest, privateKey, { prehash: false, format: 'recovered' }))
  const out = new Uint8Array(65)
  out.set(recovered.subarray(1))
  out[64] = 27 + (recovered[0] as number)
  return out
}

/**
 * The address whose key signed the digest.
 * @param signature r ‖ s ‖ v, 65 octets; v 27 or 28 (0 and 1 are read too), s in the lower half (EIP-2)
 * @throws `crypto/bad-signature` if there is none
 */
export function recoverAddress(digest: Uint8Array, signature: Uint8Array): Address {
  const v = signature[64]
  const recovery = v === 27 || v === 28 ? v - 27 : v
  if (signature.length !== 65 || digest.length !== 32 || (recovery !== 0 && recovery !== 1)) throw badSignature()
  try {
    const { Signature } = secp256k1
    const parsed = Signature.fromBytes(signature.subarray(0, 64), 'compact')
    if (parsed.hasHighS()) throw badSignature()
    return addressOfPublicKey(parsed.addRecoveryBit(recovery).recoverPublicKey(digest).toBytes(false))
  } catch (cause) {
    throw badSignature(cause)
  }
}

function checked<T>(f: () => T): T {
  try {
    return f()
  } catch (cause) {
    throw new IotchainError('crypto/bad-key', 'not a private key of secp256k1', { cause })
  }
}

function badSignature(cause?: unknown): IotchainError {
  return new IotchainError('crypto/bad-signature', 'not a signature of secp256k1 over this digest', { cause })
}
