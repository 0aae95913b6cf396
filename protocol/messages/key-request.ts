/**
 * What a client signs with its Ethereum key to show that it is the address in the token (EIP-712, protocol.md
 * "Challenge"). The channel binding ties it to one DTLS association, keyServer to one server, nonce to one attempt.
 */

import type { CborEncodable } from '../cbor.ts'
import { type Domain, domainSeparator, hashStruct, type StructType, typedDigest } from './eip712.ts'
import { malformed, readArray, readBytes, readUint } from './fields.ts'

export interface KeyRequest {
  /** 20 octets */
  readonly client: Uint8Array
  /** 20 octets, the `res` of the token */
  readonly device: Uint8Array
  /** 4 octets: the bits that are asked for */
  readonly claims: Uint8Array
  /** SHA-256 of the key server's SPKI */
  readonly keyServer: Uint8Array
  /** channelBinding() of the association */
  readonly channel: Uint8Array
  /** N_S of the challenge, 32 octets */
  readonly nonce: Uint8Array
  /** thumbprint of the client's command key, 32 zero octets to read only */
  readonly signKey: Uint8Array
  /** unix seconds */
  readonly issuedAt: number
  /** unix seconds */
  readonly expiresAt: number
}

export interface SignedKeyRequest {
  readonly request: KeyRequest
  /** 65 octets r ‖ s ‖ v of an externally owned account, up to 4096 octets for EIP-1271 */
  readonly signature: Uint8Array
}

export const KEY_REQUEST: StructType = {
  name: 'KeyRequest',
  fields: [
    { name: 'client', type: 'address' },
    { name: 'device', type: 'address' },
    { name: 'claims', type: 'bytes4' },
    { name: 'keyServer', type: 'bytes32' },
    { name: 'channel', type: 'bytes32' },
    { name: 'nonce', type: 'bytes32' },
    { name: 'signKey', type: 'bytes32' },
    { name: 'issuedAt', type: 'uint64' },
    { name: 'expiresAt', type: 'uint64' },
  ],
}

export const NO_SIGN_KEY: Uint8Array = new Uint8Array(32)

/** 32 octets to sign. @throws `message/bad-typed-data` */
export function keyRequestDigest(domain: Domain, request: KeyRequest): Uint8Array {
  return typedDigest(domainSeparator(domain), hashStruct(KEY_REQUEST, { ...request }))
}

/**
 * The value of client_cred_verify(24) in a client's first join.
 * ```cddl
 * signed-key-request = [ [ client: bstr .size 20, device: bstr .size 20, claims: bstr .size 4, keyServer: bstr .size 32,
 *                          channel: bstr .size 32, nonce: bstr .size 32, signKey: bstr .size 32,
 *                          issuedAt: uint, expiresAt: uint ], signature: bstr .size (65..4096) ]
 * ```
 */
export function signedKeyRequestValue(signed: SignedKeyRequest): CborEncodable[] {
  const r = signed.request
  return [
    [r.client, r.device, r.claims, r.keyServer, r.channel, r.nonce, r.signKey, r.issuedAt, r.expiresAt],
    signed.signature,
  ]
}

/** @throws `message/malformed` */
export function readSignedKeyRequest(value: unknown): SignedKeyRequest {
  const [fields, signature] = readArray(value, 'client_cred_verify', 2)
  const f = readArray(fields, 'KeyRequest', 9)
  const request: KeyRequest = {
    client: readBytes(f[0], 'client', 20),
    device: readBytes(f[1], 'device', 20),
    claims: readBytes(f[2], 'claims', 4),
    keyServer: readBytes(f[3], 'keyServer', 32),
    channel: readBytes(f[4], 'channel', 32),
    nonce: readBytes(f[5], 'nonce', 32),
    signKey: readBytes(f[6], 'signKey', 32),
    issuedAt: readUint(f[7], 'issuedAt'),
    expiresAt: readUint(f[8], 'expiresAt'),
  }
  if (request.expiresAt <= request.issuedAt) throw malformed('KeyRequest expires before it is issued')
  return { request, signature: readBytes(signature, 'signature', [65, 4096]) }
}
