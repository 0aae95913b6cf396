/** COSE_Key of Ed25519 public keys (RFC 9053 §7.2) and key thumbprints (RFC 9679). */
import { copyOf } from '../bytes.ts'
import { type CborMap, decodeCbor, encodeCbor } from '../cbor.ts'
import type { CryptoSuite } from '../crypto/suite.ts'
import { IotchainError } from '../errors.ts'

const KTY = 1
const ALG_LABEL = 3
const OKP = 1
const EC2 = 2
const CRV = -1
const ED25519 = 6

/** `{1: 1 (OKP), −1: 6 (Ed25519), −2: x}`. @param publicKey 32 octets @throws `cose/bad-key` */
export function coseKeyEd25519(publicKey: Uint8Array): Uint8Array {
  return encodeCbor(coseKeyMapEd25519(publicKey))
}

/** As coseKeyEd25519, not yet encoded, to be put into a larger structure. */
export function coseKeyMapEd25519(publicKey: Uint8Array): CborMap {
  if (publicKey.length !== 32) throw new IotchainError('cose/bad-key', 'an Ed25519 public key has 32 octets')
  return new Map<number, number | Uint8Array>([
    [KTY, OKP],
    [CRV, ED25519],
    [-2, publicKey],
  ])
}

/**
 * The 32-octet public key in an Ed25519 COSE_Key, encoded or decoded.
 * @throws `cose/bad-key` for any other key, and for one that carries its private part
 */
export function publicKeyOf(coseKey: Uint8Array | CborMap): Uint8Array {
  const map = keyMap(coseKey)
  const x = map.get(-2)
  const alg = map.get(ALG_LABEL)
  if (map.get(KTY) !== OKP || map.get(CRV) !== ED25519 || !(x instanceof Uint8Array) || x.length !== 32) {
    throw new IotchainError('cose/bad-key', 'not an Ed25519 COSE_Key')
  }
  if (alg !== undefined && alg !== -8 && alg !== -19) {
    throw new IotchainError('cose/bad-key', 'a COSE_Key for another algorithm')
  }
  if (map.has(-4)) throw new IotchainError('cose/bad-key', 'a COSE_Key with its private part in it')
  return x
}

function keyMap(coseKey: Uint8Array | CborMap): CborMap {
  const value = coseKey instanceof Uint8Array ? decodeCbor(coseKey) : coseKey
  if (!(value instanceof Map)) throw new IotchainError('cose/bad-key', 'a COSE_Key is a map')
  return value
}

/** The parameters that a thumbprint is over, by key type (RFC 9679 §4). */
const REQUIRED: ReadonlyMap<unknown, readonly number[]> = new Map([
  [OKP, [KTY, CRV, -2]],
  [EC2, [KTY, CRV, -2, -3]],
])

/** SHA-256 thumbprint of a COSE_Key of type OKP or EC2: 32 octets (RFC 9679 §3). @throws `cose/bad-key` */
export function thumbprint(suite: CryptoSuite, coseKey: Uint8Array | CborMap): Uint8Array {
  const map = keyMap(coseKey)
  const labels = REQUIRED.get(map.get(KTY))
  if (labels === undefined) throw new IotchainError('cose/bad-key', 'a COSE_Key of a type that is not used here')
  const required: CborMap = new Map()
  for (const label of labels) {
    const value = map.get(label)
    if (value === undefined) throw new IotchainError('cose/bad-key', 'a COSE_Key without all of its parameters')
    required.set(label, value)
  }
  return suite.sha256(encodeCbor(required))
}

/** Thumbprint of an Ed25519 public key of 32 octets. */
export function thumbprintOf(suite: CryptoSuite, publicKey: Uint8Array): Uint8Array {
  return suite.sha256(coseKeyEd25519(publicKey))
}

/** kid of an Ed25519 public key: the first 8 octets of its thumbprint. */
export function kidOf(suite: CryptoSuite, publicKey: Uint8Array): Uint8Array {
  return copyOf(thumbprintOf(suite, publicKey), 0, 8)
}
